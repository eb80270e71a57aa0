"""The stages of a run on a large sample, each in a process of its own (the part `rank` of scale.py).

Architectures are uniform draws from the space of the default experiment, without its budget. The first 60 are scored by
the engine; a row of scores is that of one of these with as many blocks, its values times a factor from a log-normal
distribution. The first 100 have accuracies, drawn from N(0.5, 0.1).
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from libranas import scores as store
from libranas.config.checks import checked
from libranas.core.arch import Arch
from libranas.core.files import write_text
from libranas.report.page import write_report
from libranas.runs.folder import RunFolder
from libranas.runs.stages import inputs, scores, search

ROOT = Path(__file__).resolve().parents[1]
PROXIES = ("params", "flops", "snip", "grad_norm", "zico", "nwot", "swap", "synflow", "az_expressivity")
PROXIES = [*PROXIES, "lswag_lambda", "lswag_psi", "lswag"]
SCORED, LABELLED = 60, 100
INPUTS = ("manifest", "archs", "failures", "costs", "curve", "window", "table", "choice", "methods", "proxies", "parts")


def run_of(folder: Path, architectures: int, shards: int) -> RunFolder:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config |= {"run": "large", "search": None, "train": None, "device": "cpu", "budget": {"params": None, "macs": None}}
    config["sample"], config["score"]["proxies"] = {"count": architectures, "shards": shards}, PROXIES
    config["benchmark"]["count"] = LABELLED
    return RunFolder(folder, checked(config))


def scored(run: RunFolder) -> None:
    """Draw the sample, and write the files of the shards and the accuracies."""
    from libranas.scores.shard import score_shard

    inputs.prepare(run)
    space, rng, known, seen = run.space, np.random.default_rng(0), None, set()
    count, shards = run.config["sample"]["count"], run.config["sample"]["shards"]
    run.path("archs").parent.mkdir(parents=True)
    for shard in range(shards):
        drawn = []
        while len(drawn) < count // shards:
            if (arch := space.sample(rng)).id not in seen:
                drawn.append(arch)
                seen.add(arch.id)
        rows = [(arch.id, space.params(arch), space.macs(arch), shard, arch.json) for arch in drawn]
        table = pd.DataFrame(rows, columns=["id", "params", "macs", "shard", "architecture"])
        table.to_csv(run.path("archs"), mode="a", index=False, header=shard == 0)
        if known is None:
            known = score_shard(run.scorer(), drawn[:SCORED], 1, PROXIES, run.state("score/some.jsonl"))
            alike = pd.Series(range(SCORED)).groupby([arch["depth"] for arch in drawn[:SCORED]]).apply(np.array)
        store.write(run.path("shard", shard=shard), like(known, drawn, table, alike, rng))
    labels = pd.DataFrame({"id": run.ids[:LABELLED], "seed": 0, "accuracy": rng.normal(0.5, 0.1, LABELLED)})
    write_text(run.path("accuracy", method="train"), labels.to_csv(index=False))


def like(known: store.Scores, archs: list[Arch], sizes: pd.DataFrame, alike: pd.Series, rng) -> store.Scores:
    """Scores of `archs`: those of known ones with as many blocks, with other values."""
    rows = np.array([alike[arch["depth"]][k % len(alike[arch["depth"]])] for k, arch in enumerate(archs)])
    proxies = {}
    for name, table in known.proxies.items():
        components = {k: replace(c, values=c.values[rows]) for k, c in table.components.items()}
        of_rows = {k: getattr(table, k)[rows] for k in ("reason_AS", "seconds_AS")}
        values = table.value_AS[rows] * rng.lognormal(0, 0.3, (len(rows), 1))
        proxies[name] = replace(table, value_AS=values, components=components, **of_rows)
    return replace(
        known,
        archs=tuple(archs),
        params_A=sizes["params"].to_numpy(),
        macs_A=sizes["macs"].to_numpy(),
        proxies=proxies,
        axes={name: tuple(found[row] for row in rows) for name, found in known.axes.items()},
        passes={k: store.PassTable(p.seconds_AS[rows], p.peak_bytes_AS[rows]) for k, p in known.passes.items()},
    )


def report(run: RunFolder) -> None:
    files = {name: str(run.path(name)) for name in INPUTS} | {"accuracy": str(run.path("accuracy", method="train"))}
    write_report(run.path("report"), files, run.config, [], "benchmarks/scale.py", run.folder / "times")


#: In the order in which they are run; the first makes what the others work on.
STAGES = {
    "scored": scored,
    "merge": lambda run: scores.merge(run, run.config["sample"]["shards"]),
    "layers": scores.layers,
    "libra": search.libra,
    "report": report,
}

if __name__ == "__main__":
    STAGES[sys.argv[1]](run_of(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
