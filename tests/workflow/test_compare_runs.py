"""Runs of the workflow side by side: a finished one, and a copy that was stopped early."""

import shutil

import pandas as pd

from libranas.cli import main
from libranas.core.files import read_json


def test_a_finished_run_and_one_that_was_stopped(finished, copied, capsys):
    shutil.rmtree(copied.results / "train")
    (copied.results / "report.html").unlink()
    output = copied.folder / "comparison"
    assert main(["compare", str(finished.results), str(copied.results), "--output", str(output)]) == 0
    assert "train/summary.json" in capsys.readouterr().out
    tables = {path.stem: pd.read_csv(path) for path in output.glob("*.csv")}
    assert tables["settings"].empty and tables["winners_between"].empty
    assert (tables["scores"]["spearman"].dropna() > 0.999).all() and (tables["scores"]["n"] == 40).all()
    assert tables["labels_between"]["n"].tolist() == [22]
    selected, networks = read_json(finished.results / "search/selected.json"), tables["networks"]
    assert list(networks["id"]) == [entry["id"] for entry in selected.values()] * 2
    assert networks["accuracy"].notna().sum() == len(selected)  # the copy knows its networks, not their accuracies
