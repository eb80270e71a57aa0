"""The workflow with networks of other families, accuracies from a table, and an early end."""

import json

import numpy as np
import pandas as pd
import timm
import torch

import libranas.nets  # noqa: F401 - registers the architectures with timm
from libranas import scores as store
from libranas.spaces import make_space

SPACE = {"family": "nasbench201", "width": 4, "cells": 1}
PIT = {"family": "pit", "base_dim": [3, 4, 5, 6, 7, 8], "mlp_ratio": [1.0, 1.25, 1.5, 1.75, 2.0]}
PIT |= {"stage_depth": [[1, 2], [1, 2], [1, 2]], "num_heads": [1, 2], "patch_size": 2}


def table_of(settings: dict, fresh) -> dict:
    """Changes to the configuration: a table with the benchmark's own strings, as it is published, and no search."""
    space = make_space(settings, 8, 1, 10)
    rng = np.random.default_rng(1)
    archs = {a.id: a for a in (space.sample(rng) for _ in range(40))}.values()
    table = pd.DataFrame({"arch": [space.format(a) for a in archs], "val_accuracy": rng.uniform(10, 90, len(archs))})
    table.to_csv(fresh.folder / "published.csv", index=False)
    return {
        "space": settings,
        "budget": {"params": None},
        "sample": {"count": 24},
        "score": {"max_failed": 1.0, "options": {"pieces": 4}},
        "benchmark": {
            "method": "table",
            "table": str(fresh.folder / "published.csv"),
            "columns": {"architecture": "arch", "accuracy": "val_accuracy"},
        },
        "search": None,
        "train": None,
    }


def test_a_published_table_ends_with_the_proxies(fresh):
    published = table_of(SPACE, fresh)
    planned = fresh.planned(changes=published)
    assert not {"search", "select", "train", "compare", "export"} & set(planned) and planned["report"] == 1
    fresh.succeed(changes=published)
    scores = store.read(fresh.results / "scores/scores.h5")
    assert {a.family for a in scores.archs} == {"nasbench201"} and len(scores.archs) == 24
    page = (fresh.results / "report.html").read_text(encoding="utf-8")
    assert "Nothing was searched or trained." in page
    assert 'id="search"' not in page and 'id="training"' not in page and 'href="#search"' not in page


def test_a_pit_of_a_table_is_searched_trained_and_exported(fresh):
    recipe = {"epochs": 1, "batch_size": 32, "lr": 0.01, "warmup_epochs": 0, "drop_path": 0.1}
    reference = fresh.folder / "published.yaml"
    reference.write_text("RETRAIN: {BASE_DIM: [5, 5, 5], MLP_RATIO: [2], DEPTH: [2, 1, 1], NUM_HEADS: [1, 1, 2]}")
    train = {"recipe": recipe, "reference": str(reference)}
    fresh.succeed(changes={**table_of(PIT, fresh), "search": {"evaluations": 12}, "train": train})
    summary = json.loads((fresh.results / "train/summary.json").read_text())
    assert json.loads(summary["roles"]["reference"]["architecture"])["base_dim"] == 5
    assert summary["differences"].keys() == {"random", "params_max", "reference"}
    assert "the reference network" in (fresh.results / "report.html").read_text(encoding="utf-8")
    folder = fresh.results / "export/winner"
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert loaded(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    winner = make_space(PIT, 8, 1, 10).parse((folder / "pit.yaml").read_text())
    selected = json.loads((fresh.results / "search/selected.json").read_text())["winner"]["architecture"]
    assert winner.json == selected
    scores = store.read(fresh.results / "scores/scores.h5")
    assert {a.family for a in scores.archs} == {"pit"}
    assert all(np.isfinite(table.value_AS).all() for table in scores.proxies.values())
