"""What the report's page says of networks, rounds and papers, and the points of its figures."""

import re

import numpy as np
import pandas as pd
import pytest

from libranas.data.registry import DATA_SETS
from libranas.report import networks as report_networks
from libranas.report.citations import bibtex, references
from libranas.report.drawing import BLUE, SHAPES, figure, points
from libranas.report.networks import in_words, networks
from libranas.report.rounds import rounds
from libranas.report.search_figures import drawings
from libranas.search.registry import STRATEGIES
from libranas.spaces.registry import FAMILIES
from libranas.zero_cost.registry import PROXIES

ARCH = '{"depth":2,"embed_dim":16,"family":"autoformer","mlp_ratio":[2.0,4.5],"num_heads":[2,1],"pool":"avg"}'


def test_a_point_says_its_values_leads_to_its_row_and_follows_the_colours_of_the_page():
    texts, rows = ["a & b\naccuracy < 97 %", "c", None], ["network-1", "", ""]
    picture = figure("<what>", lambda axes: points(axes, [1, 2, 3], [1, 2, 3], texts, rows, color=BLUE), 4, 3)
    found = re.findall(r'<a class="point"([^>]*)><title>(.*?)</title>.*?<use [^>]*fill: ([^;"]*)', picture, re.DOTALL)
    assert found == [
        (' href="#network-1"', "a &amp; b\naccuracy &lt; 97 %", "var(--blue, #0072b2)"),
        ("", "c", "var(--blue, #0072b2)"),
    ]
    assert 'role="group" aria-label="&lt;what&gt;"' in picture
    assert "target=" not in picture


def test_points_that_say_nothing_keep_the_page_small():
    def draw(axes, count=SHAPES + 1):
        points(axes, range(count), np.arange(count) % 97, [None] * count, [""] * count, color=BLUE)

    picture = figure("many", draw, 7, 3)
    assert len(picture) < 60_000 and "data:image/png" in picture and 'class="point"' not in picture


def test_every_block_of_a_network_says_its_values():
    (picture,) = drawings({"winner": {"architecture": ARCH}}).values()
    assert re.findall(r'<a class="point"><title>(.*?)</title>', picture, re.DOTALL) == [
        "block 1 of 2\nwidth 16, 2 heads, MLP ratio 2",
        "block 2 of 2\nwidth 16, 1 head, MLP ratio 4.5",
    ]


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        (ARCH, "depth 2, width 16, MLP ratio 2 4.5, heads 2 1, pool avg"),
        ('{"depth":3,"family":"y","num_heads":[4,4,4]}', "depth 3, heads 4 each"),
        ('{"family":"x","matrix":[[0,1],[0,0]],"ops":["a","b"]}', "matrix (0 1) (0 0), ops a b"),
    ],
)
def test_an_architecture_in_words(architecture, words):
    assert in_words(architecture) == words


def sample(count: int) -> pd.DataFrame:
    ids = [f"n{i}" for i in range(count)]
    return pd.DataFrame({"id": ids, "params": range(1000, 1000 + count), "macs": 5000, "architecture": ARCH})


def test_what_is_known_of_a_network_comes_from_all_stages():
    archs, scores = sample(4), pd.Series([1.5, 2.5, 3.5, 4.5], ["n0", "n1", "n2", "n3"], name="zico")
    history = archs.iloc[[1]].assign(fitness=0.97, accuracy=0.95, long_accuracy=0.98, round=1, score_zico=2.5)
    new = pd.DataFrame([{**history.iloc[0], "id": "new", "accuracy": 0.9, "long_accuracy": np.nan, "score_zico": 9.0}])
    size = archs.iloc[[2]].assign(fitness=1002.0)  # of the search for size: no fitness
    selected = {"winner": archs.iloc[1].to_dict(), "params_max": archs.iloc[2].to_dict()}
    tested = {"winner": {"test_accuracy": {"mean": 0.99}}}
    found = networks(
        archs,
        pd.Series({"n0": 0.8, "n1": 0.94}),
        scores,
        {"guided": pd.concat([history, new]), "params": size},
        selected,
        tested,
        in_table=False,
    )
    assert list(found.index) == ["n1", "n2", "new", "n0", "n3"]  # selected, with an accuracy, others
    assert list(found["found"]) == [
        "sample, round 2, winner",
        "sample, largest of the budget",
        "round 2",
        "sample",
        "sample",
    ]
    assert found["text"]["n1"].splitlines() == [
        "n1 (sample, round 2, winner)",
        "depth 2, width 16, MLP ratio 2 4.5, heads 2 1, pool avg",
        "1,001 parameters, 5,000 MACs",
        "zico 2.5",
        "benchmark accuracy 94.00 %",
        "search accuracy 95.00 %",
        "accuracy trained long 98.00 %",
        "expected accuracy 97.00 %",
        "mean test accuracy 99.00 %",
    ]
    assert found["score"]["new"] == 9.0 and found["fitness"].isna().all()
    assert "accuracy" not in found["text"]["n3"] and found["row"]["n3"] == "network-n3"


