"""The stage that judges combiners on published tables."""

import numpy as np
import pandas as pd

from libranas.core.files import write_json
from libranas.spaces import make_space


def test_published_tables_are_judged_and_joined(fresh):
    space = make_space({"family": "nasbench201"}, 32, 3, 10)
    rng = np.random.default_rng(0)
    archs = list({a.id: a for a in (space.sample(rng) for _ in range(230))}.values())
    size = np.array([space.params(a) for a in archs], dtype=float)
    folder = fresh.folder / "tables"
    folder.mkdir()
    for task in ("cifar10", "cifar100"):
        table = {"arch": map(space.format, archs), "val_accuracy": size + rng.normal(0, size.std(), len(size))}
        table |= {"params": size / 1e6, "flops": size, "nwot": rng.normal(size=len(size))}
        table = pd.DataFrame(table)
        if task == "cifar10":
            table.to_csv(folder / f"nasbench201-{task}.csv", index=False)
            continue
        scores = [{p: {"score": row[p]} for p in ("params", "flops", "nwot")} for _, row in table.iterrows()]
        said = zip(table["arch"], table["val_accuracy"], scores, strict=True)
        content = {task: {arch: {"val_accuracy": accuracy} | found for arch, accuracy, found in said}}
        write_json(folder / "zc_nasbench201.json", content)
    scores = fresh.folder / "scores"
    scores.mkdir()
    own = pd.DataFrame({"arch": map(space.format, archs), "zico": size, "lswag_window": rng.normal(size=len(size))})
    own.to_csv(scores / "nasbench201.csv", index=False)
    judged = {
        "scores": str(scores),
        "tables": str(folder),
        "labels": [0, 25],
        "splits": 2,
        "methods": ["params", "consensus", "blend"],
    }
    planned = fresh.planned("published", changes={"published": judged})
    assert planned == {"published_table": 2, "published": 1}
    fresh.succeed("published", changes={"published": judged})
    table1 = pd.read_csv(fresh.results / "published/table1.csv", index_col="column")
    assert len(table1) == 20 and table1["ours"].notna().sum() == 0  # 100 labels were not asked for
    labels = pd.read_csv(fresh.results / "published/labels.csv")
    assert set(labels["method"]) == {"params", "consensus", "blend"} and (labels["tables"] == 2).all()
    assert 0.4 < labels.query("method == 'blend' and k == 25")["spearman"].item() < 0.95
    means = pd.read_csv(fresh.results / "published/means.csv").set_index(["table", "method", "k"])
    blend = means.loc[("nasbench201-cifar10", "blend", 25)]
    assert len(means) == 2 * (2 + 3) and blend["low"] <= blend["spearman"] <= blend["high"]
    table3 = pd.read_csv(fresh.results / "published/table3.csv").set_index(["column", "components"])
    full, zico = (table3.loc["NB201-C100"].loc[part] for part in ("full L-SWAG", "ZiCo form log(mu/sigma), all layers"))
    assert len(table3) == 4 and full["paper"] == 0.83 and zico["spearman"] > 0.4 > abs(full["spearman"])
    table4 = pd.read_csv(fresh.results / "published/table4.csv")
    assert len(table4) == 20 and set(table4["mode"]) == {"literal", "corrected"} and "NB201-C10" in table4
    missing = fresh.fail("published", changes={"published": {**judged, "tables": "nowhere"}})
    assert "nowhere" in missing
    missing = fresh.fail("published", changes={"published": {**judged, "scores": "nowhere"}})
    assert "published.scores: there is no folder nowhere" in missing
    own.iloc[1:].to_csv(scores / "nasbench201.csv", index=False)
    assert fresh.planned("published", changes={"published": judged}) == {"published_table": 2, "published": 1}
