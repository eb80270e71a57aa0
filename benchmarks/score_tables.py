"""Scores all architectures of the published tables with proxies that the tables do not hold.

    python benchmarks/score_tables.py FOLDER-OF-TABLES CIFAR10.npz

writes ``benchmarks/published/scores/SPACE.csv``: the strings of the tables' column ``arch`` and the values of the
proxies, higher = better, for ``libranas.published.tables``; those ending in ``_window`` are of the label-free layer
window. It
looks at CIFAR-10 images whatever the task of a table is, so that one file serves all tables of a space, and at thinner
networks where the published ones take seconds.
Killed, it goes on where it was.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from libranas import scores as store
from libranas.core.arch import Arch
from libranas.core.files import write_text
from libranas.core.progress import progress
from libranas.published.tables import NASLIB_TASKS, SPACES, space_of
from libranas.runs.folder import RunFolder
from libranas.runs.stages.inputs import prepare
from libranas.scores import layer_window as layers
from libranas.scores.shard import score_shard
from libranas.spaces import Space, make_space
from libranas.zero_cost.scorer import Scorer

OUT = Path(__file__).with_name("published") / "scores"
NAMES = [
    *("lswag_sample_lambda", "lswag_sample_psi", "lswag_sample"),
    *("lswag_lambda", "lswag_psi", "lswag", "zico"),
    *("az_expressivity", "az_progressivity", "az_trainability"),
]
#: Config section ``space`` and image size of the networks that are scored.
SKELETONS = {
    "nasbench101": ({"width": 64}, 32),
    "nasbench201": ({}, 32),
    "nasbench301": ({"width": 16, "layers": 8, "affine": False}, 32),
    "transbench101_micro": ({}, 64),
    "transbench101_macro": ({}, 64),
}
BATCH = 32
OPTIONS = {"noise_batch": 16}


def scorer_of(space: Space, images: str, size: int, batch: int = BATCH) -> Scorer:
    """Score networks of `space` on class-balanced CIFAR-10 training images of `size` pixels."""
    data = {
        "adapter": "cifar10",
        "path": images,
        "image_size": size,
        "channels": 3,
        "splits": {"val": 0.1},
        "limit": {"train": 2000, "val": 100, "test": 100},
        "max_broken": 0,
        "calibration": batch,
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = {"options": OPTIONS, "readout": 256}
        run = RunFolder(folder, {"data": data, "seed": 1, "device": "cpu", "score": settings})
        run.space = space
        prepare(run)
        scorer = run.scorer()
        more = scorer.readout.load()  # the folder goes
    return replace(scorer, readout=replace(scorer.readout, load=lambda: more))


def add_proxies(
    table: pd.DataFrame, scorer: Callable[[], Scorer], archs: list[Arch], names: list[str], log: Path
) -> tuple[pd.DataFrame, dict]:
    """Join those of `names` that a recorded table lacks; return their conditions with it, none if it lacks none."""
    lacking = [name for name in names if name not in table]
    if not lacking:
        return table, {}
    scores = score_shard(scorer(), archs, 1, lacking, log, progress)
    return table.join(store.frame(scores)[lacking]), {f"added: {', '.join(lacking)}": scores.provenance}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path)
    parser.add_argument("images", help="CIFAR-10 as the adapter cifar10 reads it")
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--state", type=Path, default=Path("results/published"), help="folder of the progress")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.state.mkdir(parents=True, exist_ok=True)
    for name in arguments.spaces:
        tables = [p for p in sorted(arguments.tables.glob(f"{name}-*.csv")) if "val_accuracy" in p.open().readline()]
        if name == "transbench101_micro":  # their strings name other networks
            tables = [p for p in tables if p.stem.partition("-")[2] not in NASLIB_TASKS]
        texts = dict.fromkeys(text for p in tables if "9445" not in p.stem for text in pd.read_csv(p)["arch"])
        skeleton, size = SKELETONS[name]
        space = make_space(SPACES[name] | skeleton, size, 3, 10)
        archs = {text: space_of(f"{name}-").parse(text) for text in texts}
        scorer = scorer_of(space, arguments.images, size)
        unique = list({arch.id: arch for arch in archs.values()}.values())
        scores = score_shard(scorer, unique, 1, NAMES, arguments.state / f"{name}.jsonl", progress)
        window = layers.choose_window(layers.curve(scores)).window
        table = layers.whole_and_windowed(scores, window).drop(columns=["params", "macs"])
        table = table.loc[[arch.id for arch in archs.values()]]
        table.index = pd.Index(archs, name="arch")
        OUT.mkdir(parents=True, exist_ok=True)
        write_text(OUT / f"{name}.csv", table.to_csv(float_format="%.7g"))
        print(f"{name}: {len(archs)} architectures, {len(unique)} different; {window}", flush=True)


if __name__ == "__main__":
    main()
