"""The whole workflow, from images to the report, and each way of getting accuracies."""

import json
import re
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from conftest import ROOT, TINY
from safetensors.torch import load_file

import libranas.nets  # noqa: F401 - registers the architecture with timm
from libranas import scores as store
from libranas.core.files import read_json, write_json
from libranas.data.source import passed_over
from libranas.labels.table import mean_accuracies
from libranas.report.comparison import ROLES

sys.path.insert(0, str(ROOT / "scripts"))
from mock_snakemake import run_script

OUTPUTS = [
    *("data/images.h5", "data/manifest.json", "data/calibration.npz", "sample/archs.csv"),
    *("scores/shards/0.h5", "scores/shards/1.h5", "scores/scores.h5"),
    *("scores/failures.csv", "scores/costs.csv"),
    *("layers/curve.csv", "layers/window.json", "layers/table.csv", "benchmark/train.csv"),
    *("libra/choice.json", "libra/methods.csv", "libra/proxies.csv"),
    *("search/evolution.csv", "search/random.csv", "search/params.csv", "search/selected.json"),
    *(
        f"train/{r}/{s}/{f}"
        for r in ("winner", "random", "params_max")
        for s in "012"
        for f in ("metrics.json", "model.safetensors")
    ),
    *("train/summary.json", "train/curves.csv"),
    *("export/winner/config.json", "export/winner/model.safetensors", "export/winner/README.md"),
    *("export/winner/autoformer.yaml", "report.html"),
]


def test_every_stage_leaves_its_results_logs_and_times(finished):
    assert [name for name in OUTPUTS if not (finished.results / name).stat().st_size] == []
    logs = {p.relative_to(finished.results / "logs").with_suffix("") for p in finished.results.glob("logs/**/*.log")}
    times = {p.relative_to(finished.results / "times").with_suffix("") for p in finished.results.glob("times/**/*.tsv")}
    assert logs == times and len(logs) == 26


def test_a_second_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in finished.succeed()


def test_stages_agree_about_what_they_worked_on(finished):
    sampled = pd.read_csv(finished.results / "sample/archs.csv")
    scores = store.read(finished.results / "scores/scores.h5")
    by_id = sampled.set_index("id").loc[[arch.id for arch in scores.archs]]  # in the order of the shards
    assert len(by_id) == len(sampled) and by_id["shard"].is_monotonic_increasing
    assert scores.params_A.tolist() == list(by_id["params"])
    assert list(pd.read_csv(finished.results / "layers/table.csv")["id"]) == list(sampled["id"])
    labelled = pd.read_csv(finished.results / "benchmark/train.csv")
    assert set(labelled["id"]) == set(sampled["id"][:22])
    for strategy in ("evolution", "random", "params"):
        history = pd.read_csv(finished.results / f"search/{strategy}.csv")
        assert len(history) == 40 and history["id"].is_unique
        assert history["params"].between(5000, 13000).all()
    selected = read_json(finished.results / "search/selected.json")
    assert abs(selected["random"]["params"] / selected["winner"]["params"] - 1) <= 0.02
    assert selected["params_max"]["params"] == pd.read_csv(finished.results / "search/params.csv")["params"].max()
    for role, entry in selected.items():
        assert read_json(finished.results / f"train/{role}/2/metrics.json")["id"] == entry["id"]


