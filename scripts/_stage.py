"""What every script does around its work: log to a file and the terminal, take GPUs, set threads, explain errors."""

import logging
import os
import sys
from contextlib import contextmanager
from pathlib import Path

# The package of this checkout: an image that a script runs in holds another one.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.files import disk_error
from libranas.latency.table import LatencyTable
from libranas.runs.cluster import take_gpus
from libranas.spaces import Budget, make_space


@contextmanager
def stage(snakemake):
    """Run a script's work; a user's mistake ends it with one message and exit code 1, without a traceback."""
    os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)
    log_path = Path(snakemake.log[0])
    log_path.parent.mkdir(parents=True, exist_ok=True)
    logging.raiseExceptions = False  # a log that a full disk does not take must not bury the message
    handlers = [logging.FileHandler(log_path, mode="w"), logging.StreamHandler(sys.stderr)]
    handlers[1].setLevel(logging.ERROR if sys.stderr.isatty() else logging.INFO)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers)
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    log = logging.getLogger("libranas")
    try:
        take_gpus(snakemake.resources.get("gpu", 0))
        yield log
    except LibranasError as error:
        log.error("%s: %s", snakemake.rule, "\n".join([str(error), *getattr(error, "__notes__", [])]))
        sys.exit(1)
    except OSError as error:
        if error.errno is None:
            log.exception("%s failed", snakemake.rule)
        else:
            log.error("%s: %s", snakemake.rule, disk_error(error, Path(error.filename or log_path.parent)))
        sys.exit(1)
    except Exception:
        log.exception("%s failed; this looks like a fault of libranas, not of your input", snakemake.rule)
        sys.exit(1)


def space_of(snakemake, manifest: dict):
    """The search space of the run, for the images of `manifest`."""
    return make_space(snakemake.params.space, manifest["image_size"], manifest["channels"], len(manifest["classes"]))


def budget_of(snakemake) -> Budget:
    """The budget of the run, with the table of latencies where it needs one."""
    tables = snakemake.input.latency
    return Budget.from_settings(snakemake.params.budget, LatencyTable.read(tables[0]) if tables else None)


def archs_of(path: str, shard: int | None = None, count: int | None = None) -> list[Arch]:
    """Architectures of the sample: those among the first `count` that belong to `shard`."""
    with pd.read_csv(path, usecols=["shard", "architecture"], nrows=count, chunksize=100_000) as tables:
        return [
            Arch.from_json(text)
            for table in tables  # the sample may be too large to be held by every job
            for text in (table if shard is None else table[table["shard"] == shard])["architecture"]
        ]


def ids_of(path: str) -> pd.Series:
    """Ids of the sample's architectures, in the order of the draw."""
    return pd.read_csv(path, usecols=["id"], dtype=str)["id"]


def sample_of(snakemake, space):
    """Scores, sizes and features of the sample, as combiners take them."""
    from libranas.predictors.base import Sample

    table = pd.read_csv(snakemake.input.table, index_col="id")
    archs = {arch.id: arch for arch in archs_of(snakemake.input.archs)}
    return Sample.of(table[sorted(snakemake.params.proxies)], space, [archs[i] for i in table.index])


def fitness_of(snakemake, scorer, choice: dict):
    """The fitness of a search, with the combiner that the stage libra judged; and what it depends on."""
    from libranas.core.files import read_json
    from libranas.labels.table import mean_accuracies
    from libranas.predictors.selection import fitted
    from libranas.scores.layer_window import WindowChoice
    from libranas.search.fitness import Fitness

    p, sample = snakemake.params, sample_of(snakemake, scorer.space)
    accuracy = mean_accuracies(snakemake.input.accuracy)
    predictor = fitted(sample, accuracy, choice["calibration"], choice["combiner"]["name"], p.seed)
    window = WindowChoice.from_dict(read_json(snakemake.input.window)).window
    depends = choice["combiner"]["name"], choice["calibration"], sample.score_AP.to_csv(), accuracy.to_csv()
    return Fitness(scorer, predictor, p.search["seeds"], window, p.psi), (*depends, window, p.psi)


def images_of(path: str, manifest: dict, *splits: str) -> tuple:
    """The splits of the prepared data as image sets."""
    from libranas.data.reading import load_split
    from libranas.training.images import ImageSet

    return tuple(ImageSet.from_arrays(*load_split(path, split), manifest) for split in splits)


def use_threads(count: int) -> None:
    """Give PyTorch as many threads as Snakemake gave the job: results and timings depend on it."""
    import torch

    torch.set_num_threads(count)
