"""LIBRA against reference values: entropies, information gain, choices and combinations.

The tables hold scores and accuracies of 60 made-up and 200 NAS-Bench-201 networks; their reference values
come from an independent implementation checked against NASLib's notebook functions.
"""

import json
import re

import numpy as np
import pandas as pd
import pytest

from libranas.core.stats import ranks, spearman
from libranas.predictors import information_gain as gain
from libranas.predictors import libra

TABLES = ("libra_synthetic", "libra_nb201")
SCHEMES = ("equal_width_24", "equal_width_naslib", "quantile_24", "quantile_8", "quantile_5")
close = {"rel": 1e-12, "abs": 1e-12}


@pytest.fixture(scope="module", params=TABLES)
def table(request, shared_dir):
    folder = shared_dir / "golden"
    data = json.loads((folder / f"{request.param}.json").read_text())
    oracle = json.loads((folder / f"{request.param}.oracle.json").read_text())
    scores = pd.DataFrame(data["proxies"])
    return scores, pd.Series(data["accuracy"]), pd.Series(data["params"], dtype=float), oracle


@pytest.fixture(params=SCHEMES)
def scheme(request, table):
    """The oracle's values for one binning, and that binning."""
    kind, bins = re.fullmatch(r"(equal_width|quantile)_(\w+)", request.param).groups()
    bins = table[3]["naslib_bins"] if bins == "naslib" else int(bins)
    key = f"equal_width_naslib_{bins}" if request.param == "equal_width_naslib" else request.param
    binned = {"equal_width": gain.equal_width, "quantile": gain.quantile}[kind]
    return table[3]["schemes"][key], lambda values: binned(values, bins)


def test_bins(table):
    assert gain.naslib_bins(len(table[0])) == table[3]["naslib_bins"]


def test_correlations(table):
    scores, accuracy, params, oracle = table
    for proxy in scores:
        assert spearman(scores[proxy], accuracy) == pytest.approx(oracle["rho"][proxy], **close)
        assert spearman(scores[proxy], params) == pytest.approx(oracle["bias_spearman_params"][proxy], **close)
    assert spearman(accuracy, params) == pytest.approx(oracle["bias_of_accuracy"], **close)


def test_entropies_and_information_gain(table, scheme):
    scores, accuracy, _, oracle = table
    expected, binned = scheme
    y, z1 = binned(accuracy), binned(scores[oracle["z1"]])
    assert gain.entropy(y) == pytest.approx(expected["H_y"], **close)
    for proxy, value in expected["H_y_given_z"].items():
        z = binned(scores[proxy])
        assert gain.entropy(y, z) - gain.entropy(z) == pytest.approx(value, **close)
    for proxy, value in expected["H_y_given_z1_z"].items():
        z = binned(scores[proxy])
        assert gain.entropy(y, z1, z) - gain.entropy(z1, z) == pytest.approx(value, **close)
    for proxy, value in expected["information_gain"].items():
        assert gain.information_gain(y, z1, binned(scores[proxy])) == pytest.approx(value, **close)


@pytest.mark.parametrize("select, second", [("min", "z2"), ("max", "z2_if_max_gain")])
def test_literal_choice(table, select, second):
    scores, accuracy, params, oracle = table
    expected = oracle["schemes"][f"equal_width_naslib_{oracle['naslib_bins']}"]
    choice = libra.choose(scores, accuracy, params, "literal", ig_select=select)
    assert choice.z1 == oracle["z1"]
    assert sorted(choice.window) == sorted(oracle["window"])
    assert choice.window_fallback == oracle["window_fallback"]
    assert choice.rho == pytest.approx(oracle["rho"], **close)
    assert choice.bias == pytest.approx(oracle["bias_spearman_params"], **close)
    assert choice.information_gain == pytest.approx(expected["information_gain"], **close)
    assert choice.z2 == expected[second]
    if select == "min":  # the oracle's third proxy goes with its second
        assert choice.z3 == expected["z3"]
        gaps = {p: abs(choice.bias[p] - choice.accuracy_bias) for p in expected["bias_gap"]}
        assert gaps == pytest.approx(expected["bias_gap"], **close)


def test_combination(table, scheme):
    scores, accuracy, _, _ = table
    for combination in scheme[0]["combination"].values():
        chosen = scores[combination["triple"]]
        together = libra.log_rank(chosen)
        expected = combination["sum_log_rank"]
        np.testing.assert_allclose(together[:5], expected["first5"], rtol=1e-12)
        assert spearman(together, accuracy) == pytest.approx(expected["spearman"], **close)
        # the reference's other combinations share the ranks: a mistake in ties would show here too
        np.testing.assert_allclose(chosen.apply(ranks).mean(axis=1)[:5], combination["mean_rank"]["first5"])
