"""L-SWAG is one thing: on the score card, in the tables and in the search, with every option and in every window."""

import math
from dataclasses import fields
from itertools import product

import numpy as np
import pytest
import torch

from libranas import scores as store
from libranas.core.scorecard import Axis, ProxyScore, ScoreCard
from libranas.scores import layer_window as layers
from libranas.scores.shard import gather
from libranas.spaces import AutoFormerSpace
from libranas.zero_cost import lswag
from libranas.zero_cost.lswag import LayerWindow
from libranas.zero_cost.options import Options
from libranas.zero_cost.scorer import Scorer, windowed_mean

SPACE = AutoFormerSpace((8, 12), (2, 3), (1, 2), (1.5, 2.0), 4, 8, 4, 1, 4, max_relative_position=1)
ARCHS = [SPACE.sample(np.random.default_rng(i)) for i in range(2)]
ALL = LayerWindow(0, 9, 10)
SEEDS = range(2)
#: Another value than the default for every option.
OTHER = {
    "unit": "microbatch",
    "pieces": 4,
    "few_units": True,
    "mode": "train",
    "precision": "float64",
    "window": (0.2, 0.9),
    "features": ("blocks.0", "blocks.1"),
    "lambda_variance": "signed",
    "lambda_ddof": 1,
    "lambda_exclude": ("first", "last", "blocks.0.mlp.fc1"),
    "lambda_pool": "block",
    "zico_variance": "abs",
    "gsnr_accumulate": True,
    "gradsign": "mean",
    "fisher_axis": "token",
    "fisher_fan_in": False,
    "psi_samples": 3,
    "psi_merge": "sum",
    "lswag_form": "log",
    "reg_swap": (5.0, 2.0),
    "tcet_saliency": "synflow",
    "ntk_images": 2,
    "meco_modules": "all",
    "zen_repeats": 1,
    "synflow_ln": "identity",
    "tensor_cores": True,
    "noise_batch": 2,
}
CASES = [
    {},
    *({name: value} for name, value in OTHER.items()),
    {"psi_merge": "log_sum"},
    {"lswag_form": "per_layer"},
    {"lswag_form": "per_layer", "window": (0.3, 1.0), "lambda_exclude": ("last",), "psi_merge": "log_sum"},
    {"lswag_form": "log", "window": (0.0, 0.97), "lambda_exclude": ("last",), "lambda_pool": "block"},
]


def test_all_options_are_gone_through():
    assert OTHER.keys() == {field.name for field in fields(Options)}
    assert all(value != getattr(Options(), name) for name, value in OTHER.items())


@pytest.fixture(scope="module")
def batch():
    return torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4


@pytest.mark.parametrize("options", CASES, ids=lambda options: ",".join(options))
def test_card_table_and_search_agree(batch, options, tmp_path):
    scorer = Scorer(SPACE, *batch, "hash", 1, options)
    cards = {(arch.id, s): scorer.card(arch, s, lswag.NAMES) for arch in ARCHS for s in SEEDS}
    store.write(tmp_path / "s.h5", gather(scorer, ARCHS, SEEDS, cards, lswag.NAMES, {}))
    scores = store.read(tmp_path / "s.h5")
    for psi_range in lswag.PSI_RANGES:
        whole, _ = layers.apply_window(scores, ALL, psi_range)
        for name in lswag.NAMES:
            on_cards = [[cards[arch.id, s][name] for s in SEEDS] for arch in ARCHS]
            np.testing.assert_array_equal(whole.proxies[name].value_AS, on_cards, err_msg=name)
            assert np.isfinite(on_cards).all()
    for lo, hi in ((0, 1), (1, 2), (2, 3), (3, 3)):
        for psi_range in lswag.PSI_RANGES:
            window = LayerWindow(lo, hi, 4)
            table = layers.table(scores, window, psi_range)
            for arch in ARCHS:
                of_arch = [cards[arch.id, s] for s in SEEDS]
                found = windowed_mean(of_arch, lswag.NAMES, window, psi_range, options)
                np.testing.assert_array_equal([found[n] for n in lswag.NAMES], table.loc[arch.id, list(lswag.NAMES)])


def test_options_that_combine_change_the_table(batch):
    """Each of them changes what LIBRA and the search see, not only the score card."""
    values = {}
    for name in ("", "lambda_exclude", "lambda_pool", "psi_merge", "lswag_form"):
        options = {name: OTHER[name]} if name else {}
        scorer = Scorer(SPACE, *batch, "hash", 1, options)
        cards = {(ARCHS[0].id, 0): scorer.card(ARCHS[0], 0, lswag.NAMES)}
        scores = gather(scorer, ARCHS[:1], [0], cards, lswag.NAMES, {})
        values[name] = [layers.table(scores, window)["lswag"].item() for window in (ALL, LayerWindow(0, 2, 4))]
    for found in zip(*values.values(), strict=True):
        assert len(set(found)) == 5


