"""The engine against values that other people's code and an independent float64 reference gave."""

import importlib.util
import json
import math
import statistics

import pytest

from libranas.zero_cost import score as engine
from libranas.zero_cost.passes.context import Context
from libranas.zero_cost.passes.noise import Noise

#: Proxy of ours -> (key of the oracle, options that put us in the same convention). ``a:b`` is entry b of key a.
BATCH_KEYS = [
    ("plain", "plain", {}),
    ("snip", "snip", {}),
    ("grad_norm", "grad_norm", {}),
    ("fisher", "fisher.tokens_summed", {}),
    ("fisher", "fisher.tokens_summed_no_fan_in", {"fisher_fan_in": False}),
    ("fisher", "fisher.naslib_axis", {"fisher_axis": "token"}),
    ("grasp", "grasp", {}),
    ("jacov", "jacov", {}),
    ("epe_nas", "epe_nas", {}),
    ("ntk_cond", "ntk", {}),
    ("nwot", "nwot", {}),
    ("swap", "psi", {}),
    ("tcet", "tcet:snip", {}),
    ("tcet", "tcet:synflow", {"tcet_saliency": "synflow"}),
    ("gradsign", "gradsign", {"unit": "sample"}),
    ("gradsign", "gradsign:mean_over_weights", {"unit": "sample", "gradsign": "mean"}),
    ("lswag_psi", "psi.first8", {"psi_samples": 8}),
    ("lswag_psi", "psi.first12", {"psi_samples": 12}),
    ("lswag_psi", "psi.first16", {"psi_samples": 16}),
    ("lswag_psi", "psi.first12:sum_over_layers", {"psi_samples": 12, "psi_merge": "sum"}),
    ("lswag_psi", "psi.first12:sum_log_over_layers", {"psi_samples": 12, "psi_merge": "log_sum"}),
    ("lswag", "lswag.sample.abs", {"unit": "sample"}),
    ("lswag", "lswag.microbatch8.abs", {"unit": "microbatch"}),
    ("az_expressivity", "az.expressivity", {}),
    ("az_progressivity", "az.progressivity", {}),
    ("az_trainability", "az.trainability", {}),
]
for unit in ("sample", "microbatch2", "microbatch4", "microbatch8"):
    options = {"unit": "sample"} if unit == "sample" else {"unit": "microbatch", "pieces": int(unit[-1])}
    options |= {"few_units": True}
    for form in ("abs", "signed"):
        BATCH_KEYS += [
            ("lswag_lambda", f"lambda.{unit}.{form}", options | {"lambda_variance": form}),
            (
                "lswag_lambda",
                f"lambda.{unit}.{form}:value_ddof1",
                options | {"lambda_variance": form, "lambda_ddof": 1},
            ),
            ("zico", f"zico.{unit}.{form}_std", options | {"zico_variance": form}),
        ]
    BATCH_KEYS += [
        ("gsnr", f"gsnr.{unit}", options),
        ("gsnr", f"gsnr.{unit}.accumulated", options | {"gsnr_accumulate": True}),
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
    for proxy, key, options in BATCH_KEYS
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
    loaded["published"] = json.loads((folder / "golden.json").read_text())
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


def of_the_noise_batch(monkeypatch, golden, net, batch) -> tuple[str, ...]:
    """Make the batch of `net` its noise and the stored signs its random signs; names of its primary blocks."""
    _, _, tensors, _, description = golden[net]
    monkeypatch.setattr(Context, "noise_images", lambda self, *stream: self.inputs.double())
    stored = description.get("az_features", [])
    names = feature_names(description) if net == "cnn_small" else tuple(stored)
    signs = {n: tensors.get(f"az_probe.{batch}.{g}") for n, g in zip(names, stored, strict=True)}
    monkeypatch.setattr(Noise, "random_signs", lambda self, name, like, images=None: signs[name])
    return names if net == "cnn_small" else ()


@pytest.mark.parametrize(("net", "batch", "mode", "proxy", "key", "options"), CASES)
def test_batch_proxies_match_the_oracle(golden, monkeypatch, net, batch, mode, proxy, key, options):
    model, batches, tensors, oracle, _ = golden[net]
    key, _, entry = key.partition(":")
    expected = oracle["results"][batch][mode].get(key)
    options, (inputs, targets) = dict(options), batches[batch]
    if mode != "any":
        options["mode"] = mode
    singular = proxy in ("nwot", "tcet") and net == "mlp_relu" and batch == "random64"
    if proxy == "tcet" and singular:
        expected = {"value": math.nan, "snip": {"value": math.nan}, "synflow": {"value": math.nan}}
    if proxy == "nwot" and singular:
        expected = {"value": "-inf"}  # 64 samples, 56 units; peers return rounding noise there
    if proxy.startswith("az_"):
        if net == "mlp_relu":
            assert math.isnan(engine.score(model, inputs, targets, [proxy])[proxy])
            return
        options["features"] = of_the_noise_batch(monkeypatch, golden, net, batch)
        if mode == "eval":
            pytest.skip("AZ-NAS is given in training mode for networks with batch normalisation")
        if proxy == "az_trainability" and not any(k.startswith(f"az_probe.{batch}.") for k in tensors):
            pytest.skip("the golden file has no random signs for this batch")
    if expected is None:
        pytest.skip(f"the golden file has no {key} for {net}/{batch}/{mode}")
    card = engine.score(model, inputs, targets, [proxy], precision="float64", **options)
    if isinstance(expected.get(entry), dict):  # tcet:snip
        expected, entry = {**expected, **expected[entry]}, ""
    want = number(expected[entry or "value"])
    assert card[proxy] == pytest.approx(want, rel=1e-9, nan_ok=True)
    if entry:
        return
    for ours, theirs in (
        ("per_layer", "per_layer"),
        ("nu", "nu"),
        ("lambda", "per_layer"),
        ("log_sigma", "mean_log_sigma"),
        ("words", "per_layer"),
        ("units", "units_per_layer"),
        ("per_feature", "per_feature"),
    ):
        if ours in card.scores[proxy].components and theirs in expected:
            got = card.scores[proxy].components[ours]
            want = expected[theirs]
            want = [number(v) for v in (want.values() if isinstance(want, dict) else want)]
            if proxy == "az_trainability":  # given from the last block backwards; the first has no predecessor
                want = [math.nan, *reversed(want)]
            assert got.tolist() == pytest.approx(want, rel=1e-9, abs=1e-13, nan_ok=True), ours


@pytest.mark.parametrize(("net", "batch", "mode"), [(n, *r) for n, runs in NETS.items() for r in runs])
def test_meco_matches_the_oracle(golden, monkeypatch, net, batch, mode):
    """Every module, containers too, is what the authors' code sums; each layer, norm and activation once is ours."""
    model, batches, _, oracle, _ = golden[net]
    published = golden["published"]["proxies"]["meco"]["nets"].get(net)
    if not published or mode == "eval":
        pytest.skip(f"the golden file has no meco for {net}/{batch}/{mode}")
    of_the_noise_batch(monkeypatch, golden, net, batch)
    options = {} if mode == "any" else {"mode": mode}
    (entry,) = [e for e in published if e["batch"] == batch]
    every = engine.score(model, *batches[batch], ["meco"], precision="float64", meco_modules="all", **options)
    assert every["meco"] == pytest.approx(entry["per_layer"]["recomputed_with_eigvalsh_float64"], rel=1e-6)
    leaves = engine.score(model, *batches[batch], ["meco"], precision="float64", **options)
    per_op = oracle["results"][batch][mode]["meco"]["per_op"]
    assert leaves["meco"] == pytest.approx(sum(per_op.values()), rel=1e-9)


@pytest.mark.parametrize("net", ["vit_small", "cnn_small"])
def test_zen_has_the_distribution_of_the_released_code(golden, net):
    model, batches, *_ = golden[net]
    (entry,) = [e for e in golden["published"]["proxies"]["zen"]["nets"][net] if e["batch"] == "random"]
    stated = entry["per_layer"]
    features = {"features": ("lastact",)} if net == "cnn_small" else {}
    ours = [
        engine.score(model, *batches["random"], ["zen"], seed=s, zen_repeats=1, **features)["zen"] for s in range(32)
    ]
    error = stated["sd"] * math.sqrt(2 / 32)  # of the difference of two means of 32 draws
    assert statistics.mean(ours) == pytest.approx(stated["mean"], abs=4 * error)
    assert 0.5 < statistics.stdev(ours) / stated["sd"] < 2


@pytest.mark.parametrize("net", NETS)
def test_float32_is_close_to_float64(golden, net):
    model, batches, *_ = golden[net]
    inputs, targets = batches["random"]
    names = ["snip", "grad_norm", "fisher", "zico", "gsnr", "lswag_lambda", "gradsign", "swap", "tcet", "jacov"]
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
def test_counts_and_norms_match_the_oracle(golden, net):
    model, batches, _, oracle, _ = golden[net]
    card = engine.score(model, *batches["random"], ["params", "flops", "l2_norm"], precision="float64")
    assert card["params"] == oracle["static"]["params"]
    assert card["flops"] == oracle["static"]["macs_total"]
    expected = oracle["static"]["l2_norm"]
    assert card["l2_norm"] == pytest.approx(expected["value"], rel=1e-12)
    per_layer = card.scores["l2_norm"].components["per_layer"].tolist()
    assert per_layer == pytest.approx(list(expected["per_layer"].values()), rel=1e-12)


def test_dss_matches_the_oracle(golden):
    model, batches, _, oracle, _ = golden["vit_small"]
    card = engine.score(model, *batches["random"], ["dss"])
    expected = oracle["static"]["dss"]
    assert card["dss"] == pytest.approx(expected["value"], rel=1e-9)
    per_layer = dict(zip(card.axes["layer"].names, card.scores["dss"].components["per_layer"], strict=True))
    for name, value in expected["per_layer"].items():
        assert per_layer[name] == pytest.approx(value, rel=1e-9)
    assert math.isnan(per_layer["patch_embed.proj"])
    cnn, batches, *_ = golden["cnn_small"]
    card = engine.score(cnn, *batches["random"], ["dss"])
    assert math.isnan(card["dss"]) and "attention" in card.scores["dss"].reason
