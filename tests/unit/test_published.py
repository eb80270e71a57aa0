"""The protocol on published tables: what is read, what stands beside the paper."""

import numpy as np
import pandas as pd
import pytest

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.stats import spearman
from libranas.networks import build
from libranas.predictors.evaluation import MEASURES
from libranas.published import tables as published
from libranas.published import vit_six, vit_six_layers, vit_six_trainings
from libranas.published.ablations import ablate_libra, table3, table4
from libranas.published.paper import printed_table, table1
from libranas.published.tables import judge_table, read_table
from libranas.published.transformers import FOLDER

PROXIES = ("flops", "jacov", "nwot", "params", "snip", "synflow", "zen")


@pytest.fixture
def folder(tmp_path):
    """Two small tables with the names and strings of NAS-Bench-201, one with a proxy that fails."""
    rng = np.random.default_rng(0)
    for task in ("cifar10", "cifar100"):
        codes = np.array([np.unravel_index(i, [5] * 6) for i in rng.permutation(5**6)[:150]])
        accuracy = (codes == 2).sum(axis=1) + 0.5 * rng.normal(size=150)
        scores = {p: 0.1 * w * accuracy + rng.normal(size=150) for w, p in enumerate(PROXIES)}
        table = pd.DataFrame({"arch": [str(tuple(map(int, c))) for c in codes], "val_accuracy": accuracy, **scores})
        table["params"] = np.exp(table["params"])
        table.loc[3, "zen"] = np.inf
        table.to_csv(tmp_path / f"nasbench201-{task}.csv", index=False)
    return tmp_path


