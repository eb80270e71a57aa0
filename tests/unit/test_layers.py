"""The layer window: the curve, the rule, and what is left of L-SWAG inside it, against brute force."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libranas import scores as store
from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.scorecard import Axis, ProxyScore, ScoreCard
from libranas.scores import layer_window as layers
from libranas.scores.layer_window import LayerWindow, WindowChoice
from libranas.zero_cost import lswag

NAN = float("nan")
SEEDS = (0, 1)
INFO = {
    name: {"version": 1, "orientation": 1, "pass": "data", "equation": "", "component_axes": component_axes}
    for name, component_axes in {
        "lswag": {},
        "lswag_lambda": {"lambda": ("layer",), "log_sigma": ("layer",)},
        "lswag_psi": {"words": ("activation",), "union": ("activation", "activation")},
        "other": {},
    }.items()
}


class Net:
    """A made-up network with `blocks` blocks of two weight layers and one activation between them."""

    def __init__(self, k: int, blocks: int):
        self.arch = Arch("toy", {"k": k, "blocks": blocks})
        self.L, self.M = 2 + 2 * blocks, blocks
        self.before = [1 + 2 * m for m in range(blocks)]  # weight layer executed last before activation m
        rng = np.random.default_rng(k)
        self.lambda_SL = rng.normal(10, 3, (2, self.L))
        self.log_sigma_SL = rng.normal(-6, 1, (2, self.L))
        self.words_SM = [[set(rng.integers(0, 30, 12).tolist()) for _ in range(blocks)] for _ in SEEDS]

    def union(self, s: int, i: int, j: int) -> int:
        return len(set().union(*self.words_SM[s][i : j + 1]))

    def card(self, s: int) -> ScoreCard:
        axes = {
            "layer": Axis(tuple(f"layer{i}" for i in range(self.L)), tuple(i / self.L for i in range(self.L))),
            "activation": Axis(tuple(f"act{i}" for i in range(self.M)), tuple(i / self.L for i in self.before)),
        }
        M = range(self.M)
        union = np.array([[self.union(s, i, j) if i <= j else NAN for j in M] for i in M]).reshape(self.M, self.M)
        words = np.array([len(w) for w in self.words_SM[s]], "f8")
        lambda_, psi = self.lambda_SL[s].sum(), self.union(s, 0, self.M - 1) if self.M else 0
        return ScoreCard(
            {
                "lswag": ProxyScore(lambda_ * psi),
                "lswag_lambda": ProxyScore(
                    lambda_, "", {"lambda": self.lambda_SL[s].copy(), "log_sigma": self.log_sigma_SL[s].copy()}
                ),
                "lswag_psi": ProxyScore(psi, "", {"words": words, "union": union}),
                "other": ProxyScore(float(s)),
            },
            axes,
            {},
        )


def scores_of(nets, change=lambda card: None, info=INFO) -> store.Scores:
    cards = {(net.arch.id, s): net.card(s) for net in nets for s in SEEDS}
    for card in cards.values():
        change(card)
    return store.collect([n.arch for n in nets], [1] * len(nets), [1] * len(nets), SEEDS, cards, info, {})


NETS = [Net(0, 3), Net(1, 5), Net(2, 5), Net(3, 8)]
ALL = LayerWindow(0, 9, 10)


def curve_of(*mean) -> pd.DataFrame:
    return pd.DataFrame({"bin": range(len(mean)), "mean": mean, "std": 0.0, "n": 1})


# --------------------------------------------------------------------------------------------- the window


@pytest.mark.parametrize("bins", [1, 7, 10, 100])
def test_bins_are_exact_where_floating_point_is_not(bins):
    for L in range(1, 301):
        exact = [bins * l // L for l in range(L)]
        assert lswag.depth_bin([l / L for l in range(L)], bins).tolist() == exact


# ----------------------------------------------------------------------------------------------- the curve


@pytest.mark.parametrize("exclude", [("first", "last"), ("last",), ("first",), ()])
@pytest.mark.parametrize("bins", [1, 7, 10])
def test_the_curve_against_brute_force(bins, exclude):
    curve = layers.curve(scores_of(NETS), bins, exclude)
    for b in range(bins):
        per_network = []
        for net in NETS:
            values = [
                net.log_sigma_SL[s, i]
                for i in range("first" in exclude, net.L - ("last" in exclude))
                if bins * i // net.L == b
                for s in SEEDS
            ]
            if values:
                per_network.append(np.mean(values))
        row = curve.iloc[b]
        assert (row["bin"], row["n"]) == (b, len(per_network))
        np.testing.assert_allclose(row["mean"], np.mean(per_network) if per_network else NAN, rtol=1e-12)
        np.testing.assert_allclose(row["std"], np.std(per_network) if per_network else NAN, rtol=1e-9, atol=1e-12)


def test_the_head_does_not_hide_the_rest_of_the_network():
    def loud_head(card):
        card.scores["lswag_lambda"].components["log_sigma"][-1] = 5.0

    scores = scores_of(NETS, loud_head)
    assert layers.choose_window(layers.curve(scores, exclude=())).peak == 9
    quiet = layers.curve(scores)
    pd.testing.assert_frame_equal(quiet, layers.curve(scores_of(NETS)))


def test_layers_without_a_finite_value_are_left_out_and_counted():
    def dead(card):
        card.scores["lswag_lambda"].components["log_sigma"][2] = NAN

    curve = layers.curve(scores_of(NETS, dead))
    assert curve.attrs["nonfinite"] == len(NETS) * len(SEEDS)
    assert np.isfinite(curve["mean"]).sum() >= 8


def test_an_unknown_exclusion_is_named():
    with pytest.raises(LibranasError, match=r"\['middle'\].*\n.*first, last"):
        layers.curve(scores_of(NETS), exclude=("middle",))


# ------------------------------------------------------------------------------------------------ the rule


def brute_force_run(mean, sign):
    """The longest run of bins through the extreme whose other bins are beyond the threshold."""
    finite = [m for m in mean if np.isfinite(m)]
    median = np.median(finite)
    threshold = median + sign * np.median(np.abs(np.array(finite) - median))
    peak = min((b for b in range(len(mean)) if np.isfinite(mean[b])), key=lambda b: (-sign * mean[b], b))
    runs = [
        (lo, hi)
        for lo in range(peak + 1)
        for hi in range(peak, len(mean))
        if all(b == peak or sign * mean[b] > sign * threshold for b in range(lo, hi + 1))
    ]
    return max(runs, key=lambda run: run[1] - run[0])


@given(
    mean=st.lists(st.one_of(st.just(NAN), st.integers(-8, 2).map(float)), min_size=1, max_size=12),
    rule=st.sampled_from(["spike", "valley"]),
)
def test_the_rule_against_brute_force(mean, rule):
    if not np.isfinite(mean).any():
        with pytest.raises(LibranasError, match="no finite value"):
            layers.choose_window(curve_of(*mean), rule)
        return
    choice = layers.choose_window(curve_of(*mean), rule)
    lo, hi = brute_force_run(mean, 1 if rule == "spike" else -1)
    assert choice.window == LayerWindow(lo, hi, len(mean))
    assert lo <= choice.peak <= hi


def test_spike_and_valley_of_a_measured_curve():
    """Ten bins of 100 AutoFormer-Tiny networks with the head: the spike at the end is the head."""
    curve = curve_of(-7.7, -5.9, -6.8, -6.4, -6.0, -6.2, -6.5, -6.9, -6.3, -2.1)
    spike = layers.choose_window(curve)
    assert spike.window == LayerWindow(9, 9, 10) and spike.median == pytest.approx(-6.35)
    assert spike.mad == pytest.approx(0.4) and spike.threshold == pytest.approx(-5.95)
    assert layers.choose_window(curve_of(*curve["mean"][:9])).window == LayerWindow(1, 1, 9)
    assert layers.choose_window(curve, "valley").window == LayerWindow(0, 0, 10)


def test_fixed_and_all():
    curve = curve_of(*range(10))
    assert layers.choose_window(curve, "all").window == ALL
    assert layers.choose_window(curve, "fixed", [2, 5]).window == LayerWindow(2, 5, 10)
    for wrong in ([5, 2], [0, 10], [-1, 3], None):
        with pytest.raises(LibranasError, match=r"0 <= first <= last <= 9"):
            layers.choose_window(curve, "fixed", wrong)
    with pytest.raises(LibranasError, match="spike, valley, all, fixed"):
        layers.choose_window(curve, "by eye")


@pytest.mark.parametrize("rule", layers.RULES)
def test_a_choice_survives_json(rule):
    choice = layers.choose_window(curve_of(-3.0, -1.0, -5.0), rule, [0, 1])
    record = json.loads(json.dumps(asdict(choice), allow_nan=False))
    assert WindowChoice(**{**record, "window": LayerWindow(**record["window"])}) == choice


# ------------------------------------------------------------------------------------ L-SWAG in the window


@given(
    window=st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted).map(lambda w: LayerWindow(*w, 10)),
    psi_range=st.sampled_from(lswag.PSI_RANGES),
    blocks=st.lists(st.integers(0, 9), min_size=1, max_size=4),
)
def test_windowed_scores_against_brute_force(window, psi_range, blocks):
    nets = [Net(k, b) for k, b in enumerate(blocks)]
    out, _ = layers.apply_window(scores_of(nets), window, psi_range)
    lambda_, psi, product = (out.proxies[name] for name in ("lswag_lambda", "lswag_psi", "lswag"))
    for a, net in enumerate(nets):
        chosen = [i for i in range(net.L) if window.lo <= 10 * i // net.L <= window.hi]
        bins = [10 * i // net.L for i in net.before]
        ranges = {
            "window": [m for m in range(net.M) if window.lo <= bins[m] <= window.hi],
            "from_first": [m for m in range(net.M) if bins[m] <= window.hi],
            "all": list(range(net.M)),
        }
        counted = ranges[psi_range] or ranges["from_first"]
        for s in SEEDS:
            expected = net.lambda_SL[s, chosen].sum() if chosen else NAN
            words = set().union(*(net.words_SM[s][m] for m in counted))
            patterns = len(words) if counted else NAN
            np.testing.assert_allclose(lambda_.value_AS[a, s], expected, rtol=1e-12)
            np.testing.assert_array_equal(psi.value_AS[a, s], patterns)
            np.testing.assert_allclose(product.value_AS[a, s], expected * patterns, rtol=1e-12)
            assert ("no usable weight layer" in lambda_.reason_AS[a, s]) == (not chosen)
            assert ("no activation layer" in psi.reason_AS[a, s]) == (not counted)
            assert bool(product.reason_AS[a, s]) == (not chosen or not counted)


def test_other_proxies_stay_and_the_window_is_recorded(tmp_path):
    scores = scores_of(NETS)
    out, _ = layers.apply_window(scores, LayerWindow(3, 5, 10))
    assert out.proxies["other"] is scores.proxies["other"]
    assert out.provenance["layer_window"] == {"lo": 3, "hi": 5, "bins": 10, "psi_range": "window"}
    store.write(tmp_path / "w.h5", out)
    assert store.content_sha256(store.read(tmp_path / "w.h5")) == store.content_sha256(out)
    assert "layer_window" not in scores.provenance  # the original is untouched


def test_psi_before_the_window_is_a_warning():
    head_only = LayerWindow(9, 9, 10)
    (warning,) = layers.table(scores_of(NETS[:2]), head_only).attrs["warnings"]
    assert "2 of 2 networks" in warning and "no activation layer inside" in warning
    assert layers.table(scores_of(NETS[:2]), head_only, "from_first").attrs["warnings"] == []
    assert layers.table(scores_of(NETS[:2]), ALL).attrs["warnings"] == []


def test_a_lambda_that_is_not_positive_is_a_warning():
    def negative(card):
        card.scores["lswag_lambda"].components["lambda"][:] = -1.0

    (warning,) = layers.table(scores_of(NETS, negative), ALL).attrs["warnings"]
    assert "Lambda is not positive for 4 of 4 networks" in warning
    out, _ = layers.apply_window(scores_of(NETS, negative), ALL)
    assert np.isnan(out.proxies["lswag"].value_AS).all()
    assert (out.proxies["lswag"].reason_AS == lswag.NOT_POSITIVE).all()


def test_a_dead_layer_adds_nothing_and_a_failed_network_stays_failed():
    def dead_layer(card):
        card.scores["lswag_lambda"].components["lambda"][4] = NAN

    out = layers.apply_window(scores_of(NETS, dead_layer), ALL)[0].proxies["lswag_lambda"]
    for a, net in enumerate(NETS):
        np.testing.assert_allclose(out.value_AS[a], net.lambda_SL.sum(1) - net.lambda_SL[:, 4], rtol=1e-12)
    assert (out.reason_AS == "").all()

    def failed(card):
        card.scores["lswag_lambda"] = replace(card.scores["lswag_lambda"], value=NAN, reason="the gradient is NaN")

    out, _ = layers.apply_window(scores_of(NETS, failed), LayerWindow(2, 4, 10))
    for name in ("lswag_lambda", "lswag"):
        assert np.isnan(out.proxies[name].value_AS).all()
        assert (out.proxies[name].reason_AS == "the gradient is NaN").all()
    assert np.isfinite(out.proxies["lswag_psi"].value_AS).all()


def test_the_product_is_made_even_where_it_was_not_scored():
    scores = scores_of(NETS, info={k: v for k, v in INFO.items() if k != "lswag"})
    out, _ = layers.apply_window(scores, ALL)
    np.testing.assert_array_equal(
        out.proxies["lswag"].value_AS, out.proxies["lswag_lambda"].value_AS * out.proxies["lswag_psi"].value_AS
    )


def test_what_is_lacking_is_named():
    scores = scores_of(NETS, info={k: v for k, v in INFO.items() if k != "lswag_psi"})
    with pytest.raises(LibranasError, match="needs the proxy lswag_psi, but the scores hold lswag, lswag_lambda"):
        layers.apply_window(scores, ALL)
    with pytest.raises(LibranasError, match="window, from_first, all"):
        layers.apply_window(scores_of(NETS), ALL, "some")
