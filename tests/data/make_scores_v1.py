"""Made scores-v1.h5, the kept file of format version 1 that every later libranas must still read.

Do not run it again to replace that file: a new format version gets a new file and a new script.

    python tests/data/make_scores_v1.py tests/data/scores-v1.h5
"""

import sys

import numpy as np

from libranas.core.arch import Arch
from libranas.core.scorecard import Axis, PassCost, ProxyScore, ScoreCard
from libranas.scores import collect, write

ARCHS = (
    Arch("autoformer", {"embed_dim": 24, "depth": 1, "num_heads": [2], "mlp_ratio": [2.0]}),
    Arch("autoformer", {"embed_dim": 32, "depth": 2, "num_heads": [2, 4], "mlp_ratio": [2.0, 3.5]}),
)
INFO = {
    "lswag_lambda": {
        "version": 1,
        "orientation": 1,
        "pass": "gradients",
        "equation": "Eq. 1",
        "component_axes": {"lambda": ("layer",), "log_sigma": ("layer",)},
    },
    "lswag_psi": {
        "version": 3,
        "orientation": 1,
        "pass": "gradients",
        "equation": "Eq. 7",
        "component_axes": {"words": ("activation",), "union": ("activation", "activation")},
    },
    "loss": {"version": 2, "orientation": -1, "pass": "loss", "equation": "", "component_axes": {}},
}


def card(arch: Arch, seed: int) -> ScoreCard:
    blocks = arch["depth"]
    names = ["patch_embed", *(f"blocks.{b}.fc{k}" for b in range(blocks) for k in (1, 2)), "head"]
    activations = [f"blocks.{b}.act" for b in range(blocks)]
    L = len(names)
    axes = {
        "layer": Axis(tuple(names), tuple(i / L for i in range(L))),
        "activation": Axis(tuple(activations), tuple((1 + 2 * b) / L for b in range(blocks))),
    }
    terms = np.arange(L) + 10.0 * blocks + seed / 8
    union = np.array([[8.0 * (j - i + 1) if i <= j else np.nan for j in range(blocks)] for i in range(blocks)])
    failed = blocks == 2 and seed == 1
    scores = {
        "lswag_lambda": ProxyScore(terms.sum(), "", {"lambda": terms, "log_sigma": -terms}, "gradients", 0.25),
        "lswag_psi": ProxyScore(union[0, -1], "", {"words": np.full(blocks, 8.0), "union": union}, "gradients", 0.25),
        "loss": ProxyScore(float("nan"), "loss is NaN: Größe", {}, "loss", 0.125)
        if failed
        else ProxyScore(2.3 + seed, "", {}, "loss", 0.125),
    }
    passes = {"gradients": PassCost(0.25, 2.0**20), "loss": PassCost(0.125)}
    warnings = ("one loss is NaN",) if failed else ()
    return ScoreCard(scores, axes, passes, ("cls_token", "pos_embed"), warnings)


if __name__ == "__main__":
    cards = {(arch.id, seed): card(arch, seed) for arch in ARCHS for seed in (0, 1)}
    provenance = {"libranas": "0.1.0", "conditions": {"precision": "fp32", "calibration": "0123abcd"}}
    write(sys.argv[1], collect(ARCHS, [1000, 2500], [50_000, 90_000], [0, 1], cards, INFO, provenance))
