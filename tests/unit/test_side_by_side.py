"""Runs side by side: what differs, what is shared, what is lacking; on small folders of runs."""

import html
import json

import numpy as np
import pandas as pd
import pytest

from libranas.cli import main
from libranas.core.errors import LibranasError
from libranas.core.stats import spearman, welch
from libranas.runs.side_by_side import read_runs, tables

CONFIG = {
    "run": "a",
    "results": "results",
    "seed": 1,
    "space": {"family": "autoformer", "depth": [2, 3]},
    "benchmark": {"method": "train"},
}
ACCURACIES = {"winner": [0.91, 0.93, 0.92], "random": [0.90, 0.88, 0.89]}


def write(path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pd.DataFrame):
        content.to_csv(path, index=False)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def role(identity: str, values: list[float]) -> dict:
    accuracy = {"mean": np.mean(values), "low": min(values), "high": None, "values": values}
    return {"id": identity, "architecture": "{}", "params": 1234, "macs": 9, "seeds": 3, "test_accuracy": accuracy}


def make(folder, first: int, noise: float, config: dict, shift: float = 0.0) -> None:
    """A finished run: 12 architectures from number `first` on."""
    ids = [f"{i:03d}e1" for i in range(first, first + 12)]  # text, although pandas could take them for numbers
    truth = np.arange(first, first + 12, dtype=float)
    rng = np.random.default_rng(int(noise))
    scores = {"zico": truth + noise * rng.normal(size=12), "snip": -truth, f"only{first}": 1.0}
    write(folder / "data/manifest.json", {"content_sha256": "1234567890abcdef"})
    write(folder / "sample/archs.csv", pd.DataFrame({"id": ids}))
    write(folder / "layers/table.csv", pd.DataFrame({"id": ids, "params": 5, "macs": 6, **scores}))
    labels = pd.DataFrame({"id": [*ids, ids[0]], "seed": [0] * 12 + [1], "accuracy": [*truth / 100, truth[0] / 100]})
    write(folder / "benchmark/train.csv", labels)
    combiner = {"name": "blend", "held_out": {"spearman": 0.5, "low": 0.1, "high": 0.8}}
    write(folder / "libra/choice.json", {"proxies": ["zico", "snip"], "n": 15, "combiner": combiner})
    roles = {name: role(f"{name}{first}", [v + shift for v in values]) for name, values in ACCURACIES.items()}
    write(folder / "search/selected.json", {name: {"id": entry["id"]} for name, entry in roles.items()})
    write(folder / "train/summary.json", {"roles": roles, "facts": {"libranas": "0.1.0", "commit": "c" * 40}})
    for k in range(2):
        write(folder / f"times/score/{k}.tsv", pd.DataFrame({"s": [30.0]}).to_csv(sep="\t", index=False))
    write(folder / "state/config.json", config)


@pytest.fixture
def runs(tmp_path):
    """Three runs: the second began four architectures later, the third stopped early and keeps damaged files."""
    make(tmp_path / "a", 0, 0, CONFIG)
    other = CONFIG | {"run": "b", "seed": 2, "space": {"family": "autoformer", "depth": [2, 4], "extra": True}}
    make(tmp_path / "b", 4, 3, other, shift=-0.02)
    (tmp_path / "b/state/config.json").unlink()  # as an older version left it: the report has the settings
    text = html.escape(json.dumps(other, indent=2))
    write(tmp_path / "b/report.html", f'<pre>{{"depth": 2}}</pre><h3>Configuration</h3><pre>{text}</pre>')
    write(tmp_path / "c/sample/archs.csv", "id\n1\n")
    write(tmp_path / "c/layers/table.csv", "id,zico\n000e1,high\n")
    write(tmp_path / "c/libra/choice.json", '{"proxies": [')
    return [tmp_path / name for name in "abc"]


