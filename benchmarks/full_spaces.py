"""Score every network of whole published spaces, for searches that may propose any of them.

    python benchmarks/full_spaces.py FOLDER CIFAR10.npz [--spaces nasbench201 ...] [--workers 2]

FOLDER holds ``SPACE.csv`` with a column ``arch`` of all members. Equal networks are scored once, with one
initialisation, on 16 class-balanced CIFAR-10 images, and thinner than published: see :data:`SKELETONS`. Writes
``benchmarks/published/scores/whole/SPACE.csv.gz``: string of a network, and its proxies, higher = better. Killed,
it goes on where it was.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import torch
import yaml
from score_tables import scorer_of

from libranas.core.arch import Arch
from libranas.core.files import write_json
from libranas.core.progress import progress
from libranas.core.provenance import facts
from libranas.core.shards import shard_of
from libranas.published.tables import SPACES, space_of
from libranas.scores.shard import score_shard
from libranas.spaces import make_space
from libranas.zero_cost.registry import get

ROOT = Path(__file__).resolve().parents[1]
OUT = Path(__file__).with_name("published") / "scores" / "whole"
#: Config section ``space`` and image size of the networks that are scored.
SKELETONS = {
    "nasbench201": ({"width": 16, "cells": 1}, 32),
    "transbench101_micro": ({"width": 16}, 32),
    "transbench101_macro": ({"width": 16}, 32),
}
BATCH = 16
#: Progress is kept, and workers share the work, in so many pieces.
PIECES = 64


def networks(folder: Path, name: str) -> dict[str, Arch]:
    """String of the benchmark to network, each network once."""
    space = space_of(f"{name}-")
    texts = pd.read_csv(folder / f"{name}.csv")["arch"]
    by_id = {}
    for text in texts:
        arch = space.parse(text)
        if space.representative(arch) == arch:
            by_id[text] = arch
    return by_id


def score_piece(name: str, archs: list[Arch], images: str, path: Path) -> pd.DataFrame:
    """Score some networks of a space; one row a network."""
    torch.set_num_threads(1)
    skeleton, size = SKELETONS[name]
    space = make_space(SPACES[name] | skeleton, size, 3, 10)
    names = yaml.safe_load((ROOT / "config.yaml").read_text())["score"]["proxies"]
    scores = score_shard(scorer_of(space, images, size, BATCH), archs, 1, names, path)
    values = {proxy: scores.proxies[proxy].value_AS[:, 0] * get(proxy).orientation for proxy in names}
    return pd.DataFrame(values, [arch.id for arch in scores.archs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path)
    parser.add_argument("images", help="CIFAR-10 as the adapter cifar10 reads it")
    parser.add_argument("--spaces", nargs="+", choices=SKELETONS, default=list(SKELETONS))
    parser.add_argument("--state", type=Path, default=Path("results/whole"), help="folder of the progress")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit", type=int, help="networks of each space, to try it out; writes nothing")
    arguments = parser.parse_args()
    arguments.state.mkdir(parents=True, exist_ok=True)
    for name in arguments.spaces:
        archs = networks(arguments.tables, name)
        if arguments.limit:
            archs = dict(list(archs.items())[:: max(1, len(archs) // arguments.limit)][: arguments.limit])
        pieces = [[a for a in archs.values() if shard_of(a.id, PIECES) == k] for k in range(PIECES)]
        with ProcessPoolExecutor(arguments.workers) as pool:
            work = [
                pool.submit(score_piece, name, piece, arguments.images, arguments.state / f"{name}-{k}.jsonl")
                for k, piece in enumerate(pieces)
                if piece
            ]
            table = pd.concat([job.result() for job in progress(work, len(work), name)])
        texts = {arch.id: text for text, arch in archs.items()}
        table.insert(0, "arch", [texts[id] for id in table.index])
        if not arguments.limit:
            OUT.mkdir(parents=True, exist_ok=True)
            table.sort_values("arch").to_csv(OUT / f"{name}.csv.gz", index=False, float_format="%.5g")
            about = {"networks": len(table), "batch": BATCH, "skeleton": SKELETONS[name], "facts": facts()}
            write_json(OUT / f"{name}.json", about)
        print(f"{name}: {len(table)} networks, {table.isna().sum().sum()} scores are not finite", flush=True)


if __name__ == "__main__":
    main()