class Loads(HTMLParser):
    """Collects what a browser would fetch by itself; a link that a reader may follow is not among it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [v for k, v in attributes if k in ("src", "srcset", "data", "poster") and v]
        self.found += [v for k, v in attributes if k in ("href", "xlink:href") and v and tag != "a"]


def test_the_report_loads_nothing(finished):
    page = (finished.results / "report.html").read_text(encoding="utf-8")
    loads = Loads()
    loads.feed(page)
    assert [v[:80] for v in loads.found if not v.startswith(("data:", "#"))] == []
    assert "@import" not in page and "url(http" not in page and "url(//" not in page


def test_the_report_tells_what_was_run_and_found(finished):
    page = (finished.results / "report.html").read_text(encoding="utf-8")
    summary = read_json(finished.results / "train/summary.json")
    assert "snakemake --cores 2" in page
    assert torch.__version__.split("+")[0] in page
    for role in summary["roles"].values():
        assert f"{100 * role['test_accuracy']['mean']:.2f} %" in page
    unlabelled = read_json(finished.results / "libra/choice.json")["consensus"]
    assert unlabelled["why"].startswith("the networks are transformers")
    assert f"It is the log rank of {', '.join(unlabelled['proxies'])}, because {unlabelled['why']}." in page


def test_every_link_of_the_report_leads_to_its_page(finished):
    page = (finished.results / "report.html").read_text(encoding="utf-8")
    ids = re.findall(r'<[^>]* id="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    links = {link.removeprefix("#") for link in re.findall(r'<a [^>]*href="([^"]+)"', page)}
    assert links <= set(ids) and len(page.encode()) < 2_000_000
    # Each network that was scored or searched has a row, and points that lead to it and say the same of it.
    tables = [finished.results / name for name in ("sample/archs.csv", "search/evolution.csv", "search/random.csv")]
    named = pd.concat(map(pd.read_csv, tables)).drop_duplicates("id").set_index("id")
    assert {f"network-{id}" for id in named.index} <= links
    for id, params in named["params"].items():
        row = page.split(f'<tr id="network-{id}"')[1].split("</tr>")[0]
        said = re.search(rf'href="#network-{id}"><title>({id}.*?)</title>', page, re.DOTALL)[1]
        assert f"<td>{params:,}</td>" in row and f"\n{params:,} parameters, " in said
        assert said.splitlines()[1] == re.search(r'genes">(.*?)</td>', row)[1]


def test_the_report_has_its_numbers_as_markdown_and_its_papers_as_bibtex(finished):
    page = (finished.results / "report.html").read_text(encoding="utf-8")
    markdown = page.split('<pre id="markdown">')[1].split("</pre>")[0]
    for name, role in read_json(finished.results / "train/summary.json")["roles"].items():
        row = next(line for line in markdown.splitlines() if line.startswith(f"| {ROLES[name].short} |"))
        assert f"| {role['params']:,} |" in row and f"| {100 * role['test_accuracy']['mean']:.2f} % |" in row
    papers = page.split('<pre id="bibtex">')[1].split("</pre>")[0]
    for key in ("casarin2025lswag", "chen2021autoformer", "alpaydin1998digits"):
        assert f"{{{key},\n" in papers
    assert "heo2021pit" not in papers


@pytest.mark.cluster
def test_the_report_of_snakemake_itself(finished, tmp_path):
    finished.succeed("--report", str(tmp_path / "report.zip"))
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        page = archive.read("report/report.html").decode()
        files = {Path(name).name for name in archive.namelist()}
    assert {"report.html", "methods.csv", "proxies.csv", "evolution.csv", "summary.json"} <= files
    categories = json.loads(re.search(r"var categories = (\{.*?\});", page)[1])
    assert categories.keys() == {"Report", "Ranking", "Scores", "Search", "Training"}
    captions = re.findall(r'"caption": "((?:[^"\\]|\\.)*)"', page)
    assert len(captions) >= 11 and all(caption.startswith("<p>") for caption in captions)
    assert any("All that run" in caption and "tiny" in caption for caption in captions)


def test_the_report_tells_which_files_were_passed_over(copied):
    manifest = read_json(copied.results / "data/manifest.json")
    said = passed_over(["cat/notes.txt", "Thumbs.db", ".DS_Store"])
    write_json(copied.results / "data/manifest.json", manifest | {"warnings": [said]})
    run_script("report", configfiles=[TINY], directory=copied.folder)
    assert f"Data: {said}" in (copied.results / "report.html").read_text(encoding="utf-8")


def test_the_report_tells_what_each_proxy_costs(finished):
    costs = pd.read_csv(finished.results / "scores/costs.csv").set_index("proxy")
    correlations = pd.read_csv(finished.results / "libra/proxies.csv").set_index("proxy")["spearman"]
    assert set(costs.index) == set(correlations.index) and (costs["seconds"] > 0).all()
    page = (finished.results / "report.html").read_text(encoding="utf-8")
    table = page.split("What a proxy costs and what it is worth")[1].split("</table>")[0]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in table.split("<tr")[2:]]
    assert [row[0] for row in rows] == list(correlations.sort_values(ascending=False, kind="stable").index)
    for proxy, _, _, pass_, milliseconds, _, shared in rows:
        assert (pass_, milliseconds) == (costs["pass"][proxy], f"{1000 * costs['seconds'][proxy]:,.1f}")
        assert shared.split(" ")[0].replace("–", "0") == str(costs["shared"][proxy] - 1)


def test_the_export_loads_back_bit_equal(finished):
    summary = read_json(finished.results / "train/summary.json")
    best = summary["roles"]["winner"]["best_seed"]
    ours = load_file(finished.results / f"train/winner/{best}/model.safetensors")
    loaded = timm.create_model(f"local-dir:{finished.results / 'export/winner'}", pretrained=True).eval()
    theirs = loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_accuracies_from_a_supernet_and_their_agreement(copied):
    changes = {"benchmark": {"method": "supernet"}}
    assert copied.planned("libra", "agreement", changes=changes) == {
        "benchmark_supernet": 1,
        "libra": 1,
        "agreement": 1,
    }
    copied.succeed("libra", "agreement", changes=changes)
    inherited = pd.read_csv(copied.results / "benchmark/supernet.csv")
    trained = pd.read_csv(copied.results / "benchmark/train.csv")
    archs = pd.read_csv(copied.results / "sample/archs.csv")["id"]
    assert list(inherited["id"]) == list(archs[:30]) and inherited["accuracy"].between(0, 1).all()
    assert set(trained["id"][trained["seed"] == 0]) == set(archs[:22])
    assert set(trained["id"][trained["seed"] == 1]) == set(archs[:3]) and len(trained) == 25
    assert inherited["accuracy"].nunique() > 1
    agreement = read_json(copied.results / "benchmark/agreement.json")
    assert (
        agreement["n"] == 22
        and agreement["noise"]["repeated"] == 3
        and agreement["low"] <= agreement["spearman"] <= agreement["high"]
    )


def test_accuracies_from_a_table(copied):
    archs = pd.read_csv(copied.results / "sample/archs.csv").set_index("id")
    accuracy = mean_accuracies(copied.results / "benchmark/train.csv")
    table = copied.folder / "table.json"  # as NAS-Bench-Suite-Zero has several tasks in a file
    found = {archs["architecture"][id]: {"val_accuracy": value} for id, value in accuracy.items()}
    write_json(table, {"other": {next(iter(found)): {"val_accuracy": 0}}, "tiny": found})
    changes = {"benchmark": {"method": "table", "table": f"{table}:tiny"}}
    planned = copied.planned("libra", changes=changes)
    assert planned == {"sample": 1, "score": 2, "merge": 1, "layers": 1, "benchmark_table": 1, "libra": 1}
    before = [p.read_bytes() for p in sorted(copied.results.glob("state/score/*.jsonl"))]
    copied.succeed("libra", changes=changes)
    taken = pd.read_csv(copied.results / "benchmark/table.csv").set_index("id")["accuracy"]
    assert taken.to_dict() == accuracy.to_dict()
    # The architectures of the table had been scored, so nothing is scored anew.
    assert [p.read_bytes() for p in sorted(copied.results.glob("state/score/*.jsonl"))] == before
    assert read_json(copied.results / "libra/choice.json")["n"] == 10


def test_one_stage_can_be_asked_for_alone(fresh):
    planned = fresh.planned("layers")
    assert planned == {"prepare": 1, "sample": 1, "score": 2, "merge": 1, "layers": 1}