def test_a_page_names_only_so_many_networks(monkeypatch):
    monkeypatch.setattr(report_networks, "LISTED", 3)
    archs, scores = sample(5), pd.Series(1.0, [f"n{i}" for i in range(5)], name="zico")
    history = archs.assign(fitness=[0.1, 0.2, float("-inf"), 0.9, 0.4])
    found = networks(archs, pd.Series({"n2": 71.5}), scores, {"evolution": history}, {}, {}, in_table=True)
    assert list(found.index) == ["n2", "n3", "n4", "n1", "n0"]  # what has an accuracy, then the fittest
    assert list(found["row"]) == ["network-n2", "network-n3", "network-n4", "", ""]
    assert list(found["text"].notna()) == [True, True, True, False, False]
    assert "benchmark accuracy 71.5" in found["text"]["n2"].splitlines()  # in the unit of the table


def test_rounds_tell_what_each_trained_gained_and_cost(tmp_path):
    for name, seconds in (("propose-0", 6), ("train-0-0", 60), ("train-0-1", 30), ("train-1-0", 120)):
        (tmp_path / f"search/guided/{name}.tsv").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"search/guided/{name}.tsv").write_text(f"s\th:m:s\n{seconds}\t0\n")
    accuracy = [0.5, np.nan, 0.7, 0.9, 0.8, np.nan]
    first, second, third = rounds(pd.DataFrame({"round": [0, 0, 0, 1, 1, 2], "accuracy": accuracy}), tmp_path)
    assert (first["number"], first["trained"], first["failed"]) == (1, 3, 1)
    assert (first["median"], first["best"], first["so_far"]) == (pytest.approx(0.6), 0.7, 0.7)
    assert np.isnan(first["gained"])
    assert (first["scores"], first["trainings"], first["minutes"]) == (0.1, 1.5, pytest.approx(1.6))
    assert (second["best"], second["gained"], second["minutes"]) == (0.9, pytest.approx(0.2), None)
    assert np.isnan(third["best"]) and (third["so_far"], third["gained"], third["failed"]) == (0.9, 0, 1)


def test_every_kind_that_has_a_paper_has_an_entry():
    known = set().union(*(used for _, used in references()))
    assert {f"proxy:{name}" for name, proxy in PROXIES.items() if proxy.source != "baseline"} <= known
    assert {f"space:{name}" for name in FAMILIES} <= known
    own_images = {"folder", "hugging_face", "webdataset"}
    assert {f"data:{name}" for name in DATA_SETS if name not in own_images} <= known
    named = {"proxy": PROXIES, "space": FAMILIES, "data": DATA_SETS, "search": STRATEGIES}
    for kind, _, name in (use.partition(":") for use in known - {"method"}):
        assert name in named[kind], (kind, name)


def test_entries_name_the_authors_that_the_proxies_name():
    entries = list(references())
    for name, proxy in PROXIES.items():
        text = " ".join(entry for entry, used in entries if f"proxy:{name}" in used)
        for author in re.findall(r"([A-Z]\w+) (?:et al\.|and [A-Z]\w+,)", proxy.source):
            assert f"{author}, " in text, (name, author)


def test_entries_are_bibtex():
    keys = [re.match(r"@\w+\{(\w+),\n", entry)[1] for entry, _ in references()]
    assert len(set(keys)) == len(keys) > 30
    for entry, _ in references():
        assert entry.count("{") == entry.count("}") and entry.endswith("\n}") and "usedby" not in entry
        fields = re.findall(r"^  (\w+) = \{.*\},$", entry, re.M)
        assert {"title", "author", "year"} <= set(fields) and len(fields) == len(entry.splitlines()) - 2


def test_only_what_was_used_is_cited():
    config = {"space": {"family": "pit"}, "data": {"adapter": "folder"}, "search": None}
    cited = bibtex(config, {"proxies": ["params", "snip"], "combiner": {"proxies": ["zico"]}})
    assert re.findall(r"^@\w+\{(\D+)\d", cited, re.M) == [
        *("casarin", "heo", "abdelfattah", "lee", "li", "zhou"),
    ]
    assert "%" not in cited
