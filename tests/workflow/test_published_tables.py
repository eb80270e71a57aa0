"""The stage that judges combiners on published tables."""

import numpy as np
import pandas as pd

from libranas.spaces import make_space


def test_published_tables_are_judged_and_joined(fresh):
    space = make_space({"family": "nasbench201"}, 32, 3, 10)
    rng = np.random.default_rng(0)
    archs = list({a.id: a for a in (space.sample(rng) for _ in range(130))}.values())
    size = np.array([space.params(a) for a in archs], dtype=float)
    folder = fresh.folder / "tables"
    folder.mkdir()
    for task in ("cifar10", "cifar100"):
        table = {"arch": map(space.format, archs), "val_accuracy": size + rng.normal(0, size.std(), len(size))}
        table |= {"params": size / 1e6, "flops": size, "nwot": rng.normal(size=len(size))}
        pd.DataFrame(table).to_csv(folder / f"nasbench201-{task}.csv", index=False)
    judged = {"tables": str(folder), "labels": [0, 25], "splits": 2, "methods": ["params", "consensus", "blend"]}
    planned = fresh.planned("published", changes={"published": judged})
    assert planned == {"published_table": 2, "published": 1}
    fresh.succeed("published", changes={"published": judged})
    table1 = pd.read_csv(fresh.results / "published/table1.csv", index_col="column")
    assert len(table1) == 20 and table1["ours"].notna().sum() == 0  # 100 labels were not asked for
    labels = pd.read_csv(fresh.results / "published/labels.csv")
    assert set(labels["method"]) == {"params", "consensus", "blend"} and (labels["tables"] == 2).all()
    assert 0.4 < labels.query("method == 'blend' and k == 25")["spearman"].item() < 0.95
    missing = fresh.fail("published", changes={"published": {**judged, "tables": "nowhere"}})
    assert "nowhere" in missing
