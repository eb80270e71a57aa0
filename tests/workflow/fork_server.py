"""Start Snakemake and its scripts as forks of a process that has imported them: in 0.1 s instead of 4 s and more.

Only the imports are shared. Each program is a process of its own with its own id, environment, streams and exit code;
it can be stopped and killed, and Snakemake still starts ``python script.py``.

- A test process starts one server (`Server`), which imports everything once and starts no thread.
- Snakemake runs in a fork of it, in a session of its own, and has a server for its scripts in that session: the
  server is forked before Snakemake does anything.
- ``python`` is, for the scripts, this file run as a client: it hands its arguments, environment and streams to the
  server and ends with the exit code of the script.
"""

import json
import os
import socket
import sys
from contextlib import suppress

ADDRESS = "LIBRANAS_FORK_SERVER"
CLIENT = f"{sys.executable} -SE {os.path.abspath(__file__)}"


def listen() -> socket.socket:
    """A socket at a free abstract address; it keeps the boundaries of messages."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("")
    listener.listen(64)
    return listener


class Fork:
    """A program that runs in a fork of the server at `address`; of `subprocess.Popen` it has what tests use."""

    def __init__(self, address: bytes, arguments: list[str], cwd: str, env: dict[str, str], streams: list[int]):
        self.returncode = None
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.connect(address)
        program = json.dumps({"arguments": arguments, "cwd": cwd, "env": env})
        socket.send_fds(self.connection, [program.encode()], streams)
        self.pid = int(self.connection.recv(64))

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, or minus the number of the signal that ended it; TimeoutError after `timeout` seconds."""
        if self.returncode is None:
            self.connection.settimeout(timeout)
            self.returncode = int(self.connection.recv(64))
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, if the program has ended."""
        try:
            return self.wait(timeout=0)
        except BlockingIOError:
            return None


def serve(listener: socket.socket) -> dict:
    """Fork a process for each program that is asked for. Only forks return, each with its program."""
    import ctypes
    import signal
    from pathlib import Path

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the process that started it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    threads = [Path("/proc/self/task", i, "comm").read_text().strip() for i in os.listdir("/proc/self/task")]
    assert len([name for name in threads if name != "jemalloc_bg_thd"]) == 1, f"{threads} do not survive a fork"
    while True:
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        message, streams, *_ = socket.recv_fds(connection, 1 << 20, 3)
        if pid := os.fork():
            for stream in streams:
                os.close(stream)
            connection.send(b"%d" % pid)
            _, status = os.waitpid(pid, 0)
            with suppress(BrokenPipeError):  # its client was killed
                connection.send(b"%d" % os.waitstatus_to_exitcode(status))
            os._exit(0)
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return json.loads(message)


def run(program: dict) -> None:
    """Run a program as ``python`` does; in another checkout, with the package of that."""
    import runpy

    os.chdir(program["cwd"])
    os.environ.clear()
    os.environ.update(program["env"])
    sys.argv = program["arguments"]
    if sys.argv[0] != "snakemake":
        sys.path[0] = os.path.dirname(sys.argv[0])
        runpy.run_path(sys.argv[0], run_name="__main__")
        return
    import libranas

    sys.path[0] = program["cwd"]
    if os.path.dirname(os.path.dirname(libranas.__file__)) != program["cwd"]:
        for name in [name for name in sys.modules if name.split(".")[0] == "libranas"]:
            del sys.modules[name]
    os.setsid()
    listener = listen()
    if os.fork() == 0:
        run(serve(listener))
        return
    os.environ[ADDRESS] = listener.getsockname().decode("latin-1")[1:]
    listener.close()
    sys.executable = CLIENT
    import snakemake.cli

    snakemake.cli.main()


def end_with(program: dict) -> None:
    """Run a program and end as Python does, but leave what was imported to the system: to take it apart takes half a
    second, as long as a job."""
    import atexit
    import threading

    code = 0
    try:
        run(program)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code & 0xFF)


def import_all() -> None:
    """Import what Snakemake, its plugins and the scripts import."""
    import gc
    import importlib
    import pkgutil

    import snakemake.cli

    import libranas

    snakemake.cli.get_argument_parser()

    for module in pkgutil.walk_packages(libranas.__path__, "libranas."):
        if not module.name.endswith(("__main__", "_kernel")):  # a kernel needs Triton, which only a GPU needs
            importlib.import_module(module.name)
    gc.freeze()  # pages that no collection touches stay shared


if __name__ == "__main__":
    if ADDRESS in os.environ:
        address = b"\0" + os.environ.pop(ADDRESS).encode("latin-1")
        sys.exit(Fork(address, sys.argv[1:], os.getcwd(), dict(os.environ), [0, 1, 2]).wait())
    sys.path[0] = os.getcwd()
    import_all()
    end_with(serve(socket.socket(fileno=int(sys.argv[1]))))