def test_read_table(folder):
    table = read_table(folder / "nasbench201-cifar10.csv")
    scores, features = table.sample.score_AP, table.sample.feature_AF
    assert table.name == "nasbench201-cifar10" and set(scores) == set(PROXIES)
    assert (table.sample.params_A == scores["params"]).all() and np.isinf(scores["zen"]).sum() == 1
    assert (features.index == table.accuracy_A.index).all() and np.isfinite(features).all(axis=None)
    further = pd.DataFrame({"arch": table.accuracy_A.index[::-1], "lswag": 1.0, "zen": 2.0})
    further.to_csv(folder / "nasbench201.csv", index=False)
    more = read_table(folder / "nasbench201-cifar10.csv", folder / "nasbench201.csv", features=False).sample
    assert more.feature_AF is None and (more.score_AP["zen"] == 2).all() and (more.score_AP["lswag"] == 1).all()
    further.iloc[1:].to_csv(folder / "nasbench201.csv", index=False)
    with pytest.raises(LibranasError, match="no further scores"):
        read_table(folder / "nasbench201-cifar10.csv", folder / "nasbench201.csv")
    with pytest.raises(LibranasError, match="does not exist"):
        read_table(folder / "nasbench201-svhn.csv")
    (folder / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(LibranasError, match="no table of scores and accuracies"):
        read_table(folder / "other.csv")
    with pytest.raises(LibranasError, match="no search space"):
        published.space_of("other")


def judged_tables(folder, ks, **options) -> pd.DataFrame:
    tables = [read_table(path) for path in sorted(folder.glob("*.csv"))]
    return pd.concat([judge_table(table, ks, **options) for table in tables], ignore_index=True)


def test_judge_table(folder):
    methods = ["flops", "az_nas", "z1", "ridge_ranks"]
    result = judged_tables(folder, (0, 20, 120), splits=2, methods=methods)
    assert set(result["table"]) == {"nasbench201-cifar10", "nasbench201-cifar100"}
    assert set(result["k"]) == {0, 20}  # 120 of 150 leave too few to judge on
    az_nas = result.query("method == 'az_nas'")
    assert (az_nas["split"] == -1).all() and az_nas["lacks"].str.startswith("az_expressivity").all()
    assert (result.query("k == 0 and method == 'z1'")["lacks"] == "labels").all()
    judged = result.query("lacks == ''")
    assert len(judged) == 2 * (1 + 2 * 3) and judged[list(MEASURES)].notna().all(axis=None)
    flops = judged.query("method == 'flops' and k == 0 and table == 'nasbench201-cifar10'")["spearman"].item()
    bare = read_table(folder / "nasbench201-cifar10.csv", features=False)
    assert flops == pytest.approx(spearman(bare.sample.score_AP["flops"], bare.accuracy_A))
    rho = judged.query("k == 20").groupby("method")["spearman"].mean()
    assert rho["ridge_ranks"] > rho["z1"]
    assert judge_table(bare, [20], splits=2, methods=["ridge_ranks"])["spearman"].mean() < rho["ridge_ranks"]
    assert published.find_tables(folder / "empty") == {}


def test_table1(folder):
    result = judged_tables(folder, (20,), splits=3, methods=["ridge_ranks"])
    table = table1(result, "ridge_ranks", 20)
    assert list(table.index) == [*published.COLUMNS, "mean"]
    assert table.loc["NB201-C10", "LIBRA"] == 0.89 and table.loc["NB201-C10", "ours"] > 0.6
    assert table.loc["NB201-C10", "better"] == (table.loc["NB201-C10", "ours"] > 0.89)
    assert np.isnan(table.loc["NB301-C10", "ours"]) and np.isnan(table.loc["NB301-C10", "better"])
    assert table.loc["mean", "AZ-NAS"] == pytest.approx((0.91 + 0.9) / 2)  # of the columns that have a table
    assert table.loc["mean", "ours"] == pytest.approx(table["ours"].iloc[:2].mean())
    assert table.loc["mean", "better"] == table["better"].iloc[:2].sum()


def test_table3(folder):
    table = read_table(folder / "nasbench201-cifar10.csv", features=False)
    scores, accuracy, params = table.sample.score_AP, table.accuracy_A, table.sample.params_A
    shuffled = scores.rename(columns={"synflow": "zico", "snip": "lswag_window"}).sample(frac=1, random_state=0)
    parts = table3(shuffled, accuracy, params, "NB201-C10")
    assert parts["components"].tolist() == ["ZiCo form log(mu/sigma), all layers", "full L-SWAG"]
    assert parts["paper"].tolist() == [0.75, 0.79] and (parts["n"] == 150).all()
    assert parts["spearman"][0] == spearman(scores["synflow"], accuracy)
    assert ((parts["low"] < parts["spearman"]) & (parts["spearman"] < parts["high"])).all()
    assert table3(shuffled, accuracy, params)["paper"].isna().all()
    nothing = table3(scores, accuracy, params)
    assert list(nothing) == list(parts) and nothing.empty


def test_table4(folder):
    paper = printed_table(4)
    tables = [read_table(path, features=False) for path in sorted(folder.glob("*.csv"))]
    ablation = pd.concat(
        ablate_libra(t, k=50, splits=2, mode=mode) for mode in ("corrected", "literal") for t in tables
    )
    assert np.isfinite(ablation["spearman"]).all() and len(ablation) == 2 * 2 * len(paper)
    lacking = (ablation["table"] == "nasbench201-cifar100") & (ablation["strategy"] == "2 random")
    ablation.loc[lacking, "spearman"] = np.nan
    table = table4(ablation).set_index(["mode", "part", "strategy"])
    assert list(table.columns) == [f"paper {c}" for c in paper.columns[2:]] + ["NB201-C10", "NB201-C100", "mean"]
    assert (table["mean"] == table["NB201-C10"]).all()  # not every strategy can be carried out in the other
    for mode, same in (("literal", "best + min IG"), ("corrected", "best + max IG")):
        part = table.loc[mode]
        assert list(part.index) == list(zip(paper["part"], paper["strategy"], strict=True))
        assert part.loc[("z3", "bias matching (LIBRA)"), "paper NB301-C10"] == 0.74
        assert part["NB201-C10"][("z1+z2", "2 best gradient-free")] > part["NB201-C10"][("z1+z2", "2 random")]
        assert part["NB201-C10"][("z1+z2", same)] == part["NB201-C10"][("z3", "without bias step")]


def test_strings_of_the_published_tables(shared_dir):
    """Every string is a member of its space, and a Spearman that the paper's sources print too."""
    data = shared_dir / "data" / "nas_bench_suite_zero"
    names = published.find_tables(data)
    assert len(names) == 13
    for name in names:
        table = read_table(data / f"{name}.csv")
        features = table.sample.feature_AF
        assert len(features) == len(table.accuracy_A) and np.isfinite(features).all(axis=None)
    table = read_table(data / "nasbench201-cifar100.csv", features=False)
    assert spearman(table.sample.score_AP["nwot"], table.accuracy_A) == pytest.approx(0.8, abs=0.02)


def test_vit_six_is_whole():
    tables, trainings = vit_six(), vit_six_trainings()
    assert list(tables) == ["cifar10", "fashion", "digits", "sphere", "grocery", "clothing"]
    ids = tables["cifar10"].accuracy_A.index
    for task, table in tables.items():
        sample, own = table.sample, trainings[trainings["task"] == task]
        assert (table.accuracy_A.index == ids).all() and len(ids) == 64
        assert table.accuracy_A[ids[0]] == pytest.approx(own[own["id"] == ids[0]]["accuracy"].mean())
        assert not own.duplicated(["id", "seed"]).any() and list(own.value_counts("seed", sort=False)) == [64, 64, 16]
        assert table.accuracy_A.between(1 / table.space.classes, 1).all()
        assert np.isfinite(sample.score_AP[["nngp", "lswag", "params"]]).all(axis=None)
        layers = vit_six_layers(task).proxies["lswag_lambda"]
        assert len(layers.value_AS) == 64 and layers.components
    assert sum(path.stat().st_size for path in FOLDER.glob("*")) < 2**20


def test_sizes_of_vit_six_are_those_of_the_networks_that_are_built():
    table = vit_six()["digits"]
    archs = [Arch.from_json(text) for text in pd.read_csv(FOLDER / "networks.csv")["architecture"][:2]]
    for arch in archs:
        network = build(table.space, arch, 0)
        assert sum(p.numel() for p in network.parameters()) == table.sample.params_A[arch.id]


def test_a_task_that_vit_six_does_not_have():
    with pytest.raises(LibranasError, match=r"no task svhn[\s\S]*cifar10"):
        vit_six_layers("svhn")