# -- the formulas against brute force --------------------------------------------------------------------------


def made_up(dead: int | None, seed: int) -> tuple[ScoreCard, list[list[set]]]:
    """A card of seven layers in three blocks and three activation layers; layer `dead` has no weight that varies."""
    rng = np.random.default_rng(seed)
    names = ("stem", "blocks.0.a", "blocks.0.b", "blocks.1.a", "blocks.1.b", "blocks.2.a", "head")
    log, log_sigma = rng.normal(9, 3, 7), rng.normal(-6, 1, 7)
    if dead is not None:
        log[dead], log_sigma[dead] = 0.0, math.nan
    patterns = [set(rng.integers(0, 30, 12).tolist()) for _ in range(3)]
    union = [[len(set().union(*patterns[i : j + 1])) if i <= j else math.nan for j in range(3)] for i in range(3)]
    words = np.array([len(p) for p in patterns], "f8")
    scores = {
        "lswag_lambda": ProxyScore(1.0, "", {"lambda": log, "log_sigma": log_sigma}),
        "lswag_psi": ProxyScore(1.0, "", {"words": words, "union": np.array(union)}),
    }
    axes = {
        "layer": Axis(names, tuple(i / 7 for i in range(7))),
        "activation": Axis(("a", "b", "c"), (1 / 7, 3 / 7, 5 / 7)),
    }
    return ScoreCard(scores, axes, {}), patterns


def brute_force(card, patterns, inside: list[int], acts: list[int], options: Options) -> tuple[float, float, float]:
    names, found = card.axes["layer"].names, card.scores["lswag_lambda"].components
    out = {{"first": names[0], "last": names[-1]}.get(name, name) for name in options.lambda_exclude}
    sums: dict[str, list[float]] = {}
    for i in inside:
        if names[i] not in out:
            block = ".".join(names[i].split(".")[:2]) if options.lambda_pool == "block" else names[i]
            alive = not math.isnan(found["log_sigma"][i])
            sums.setdefault(block, []).extend([math.exp(found["lambda"][i])] if alive else [])
    lambda_ = sum(math.log(sum(of_block)) for of_block in sums.values() if of_block) if sums else math.nan
    sizes = [len(patterns[m]) for m in acts]
    psi = {
        "union": lambda: len(set().union(*(patterns[m] for m in acts))),
        "sum": lambda: sum(sizes),
        "log_sum": lambda: sum(map(math.log, sizes)),
    }[options.psi_merge]()
    both = {
        "product": lambda: lambda_ * psi,
        "log": lambda: lambda_ + math.log(psi),
        "per_layer": lambda: lambda_ / len(inside) * psi,
    }[options.lswag_form]()
    return lambda_, psi, both


@pytest.mark.parametrize("dead", [None, 2])
@pytest.mark.parametrize("pool", ["layer", "block"])
@pytest.mark.parametrize("exclude", [(), ("first",), ("last", "blocks.1.a")])
def test_every_form_against_brute_force(dead, pool, exclude):
    for seed, (merge, form) in enumerate(product(("union", "sum", "log_sum"), ("product", "log", "per_layer"))):
        options = Options(lambda_pool=pool, lambda_exclude=exclude, psi_merge=merge, lswag_form=form)
        card, patterns = made_up(dead, seed)
        for lo, hi in ((0, 6), (1, 4), (3, 3), (0, 1)):
            acts = [m for m, l in enumerate((1, 3, 5)) if lo <= l <= hi]
            found = lswag.card_in_window(card, LayerWindow(lo, hi, 7), "window", options)
            expected = brute_force(card, patterns, list(range(lo, hi + 1)), acts, options)
            assert [found[name] for name in lswag.NAMES] == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_a_product_with_a_lambda_that_is_not_positive_is_undefined():
    card, _ = made_up(None, 0)
    card.scores["lswag_lambda"].components["lambda"][:] = -1.0
    for form, defined in (("product", False), ("per_layer", False), ("log", True)):
        found = lswag.card_in_window(card, ALL, "window", Options(lswag_form=form))
        assert found["lswag_lambda"] == -7.0 and math.isfinite(found["lswag"]) == defined


def test_a_part_that_failed_has_failed_in_every_window():
    card, _ = made_up(None, 0)
    card.scores["lswag_lambda"] = ProxyScore(math.nan, "fewer than 4 units")  # it has no components
    found = lswag.card_in_window(card, LayerWindow(1, 4, 7), "window", Options())
    assert math.isnan(found["lswag_lambda"]) and math.isnan(found["lswag"]) and math.isfinite(found["lswag_psi"])


def test_a_file_older_than_an_option_was_made_with_its_default():
    assert lswag.options_of({}) == Options()
    stored = {"options": {"psi_merge": "sum", "lambda_exclude": ["first"], "an_option_of_old": 1, "pieces": 4}}
    assert lswag.options_of(stored) == Options(psi_merge="sum", lambda_exclude=("first",))
