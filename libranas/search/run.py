"""Run a search: evaluate proposals, keep a log, go on from it."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from libranas.core.arch import Arch
from libranas.core.files import AppendLog
from libranas.core.progress import silent
from libranas.search.base import Evaluated, Searcher


def run(
    searcher: Searcher,
    evaluate: Callable[[Arch], tuple[float, dict]],
    evaluations: int,
    log_path: str | Path,
    key: str,
    progress: Callable = silent,
    each: Callable = map,
) -> list[Evaluated]:
    """Evaluate `evaluations` proposals of `searcher`, taking from the log what is there.

    Parameters
    ----------
    evaluate : callable arch -> (fitness, JSON-ready details)
        A fitness that is not a number counts as -inf.
    key : str
        Names everything the fitness depends on; records under another key are not used.
    each : callable (evaluate, architectures) -> their results in order
        ``map``, or one that shares the architectures out (:func:`libranas.search.workers.shared_out`).
    """
    history: list[Evaluated] = []

    def evaluated(log: AppendLog) -> Iterator[Evaluated]:
        known = {record["arch"]: record for record in log.records if record["key"] == key}
        while len(history) < evaluations:
            proposed = list(islice(searcher.ask(history), evaluations - len(history)))
            results = iter(each(evaluate, [arch for arch in proposed if arch.json not in known]))
            for arch in proposed:
                if not (record := known.get(arch.json)):
                    fitness, detail = next(results)
                    fitness = float(fitness) if fitness == fitness else float("-inf")
                    record = {"key": key, "arch": arch.json, "fitness": fitness, "detail": detail}
                    log.append(record)
                history.append(Evaluated(arch, record["fitness"], record["detail"]))
                yield history[-1]

    with AppendLog(log_path) as log:
        for _ in progress(evaluated(log), evaluations, f"search: {searcher.name}"):
            pass
    return history
