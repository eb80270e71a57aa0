"""Score candidates of a search in several processes."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace

import torch

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.progress import may_stop
from libranas.search.fitness import Fitness
from libranas.zero_cost.scorer import Scorer


@contextmanager
def shared_out(fitness: Fitness, workers: int) -> Iterator[Callable]:
    """Give a ``map`` for :func:`libranas.search.run.run` that scores architectures in worker processes.

    With ``cuda`` as the scorer's device the workers take the GPUs in turn; on a CPU each has one thread.
    """
    if workers == 1 or not fitness.predictor.proxies:
        yield map
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    devices, scorer = context.SimpleQueue(), fitness.scorer
    for i in range(workers):
        on = f"cuda:{i % torch.cuda.device_count()}" if scorer.device == "cuda" else scorer.device
        devices.put(on)
    at_rest = replace(scorer, inputs=scorer.inputs.cpu(), targets=scorer.targets.cpu())
    pool = ProcessPoolExecutor(workers, context, _begin, (at_rest, fitness.asked, devices))

    def each(_: Callable, archs: Sequence[Arch]) -> Iterator[tuple[float, dict]]:
        try:
            scored = pool.map(_work, [arch for arch in archs if arch.json not in fitness.known])
            for arch in archs:
                scores = fitness.known.get(arch.json) or next(scored)
                yield fitness.of(arch, scores), scores
        except BrokenProcessPool as error:
            may_stop("while workers were scoring")  # the same signal ended them
            raise LibranasError(
                f"One of {workers} worker processes was killed while it scored, most likely for want of memory.",
                "What was scored is kept. Lower search.workers or give the rule `search` more memory, and run again.",
            ) from error

    try:
        yield each
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(scorer: Scorer, arguments: tuple, devices) -> None:
    """Set up a worker: its own device, one thread, the batch in place."""
    global _own
    torch.set_num_threads(1)
    device = devices.get()
    scorer = replace(scorer, inputs=scorer.inputs.to(device), targets=scorer.targets.to(device), device=device)
    _own = scorer, arguments


def _work(arch: Arch) -> dict[str, float]:
    scorer, arguments = _own
    return scorer.windowed_scores(arch, *arguments)
