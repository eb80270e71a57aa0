"""The engine against values that other people's code and an independent float64 reference gave."""

import importlib.util
import json
import math

import pytest

from libranas import engine

#: proxy of ours -> (key of the oracle, options that put us in the same convention)
BATCH_KEYS = {
    "snip": ("snip", {}),
    "grad_norm": ("grad_norm", {}),
    "nwot": ("nwot", {}),
    "swap": ("psi", {}),
    "lswag_psi": ("psi.first8", {"psi_samples": 8}),
    "zico": ("zico.microbatch8.signed_std", {"unit": "microbatch", "pieces": 8}),
    "lswag_lambda": ("lambda.microbatch8.abs", {"unit": "microbatch", "pieces": 8}),
}
MORE_KEYS = [
    ("zico", "zico.sample.abs_std", {"unit": "sample", "zico_variance": "abs"}),
    ("zico", "zico.microbatch4.signed_std", {"unit": "microbatch", "pieces": 4}),
    ("lswag_lambda", "lambda.sample.abs", {"unit": "sample"}),
    ("lswag_lambda", "lambda.sample.signed", {"unit": "sample", "lambda_variance": "signed"}),
    ("lswag_lambda", "lambda.microbatch2.abs", {"unit": "microbatch", "pieces": 2}),
    ("lswag_psi", "psi.first16", {"psi_samples": 16}),
    ("lswag", "lswag.microbatch8.abs", {"unit": "microbatch", "pieces": 8}),
    ("az_expressivity", "az.expressivity", {}),
    ("az_trainability", "az.trainability", {}),
]
NETS = {
    "vit_small": [("random", "any"), ("real", "any")],
    "mlp_relu": [("random", "any"), ("random64", "any")],
    "cnn_small": [("random", "train"), ("real", "train"), ("random", "eval"), ("real", "eval")],
}
CASES = [
    (net, batch, mode, proxy, key, options)
    for net, runs in NETS.items()
    for batch, mode in runs
    for proxy, key, options in [(p, *v) for p, v in BATCH_KEYS.items()] + MORE_KEYS
]


@pytest.fixture(scope="session")
def golden(shared_dir):
    """name -> (module, batches, tensors, oracle)"""
    from safetensors.torch import load_file

    folder = shared_dir / "golden"
    spec = importlib.util.spec_from_file_location("golden_nets", folder / "nets.py")
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    loaded = {}
    for name in NETS:
        description, net, batches = nets.load_module(str(folder / f"{name}.safetensors"))
        tensors = load_file(folder / f"{name}.safetensors")
        oracle = json.loads((folder / f"{name}.oracle.json").read_text())
        loaded[name] = (net, batches, tensors, oracle, description)
    return loaded


def number(value):
    return float(value) if isinstance(value, str) else value


def feature_names(description):
    """Modules whose outputs are the primary blocks of the golden CNN."""
    return (
        "stem",
        *(
            f"cells.{i}"
            for i in range(len({n.split(".")[1] for n in description["az_features"] if n.startswith("cells")}))
        ),
    )


@pytest.mark.parametrize(("net", "batch", "mode", "proxy", "key", "options"), CASES)
def test_batch_proxies_match_the_oracle(golden, monkeypatch, net, batch, mode, proxy, key, options):
    model, batches, tensors, oracle, description = golden[net]
    expected = oracle["results"][batch][mode].get(key)
    if expected is None:
        pytest.skip(f"the golden file has no {key} for {net}/{batch}/{mode}")
    if proxy == "nwot" and net == "mlp_relu" and batch == "random64":
        expected = {"value": "-inf"}  # 64 samples, 56 units: singular; peers return rounding noise there
    options = dict(options)
    inputs, targets = batches[batch]
    if proxy.startswith("az_"):
        if mode == "eval":
            pytest.skip("AZ-NAS is given in training mode for networks with batch normalisation")
        if net == "cnn_small":
            options["features"] = feature_names(description)
        if net == "mlp_relu":
            assert math.isnan(engine.score(model, inputs, targets, [proxy])[proxy])
            return
        monkeypatch.setattr(engine._Run, "_batch", lambda self, pass_: self.inputs.double())
        if proxy == "az_trainability":
            points = {n: f"az_probe.{batch}.{n}" for n in description["az_features"]}
            names = feature_names(description) if net == "cnn_small" else description["az_features"]
            probes = {
                n: tensors[points[g]]
                for n, g in zip(names, description["az_features"], strict=True)
                if points[g] in tensors
            }
            if not probes:
                pytest.skip("the golden file has no random signs for this batch")
            monkeypatch.setattr(engine._Run, "_signs", lambda self, name, like: probes[name].to(like))
    if mode != "any":
        options["mode"] = mode
    card = engine.score(model, inputs, targets, [proxy], precision="float64", **options)
    assert card[proxy] == pytest.approx(number(expected["value"]), rel=1e-9)
    for ours, theirs in (
        ("per_layer", "per_layer"),
        ("lambda", "per_layer"),
        ("log_sigma", "mean_log_sigma"),
        ("words", "per_layer"),
    ):
        if ours in card.scores[proxy].components and theirs in expected:
            got = card.scores[proxy].components[ours]
            want = expected[theirs]
            want = list(want.values()) if isinstance(want, dict) else want
            assert got.tolist() == pytest.approx([number(v) for v in want], rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("net", NETS)
def test_float32_is_close_to_float64(golden, net):
    model, batches, *_ = golden[net]
    inputs, targets = batches["random"]
    names = ["snip", "grad_norm", "zico", "lswag_lambda", "swap"]
    single = engine.score(model, inputs, targets, names)
    double = engine.score(model, inputs, targets, names, precision="float64")
    for name in names:
        assert single[name] == pytest.approx(double[name], rel=2e-4), name


@pytest.mark.parametrize(
    ("net", "key", "options"),
    [
        ("vit_small", "synflow.ln_keep", {}),
        ("vit_small", "synflow.ln_identity", {"synflow_ln": "identity"}),
        ("mlp_relu", "synflow.ln_keep", {}),
        ("cnn_small", "synflow.bn_identity", {}),
    ],
)
def test_synflow_matches_the_oracle(golden, net, key, options):
    model, batches, _, oracle, _ = golden[net]
    card = engine.score(model, *batches["random"], ["synflow"], **options)
    expected = oracle["static"][key]
    assert card["synflow"] == pytest.approx(math.log(expected["value"]), rel=1e-12)
    per_layer = list(expected["per_layer"].values())
    assert card.scores["synflow"].components["per_layer"].tolist() == pytest.approx(per_layer, rel=1e-9)


@pytest.mark.parametrize("net", NETS)
def test_counts_match_the_oracle(golden, net):
    model, batches, _, oracle, _ = golden[net]
    card = engine.score(model, *batches["random"], ["params", "flops"])
    assert card["params"] == oracle["static"]["params"]
    assert card["flops"] == oracle["static"]["macs_total"]