def test_what_differs_and_what_is_shared(runs):
    found = tables(read_runs(runs[:2]))
    assert list(found["runs"]["lacking"]) == ["nothing", "nothing"] and found["runs"]["commit"][0] == "c" * 12
    settings = found["settings"].set_index("setting")
    assert settings["a"].to_dict() == {"seed": "1", "space.depth": "[2, 3]", "space.extra": "(none)"}
    assert settings["b"].to_dict() == {"seed": "2", "space.depth": "[2, 4]", "space.extra": "true"}

    scores = found["scores"].set_index("proxy")
    first, second = (pd.read_csv(run / "layers/table.csv").set_index("id") for run in runs[:2])
    shared = first.index.intersection(second.index)
    assert list(scores.index) == ["zico", "snip"] and (scores["n"] == 8).all() and len(shared) == 8
    assert scores["spearman"]["zico"] == spearman(first["zico"][shared], second["zico"][shared]) < 1
    assert scores["spearman"]["snip"] == pytest.approx(1)

    labels = found["labels"].set_index("run")
    assert (labels["networks"] == 12).all() and (labels["trainings"] == 13).all() and labels["best"]["b"] == 0.15
    assert found["labels_between"][["n", "spearman"]].to_numpy().tolist() == [[8, pytest.approx(1)]]
    assert found["combiners"]["proxies"].tolist() == ["zico, snip"] * 2

    networks = found["networks"].set_index(["run", "id"])["accuracy"]
    assert networks["b", "winner4"] == pytest.approx(0.90) and len(networks) == 4
    between = found["winners_between"].iloc[0]
    expected = welch(ACCURACIES["winner"], [v - 0.02 for v in ACCURACIES["winner"]])
    assert between["same_network"] == "no"
    assert between[["difference", "low", "high", "p"]].tolist() == pytest.approx(list(expected))
    assert found["costs"].to_dict("list") == {"work": ["scores of the sample"], "a": [1.0], "b": [1.0]}


def test_runs_of_other_images_are_not_compared_by_accuracy(runs):
    write(runs[1] / "data/manifest.json", {"content_sha256": "other"})
    assert tables(read_runs(runs[:2]))["winners_between"].empty


def test_what_is_lacking_is_named(runs, tmp_path, capsys):
    assert main(["compare", *map(str, runs), "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if line.startswith("c "))
    for lacking in ("settings", "data/manifest.json", "search/selected.json", "train/summary.json", "times"):
        assert lacking in line
    assert line.count("cannot be read") == 2 and "libra/choice.json (" in line and "layers/table.csv (" in line
    page = (tmp_path / "out/comparison.html").read_text()
    assert (
        page.count("<svg") == 1
        and "<style>" in page
        and "prefers-color-scheme" in page
        and "92.00 %" in page
        and "–" in page
    )
    assert "+2.00 points" in page and "winner4" in page and "cannot be read" in page
    assert pd.read_csv(tmp_path / "out/networks.csv")["run"].tolist() == ["a", "a", "b", "b"]
    assert {path.stem for path in (tmp_path / "out").glob("*.csv")} == set(tables(read_runs(runs)))


def test_runs_that_share_nothing(runs, tmp_path, capsys):
    """Two runs that have hardly begun: every section says what is not there."""
    write(tmp_path / "d/sample/archs.csv", "id\n1\n")
    assert main(["compare", str(runs[2]), str(tmp_path / "d"), "--output", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/comparison.html").read_text()
    for text in ("No run has chosen networks yet", "No run has labels yet", "No two runs have scores"):
        assert text in page
    assert "<svg" not in page


def test_folders_that_are_no_runs(runs, tmp_path):
    for paths, message in (
        (runs[:1], "one run only"),
        ([runs[0], runs[0]], "named twice"),
        ([runs[0], tmp_path / "none"], "not the folder of a run"),
    ):
        with pytest.raises(LibranasError, match=message):
            read_runs(paths)


def test_runs_of_one_name_are_told_apart(runs, tmp_path):
    make(tmp_path / "elsewhere/a", 0, 0, CONFIG)
    assert [run.name for run in read_runs([runs[0], tmp_path / "elsewhere/a"])] == [f"{tmp_path.name}/a", "elsewhere/a"]
