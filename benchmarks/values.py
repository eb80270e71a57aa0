"""The values of a finished run by kind, and how far those of two runs are apart."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from libranas import scores as store

#: Kind of value to the files of a run that hold it. Not among them: times, the report, the model card, which has times.
KINDS = {
    "sample": ("sample/archs.csv",),
    "scores": ("scores/scores.h5",),
    "layers": ("layers/*",),
    "labels": ("benchmark/train.csv",),
    "predictors": ("libra/*.csv", "libra/choice.json"),
    "search history": ("search/*.csv", "search/guided/[cpf]*.csv", "search/selected.json"),
    "trained accuracy": ("train/*/*/metrics.json", "train/curves.csv", "train/summary.json"),
    "weights": ("train/*/*/model.safetensors",),
    "export": ("export/winner/*.safetensors", "export/winner/*.json", "export/winner/*.yaml"),
}


def leaves(value, name: str = "") -> dict:
    """The single values of a JSON document by their paths, without the conditions of the run."""
    if not isinstance(value, dict | list):
        return {name: np.array(np.nan if value is None else value)}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for key, part in pairs if key != "facts" for k, v in leaves(part, f"{name}/{key}").items()}


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file of results by name."""
    if path.suffix == ".h5":
        scores = store.read(path)
        rows = np.argsort([arch.json for arch in scores.archs])  # in the file they are in the order of the shards
        found = {"archs": np.array([scores.archs[row].json for row in rows])}
        for proxy, table in scores.proxies.items():
            found[f"{proxy}/value"] = table.value_AS[rows]
            found |= {f"{proxy}/{name}": component.values[rows] for name, component in table.components.items()}
        return found
    if path.suffix == ".csv":
        table = pd.read_csv(path, float_precision="round_trip")
        if by := [name for name in ("id", "seed") if name in table]:  # jobs that trained are joined in their order
            table = table.sort_values(by, kind="stable").drop(columns=["shard", "evaluation", "best"], errors="ignore")
        return {name: table[name].to_numpy() for name in table}
    if path.suffix == ".json":
        return leaves(json.loads(path.read_text()))
    if path.suffix == ".safetensors":  # two axes or more: differences are those to the largest of a tensor
        return {name: np.atleast_2d(tensor) for name, tensor in load_file(path).items()}
    return {"text": np.array(path.read_text())}


def values(results: Path) -> dict[tuple[str, str, str], np.ndarray]:
    """All values of a run by (kind, file, name); the kind of a proxy's scores is ``score of PROXY``."""
    found = {}
    for kind, patterns in KINDS.items():
        for path in sorted(path for pattern in patterns for path in results.glob(pattern)):
            for name, array in read(path).items():
                of = f"score of {name.split('/')[0]}" if kind == "scores" and "/" in name else kind
                found[of, str(path.relative_to(results)), name] = array
    return found


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, relative to the larger of both values; of a tensor (two axes or more) to its largest.

    0 is equality; infinite where texts, shapes or what is missing differ.
    """
    if a.shape != b.shape or a.dtype != b.dtype or a.dtype.kind not in "fiu":
        return 0.0 if a.shape == b.shape and np.array_equal(a.astype(str), b.astype(str)) else np.inf
    a, b = a.astype(float), b.astype(float)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return np.inf
    size = np.fmax(abs(a), abs(b))
    size = np.nanmax(size, initial=0) if a.ndim > 1 else size
    with np.errstate(invalid="ignore"):
        return float(np.nanmax(np.where(a == b, 0, abs(a - b) / size), initial=0))


def differences(ours: dict, others: dict) -> dict[tuple[str, str, str], float]:
    """:func:`apart` of every value that either run has; infinite for what only one has."""
    return {
        key: apart(ours[key], others[key]) if key in ours and key in others else np.inf for key in {**ours, **others}
    }


def sha256(results: Path) -> dict[str, str]:
    """The content of the files that must be equal to the byte, or of scores without their times."""
    paths = (path for patterns in KINDS.values() for pattern in patterns for path in results.glob(pattern))
    tables = {
        str(p.relative_to(results)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths if p.suffix == ".csv"
    }
    return {**tables, "scores/scores.h5": store.content_sha256(store.read(results / "scores/scores.h5"))}
