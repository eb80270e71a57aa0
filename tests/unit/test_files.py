"""Files that a kill, a full disk or an exception cannot half-write."""

import errno
import io
import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libranas.core.errors import LibranasError
from libranas.core.files import AppendLog, atomic_path, disk_error, plain, read_json, write_json, write_text


def names(folder):
    return sorted(p.name for p in folder.iterdir())


# -- whole files ---------------------------------------------------------------------------------------------


def test_a_file_appears_whole_with_its_folder(tmp_path):
    path = tmp_path / "a" / "b" / "table.csv"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".csv" and temporary.parent == path.parent and not path.exists()
        temporary.write_text("x")
        assert not path.exists()
    assert path.read_text() == "x" and names(path.parent) == ["table.csv"]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), SystemExit(1), LibranasError("x")])
def test_an_exception_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "t.txt"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["t.txt"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_explained_and_leaves_the_old_file(tmp_path, code):
    path = tmp_path / "t.txt"
    path.write_text("old")
    with (
        pytest.raises(LibranasError, match=r"No space left on the disk while writing .*t\.txt"),
        atomic_path(path) as new,
    ):
        new.write_text("half")
        raise OSError(code, os.strerror(code))
    assert path.read_text() == "old" and names(tmp_path) == ["t.txt"]


def test_a_full_disk_that_shows_only_when_it_is_flushed(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LibranasError, match="No space left"):
        write_text(tmp_path / "t.txt", "new")
    assert names(tmp_path) == []


def test_a_full_disk_as_hdf5_reports_it(tmp_path):
    with pytest.raises(LibranasError, match="No space left"), atomic_path(tmp_path / "t.h5"):
        raise OSError("Can't synchronously write data (file write failed: No space left on device)")
    with pytest.raises(OSError, match="bad object header") as caught, atomic_path(tmp_path / "t.h5"):
        raise OSError("bad object header")
    assert not isinstance(caught.value, LibranasError)


def test_what_killed_processes_left_behind_is_removed_by_the_next_write(tmp_path):
    dead, zombie = subprocess.Popen(["true"]), subprocess.Popen(["true"])
    dead.wait()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    path, others = tmp_path / "t.txt", [f".t.{os.getppid()}.tmp.txt", f".t.2.{dead.pid}.tmp.txt", ".t.x.tmp.txt"]
    for name in [f".t.{dead.pid}.tmp.txt", f".t.{zombie.pid}.tmp.txt", *others]:
        (tmp_path / name).write_text("half")
    write_text(path, "new")
    assert path.read_text() == "new" and names(tmp_path) == sorted(["t.txt", *others])
    zombie.wait()


def test_a_full_disk_as_pytorch_and_safetensors_report_it(tmp_path):
    with pytest.raises(LibranasError, match="No space left on the disk while writing"), atomic_path(tmp_path / "w"):
        raise ValueError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(LibranasError, match="No space left"), atomic_path(tmp_path / "new.pt") as new:
        torch.save({"x": torch.zeros(100_000)}, Full(new))
    with pytest.raises(RuntimeError, match="another"), atomic_path(tmp_path / "new.pt"):
        raise RuntimeError("another")
    assert names(tmp_path) == []


class Full(io.FileIO):
    """A file on a full disk."""

    def __init__(self, path):
        super().__init__(path, "w")

    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LibranasError, match=r"Cannot write .*file.t.txt"):
        write_text(tmp_path / "file" / "t.txt", "x")
    assert "Cannot write" in str(disk_error(PermissionError(errno.EACCES, "Permission denied"), tmp_path))


# -- JSON ----------------------------------------------------------------------------------------------------


def test_json_round_trip_with_numpy_and_without_nan(tmp_path):
    value = {"a": np.float32(0.5), "b": np.arange(3), 1: (1, None, True), "nan": [float("nan"), np.inf, -math.inf]}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == {"a": 0.5, "b": [0, 1, 2], "1": [1, None, True], "nan": [None] * 3}
    assert plain(np.int64(3)) == 3 and type(plain(np.int64(3))) is int


def test_json_that_cannot_be_read(tmp_path):
    with pytest.raises(LibranasError, match=r"none.json does not exist"):
        read_json(tmp_path / "none.json")
    (tmp_path / "torn.json").write_text('{"a":\n 1')
    with pytest.raises(LibranasError, match=r"torn.json is not valid JSON \(line 2"):
        read_json(tmp_path / "torn.json")


# -- logs ----------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(derandomize=True)
@example([{"v": [0.1, 1e-310, -0.0, math.nan, math.inf, -math.inf, 2**53 + 1.0, math.pi]}])
@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=4))
def test_records_round_trip_with_every_bit(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("log") / "log"
    for record in records:  # opened anew each time, as after a kill
        with AppendLog(path) as log:
            log.append(record)
    with AppendLog(path) as log:
        assert repr(log.records) == repr(records)  # repr: NaN is equal to itself
    assert path.read_bytes().count(b"\n") == len(records)


def test_a_torn_last_line_is_cut_off_wherever_it_was_torn(tmp_path):
    path = tmp_path / "log"
    with AppendLog(path) as log:
        log.append({"a": 1})
        log.append({"b": "two words"})
    raw = path.read_bytes()
    first = raw.index(b"\n") + 1
    for cut in range(len(raw) + 1):
        path.write_bytes(raw[:cut])
        with AppendLog(path) as log:
            whole = (cut >= first) + (cut == len(raw))
            assert len(log.records) == whole
            log.append({"c": 3})
            assert log.records[-1] == {"c": 3}
        assert [json.loads(line) for line in path.read_text().splitlines()] == log.records


def test_a_damaged_line_is_named_and_nothing_is_lost(tmp_path):
    path = tmp_path / "log"
    path.write_text('{"a":1}\n{"b":\x00\x00\n{"c":3}\n')
    before = path.read_bytes()
    with pytest.raises(LibranasError, match=r"log, line 2: not a JSON record") as caught:
        AppendLog(path)
    assert "Delete this file" in caught.value.todo and path.read_bytes() == before


def test_each_record_is_on_the_disk_when_append_returns(tmp_path):
    """Killed with no chance to clean up, the writer has lost nothing that it had appended."""
    code = """
import os, signal, sys
from libranas.core.files import AppendLog
log = AppendLog(sys.argv[1])
for i in range(5):
    log.append({"i": i})
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")])
    assert run.returncode == -signal.SIGKILL
    with AppendLog(tmp_path / "log") as log:
        assert log.records == [{"i": i} for i in range(5)]


def test_a_full_disk_while_appending(tmp_path, monkeypatch):
    log = AppendLog(tmp_path / "log")
    log.append({"a": 1})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(LibranasError, match=r"No space left on the disk while writing .*log"):
            log.append({"b": 2})
    assert log.records == [{"a": 1}]
    log.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_disk_that_is_really_full(tmp_path):
    (tmp_path / "log").symlink_to("/dev/full")
    log = object.__new__(AppendLog)
    log.path, log.records = tmp_path / "log", []
    log._file = open("/dev/full", "ab")  # noqa: SIM115 - closed below
    with pytest.raises(LibranasError, match="No space left"):
        log.append({"a": 1})
    with pytest.raises(LibranasError, match="No space left"):
        log.close()
    assert log.records == []


def test_a_log_that_cannot_be_opened(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LibranasError, match="Cannot write"):
        AppendLog(tmp_path / "file" / "log")
