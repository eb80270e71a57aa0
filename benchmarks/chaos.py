"""Kill runs at random moments, or fill their disk; the same command goes on to the results of an undisturbed run.

    python benchmarks/chaos.py                # 100 times kill -9; writes benchmarks/reliability/kills.*
    python benchmarks/chaos.py --full-disk    # 20 full disks, as root; writes benchmarks/reliability/full_disk.*

The run is that of the tests (tests/workflow/tiny.yaml) with guided search, with two cores. Its processes are forks
that need not import anything (tests/workflow/fork_server.py). Each disturbance waits for a stage at work, then for a
random part of the time that the stage took undisturbed; the stages are drawn anew for each run, so that all have their
turn, and after the first run a stage that none has hit is hit once it is seen. Half of the kills hit Snakemake and
everything below it, a third one job, the others one other process (Snakemake alone, what it started the job with);
where a search has worker processes, which count as a stage, one of these. Every fourth waits until a file is being
written. A row is written after each disturbance. The script fails if anything is lost, differs or is done again.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import pandas as pd
from values import differences, sha256, values

from libranas.core.files import write_json, write_text
from libranas.core.provenance import facts

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests/workflow"))
from conftest import PATIENCE, Run, half_written, session, signal_all  # noqa: E402
from test_guided_search import GUIDED  # noqa: E402

HERE = Path(__file__).with_name("reliability")
PLANNING = "(Snakemake plans)"
#: Processes that score for a search, and what their command line has.
WORKERS, WORKER = "(workers)", "spawn_main"
#: Disturbances of one run.
EACH = 17
ORPHAN = "is being written by another process"


class ARun(Run):
    """A run whose terminal is on another disk, as a terminal is, and whose search has worker processes."""

    @property
    def terminal(self) -> Path:
        return self.folder.with_suffix(".txt")

    def begin(self):
        return self.start(changes={"search": {**GUIDED, "workers": 2}})


# -- what is at work -----------------------------------------------------------------------------------------


def processes(leader: int) -> dict[int, tuple[int, str]]:
    """Living processes of a session: id to id of the parent, and command line."""
    found = {}
    for pid in session(leader):
        with suppress(OSError):
            parent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]
            found[pid] = int(parent), Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def rules_at_work(found: dict) -> list[str]:
    """Rules whose scripts run, and :data:`WORKERS`."""
    scripts = (re.search(r"\.snakemake/scripts/tmp\w+\.(\w+)\.py", line) for _, line in found.values())
    workers = {WORKERS} if any(WORKER in line for _, line in found.values()) else set()
    return sorted({script[1] for script in scripts if script} | workers)


def sorted_out(leader: int, found: dict) -> tuple[list[int], dict[int, str]]:
    """Processes that are jobs, and the others by what they are; without those of the server of forks."""
    forks = {pid for pid, (_, line) in found.items() if line == found[leader][1]}
    below = {pid: {p for p in forks if found[p][0] == pid} for pid in forks}
    jobs = {job for server in below[leader] for waiting in below[server] for job in below[waiting]}
    others = {leader: "Snakemake"}
    for pid, (_, line) in found.items():
        if pid not in forks:
            others[pid] = "worker" if WORKER in line else "python script.py" if "fork_server" in line else "shell"
    return sorted(jobs), others


def logs(run: Run) -> dict[Path, list[bytes]]:
    """Complete lines of the logs of progress."""
    found = {path: path.read_bytes() for path in run.results.glob("state/**/*.jsonl")}
    return {path: data[: data.rfind(b"\n") + 1].splitlines() for path, data in found.items()}


def jobs_of(output: str) -> tuple[list[str], set[str]]:
    """Outputs of the jobs that Snakemake started, and of those that it called finished."""
    blocks = re.findall(
        r"^(?:local)?rule \w+:\n(?:    .*\n)*?    output: (.*)\n(?:    .*\n)*?    jobid: (\d+)$", output, re.M
    )
    outputs = {number: output for output, number in blocks}
    return list(outputs.values()), {
        outputs[n] for n in re.findall(r"^Finished jobid: (\d+)", output, re.M) if n in outputs
    }


# -- a disturbed run -----------------------------------------------------------------------------------------


@dataclass
class Record:
    """What was seen of one disturbed run.

    Attributes
    ----------
    lines : complete lines of the logs of progress, when they were looked at last
    finished : outputs of the jobs that Snakemake called finished
    started : how many jobs it started
    again : outputs of finished jobs that it started again
    lost : logs that lack more than the epoch in hand
    epochs_again : epochs of trainings that were in a log, and repeated because their checkpoint was not written
    """

    lines: dict = field(default_factory=dict)
    finished: set = field(default_factory=set)
    started: int = 0
    again: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    epochs_again: int = 0

    def look(self, run: Run) -> None:
        """Compare what the logs of progress hold with what they held."""
        now = logs(run)
        for path, before in self.lines.items():
            same = sum(takewhile(bool, (a == b for a, b in zip(before, now.get(path, []), strict=False))))
            gone = [b'"event":"epoch"' in line for line in before[same:]]
            if gone and (path.name != "metrics.jsonl" or sum(gone) > 1):
                self.lost.append(f"{path.relative_to(run.results)}: {same} of {len(before)} lines are left")
            self.epochs_again += sum(gone)
        self.lines = now

    def ended(self, run: Run) -> None:
        """Take from what a Snakemake that has ended said which jobs it did."""
        self.look(run)
        started, finished = jobs_of(run.output)
        self.again += [output for output in started if output in self.finished]
        self.finished |= finished
        self.started += len(started)


def wait_for(process, rules: set[str], later: set[str], seconds: float) -> bool:
    """Wait for one of `rules` to be at work, then so many seconds or for one of `later`; False if Snakemake ends."""
    until = time.monotonic() + seconds if PLANNING in rules else None
    while process.poll() is None:
        at_work = set(rules_at_work(processes(process.pid)))
        if until is None and at_work & rules:
            until = time.monotonic() + seconds
        if at_work & later or (until is not None and time.monotonic() > until):
            return True
        time.sleep(0.02)
    return False


def being_written(run: Run, leader: int) -> dict[Path, int]:
    """Temporary files of whole files that processes of a session write, and which process does."""
    found = {}
    for folder, _, names in os.walk(run.results):
        for name in names:
            if temporary := re.fullmatch(r"\..*\.(\d+)\.tmp(\.\w+)?", name):
                found[Path(folder, name)] = int(temporary[1])
    living = session(leader) if found else []  # a killed one may have left its file
    return {path: pid for path, pid in found.items() if pid in living}


def freeze(process, run: Run, writing: bool) -> dict[Path, int] | None:
    """Stop all processes, if asked for while files are written; these and their writers, None if all has ended."""
    while process.poll() is None:
        if writing and not being_written(run, process.pid):
            time.sleep(0.001)
            continue
        signal_all(process.pid, signal.SIGSTOP)
        time.sleep(0.02)
        found = being_written(run, process.pid)
        if found or not writing:
            return found
        signal_all(process.pid, signal.SIGCONT)
    return None


def kill_some(process, rng: random.Random, written: dict[Path, int]) -> str:
    """Kill all or one of the stopped processes of a run, let the others go on; what was killed."""
    found = processes(process.pid)
    jobs, others = sorted_out(process.pid, found)
    workers = [pid for pid, what in others.items() if what == "worker"]  # there for seconds only: none is missed
    what = "other" if workers else rng.choices(["everything", "job", "other"], [3, 2, 1])[0]
    if what == "everything" or (what == "job" and not jobs):
        while session(process.pid):
            signal_all(process.pid, signal.SIGKILL)
            time.sleep(0.01)
        what = "everything"
    else:
        writers = [pid for pid in jobs if pid in written.values()]
        choice = writers or jobs if what == "job" else sorted(workers or others)
        victim = rng.choice(choice)
        what = others.get(victim, what)
        os.kill(victim, signal.SIGKILL)
        signal_all(process.pid, signal.SIGCONT)
    process.wait(PATIENCE)
    return what


@contextmanager
def a_folder(folder: Path, size: str | None):
    """An empty folder; with a size, a disk of its own in memory."""
    folder.mkdir(parents=True)
    if size:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"No disk was filled: mounting one in memory needs root ({done.stderr.strip()}).")
    try:
        yield
    finally:
        if size:
            subprocess.run(["umount", folder], check=True)


class Trouble:
    """Disturbs runs, finishes them and compares them with an undisturbed one."""

    def __init__(self, folder: Path, seed: int, full_disk: bool):
        self.folder, self.rng, self.full_disk = folder, random.Random(seed), full_disk
        self.name = "full_disk" if full_disk else "kills"
        self.rows, self.runs = [], []

    def undisturbed(self) -> None:
        """Make the run to compare with; remember when which rule was at work."""
        run, begin, self.spans = ARun(self.folder / "undisturbed"), time.monotonic(), {PLANNING: (0, 2)}
        run.folder.mkdir(parents=True)
        process = run.begin()
        while process.poll() is None:
            for rule in rules_at_work(processes(process.pid)):
                now = time.monotonic() - begin
                self.spans[rule] = self.spans.get(rule, (now, now))[0], now
            time.sleep(0.02)
        assert process.wait() == 0, run.output
        self.values, self.sha256 = values(run.results), sha256(run.results)
        self.records, self.jobs = sum(map(len, logs(run).values())), len(jobs_of(run.output)[0])
        print(f"undisturbed: {time.monotonic() - begin:.0f} s, {len(self.values)} arrays", flush=True)

    def attempt(self, run: Run, record: Record, rule: str, following: str | None) -> bool:
        """Run the command and disturb it at `rule` or after it, at the latest at `following`; False if it ends."""
        first, last = self.spans[rule]
        rules = {name for name, span in self.spans.items() if span[0] >= first}
        later = {name for name in rules if following and self.spans[name][0] >= self.spans[following][0]}
        met = {name for row in self.rows for name in (row["at_work"], *row["at_work"].split())}
        new = bool(self.runs) and rule not in met  # a short one, or it would have been
        rules = {rule} if new else rules
        process, begin = run.begin(), time.monotonic()
        if not wait_for(process, rules, later, 0 if new else self.rng.uniform(0, last - first + 0.1)):
            return not self.is_done(run, record, process)
        writing = not self.full_disk and not new and len(self.rows) % 4 == 3
        if (written := freeze(process, run, writing)) is None:
            return not self.is_done(run, record, process)
        row = {
            "number": len(self.rows) + 1,
            "run": len(self.runs) + 1,
            "seconds": time.monotonic() - begin,
            "stage": rule,
        }
        row |= {"at_work": " ".join(rules_at_work(processes(process.pid))) or PLANNING}
        row |= {
            "writing": " ".join(str(path.relative_to(run.results)) for path in written),
            "bytes_written": sum(path.stat().st_size for path in written if path.exists()) if written else None,
        }
        record.look(run)
        row |= self.fill(process, run) if self.full_disk else {"killed": kill_some(process, self.rng, written)}
        row |= {"exit_code": process.returncode, "tracebacks": run.output.count("Traceback")}
        record.ended(run)
        self.rows.append(row)
        write_text(HERE / f"{self.name}.csv", pd.DataFrame(self.rows).round({"seconds": 2}).to_csv(index=False))
        if row["tracebacks"]:
            (self.folder / f"traceback-{len(self.rows)}.txt").write_text(run.output)
        print(row, flush=True)
        return True

    def fill(self, process, run: Run) -> dict:
        """Leave little or no room on the disk of a stopped run until it has ended."""
        ballast, state = run.folder / "ballast", os.statvfs(run.folder)
        free = state.f_bavail * state.f_frsize
        leave = self.rng.choice([0, self.rng.randrange(1 << 12, 1 << 16)])
        with suppress(OSError):
            ballast.write_bytes(bytes(max(0, free - leave)))
        signal_all(process.pid, signal.SIGCONT)
        process.wait(PATIENCE)
        ballast.unlink()
        said = "No space left on" in run.output
        return {"bytes_left": leave, "named_the_disk": said}

    def is_done(self, run: Run, record: Record, process) -> bool:
        """Whether the run is complete, once Snakemake has ended; else wait for what a killed one left behind."""
        done = process.wait(PATIENCE) == 0
        record.ended(run)
        if not done:
            if ORPHAN not in run.output or "Traceback" in run.output:
                raise SystemExit(f"The same command does not go on:\n{run.output}")
            self.rows[-1]["refused"] = self.rows[-1].get("refused", 0) + 1
            time.sleep(2)
        return done

    def one_run(self, wanted: int) -> None:
        """Disturb a new run, at most as often as is wanted still; finish and compare it."""
        run, record, before = ARun(self.folder / str(len(self.runs) + 1)), Record(), len(self.rows)
        with a_folder(run.folder, "32m" if self.full_disk else None):
            chosen = self.rng.sample(sorted(self.spans), min(EACH, wanted, len(self.spans)))
            ordered = sorted(chosen, key=lambda rule: self.spans[rule])
            if all(self.attempt(run, record, *pair) for pair in zip(ordered, [*ordered[1:], None], strict=True)):
                while not self.is_done(run, record, run.begin()):
                    pass
            found = self.compared(run, record, self.rows[before:])
        self.runs.append(found)
        print(found, flush=True)

    def compared(self, run: Run, record: Record, rows: list) -> dict:
        """What of a finished run is lost, done twice or unlike the undisturbed one."""
        apart = [" ".join(key) for key, by in differences(values(run.results), self.values).items() if by]
        apart += [name for name, found in sha256(run.results).items() if found != self.sha256.get(name)]
        lines = Counter()
        for path, log in logs(run).items():
            if path.parent.name in ("benchmark", "search") and path.name.startswith(("train-", "labels-")):
                lines.update(line.split(b',"accuracy"')[0] for line in log)
        return {
            "disturbances": len(rows),
            "unequal": apart,
            "lost": record.lost,
            "half_written": half_written(run.folder),
            "short_trainings_done_twice": sum(count - 1 for count in lines.values()),
            "records_more_than_undisturbed": sum(map(len, record.lines.values())) - self.records,
            "epochs_done_twice": record.epochs_again,
            "jobs_begun_again": record.started - self.jobs,
            "finished_jobs_done_again": record.again,
        }


def summary(trouble: Trouble) -> dict:
    """Counts over all runs, and what must be empty or zero."""
    rows, runs = pd.DataFrame(trouble.rows), trouble.runs
    at_work = Counter(rule for text in rows["at_work"] for rule in re.findall(r"\([^)]*\)|\w+", text))
    counted = [key for key, value in runs[0].items() if not isinstance(value, list)]
    return {
        "disturbances": len(rows),
        "while_writing": int((rows["writing"] != "").sum()),
        "runs": len(runs),
        **({"killed": dict(Counter(rows["killed"]))} if "killed" in rows else {}),
        **({"named_the_disk": int(rows["named_the_disk"].sum())} if "named_the_disk" in rows else {}),
        "rules_at_work": dict(sorted(at_work.items())),
        "rules_never_at_work": sorted(set(trouble.spans) - set(at_work)),
        "tracebacks": int(rows["tracebacks"].sum()),
        "arrays_compared_a_run": len(trouble.values),
        **{key: sum(run[key] for run in runs) for key in counted if key != "disturbances"},
        **{key: [x for run in runs for x in run[key]] for key, value in runs[0].items() if isinstance(value, list)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument(
        "--full-disk", type=int, nargs="?", const=20, default=0, metavar="TIMES", help="instead of kills"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the runs; new, about 10 MB a run (default: a temporary one)")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"runs: {folder}", flush=True)
    trouble, begin = Trouble(folder, options.seed, bool(options.full_disk)), time.monotonic()
    trouble.undisturbed()
    while (left := (options.full_disk or options.kills) - len(trouble.rows)) > 0:
        trouble.one_run(left)
    found = summary(trouble)
    conditions = {
        "seed": options.seed,
        "seconds": time.monotonic() - begin,
        "command": " ".join(sys.argv),
        "facts": facts(),
    }
    write_json(HERE / f"{trouble.name}.json", {**found, **conditions, "each_run": trouble.runs})
    print(found)
    # An epoch done twice is the work in hand: its line is in the log, its checkpoint is not. A second one is "lost".
    none = ("unequal", "lost", "half_written", "short_trainings_done_twice", "finished_jobs_done_again")
    if wrong := [key for key in none if found[key]]:
        raise SystemExit(f"Not as promised: {', '.join(wrong)}.")


if __name__ == "__main__":
    main()
