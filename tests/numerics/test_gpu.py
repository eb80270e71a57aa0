"""On a GPU everything is what it is on a CPU; skipped where there is none."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from libranas.labels.short_training import train_each
from libranas.labels.supernet import inherit, train_supernet
from libranas.latency.measure import measure, timer
from libranas.latency.table import Conditions
from libranas.networks import build
from libranas.predictors.base import Predictor
from libranas.scores.layer_window import LayerWindow
from libranas.search.fitness import Fitness
from libranas.search.workers import shared_out
from libranas.spaces import AutoFormerSpace, NASBench201Space, PiTSpace
from libranas.training.distributed import World
from libranas.training.images import ArrayImages, ImageSet
from libranas.training.recipe import ShortRecipe, make_recipe
from libranas.training.settings import Settings
from libranas.training.trainer import Training
from libranas.training.transforms import Look
from libranas.zero_cost import registry as proxies
from libranas.zero_cost import score as engine
from libranas.zero_cost.scorer import Scorer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CLASSES = 4
VIT = AutoFormerSpace((16, 24), (2, 3), (2, 3), (1.5, 2.0), 8, 16, 4, 3, CLASSES, max_relative_position=2)
SPACES = {
    "autoformer": VIT,
    "pit": PiTSpace((4, 6), (1.5, 2.0), ((1,), (1, 2), (1,)), (1, 2), 16, 4, None, 3, CLASSES),
    "nasbench201": NASBench201Space(image_size=16, classes=CLASSES, width=4, cells=1),
}
ARCHS = [VIT.sample(np.random.default_rng(i)) for i in range(4)]


def pixels(count: int, seed: int = 0) -> ImageSet:
    """Four classes: red, green, blue and grey noise."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % CLASSES
    images = rng.integers(0, 120, (count, 3, 16, 16))
    for image, label in zip(images, labels, strict=True):
        image[label : label + 1] += 110
    images, labels = torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels)
    return ImageSet(images, labels, (0.3,) * 3, (0.25,) * 3, CLASSES)


def batch(count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(count) % CLASSES


@pytest.mark.parametrize("family", SPACES)
def test_initial_weights_are_those_of_the_cpu(family):
    """Uniform ones to the bit; normal ones up to the inverse error function, rounded to float32."""
    space = SPACES[family]
    arch = space.sample(np.random.default_rng(1))
    expected, found = build(space, arch, 0).state_dict(), build(space, arch, 0, device="cuda").state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].cpu(), tensor, rtol=2**-22, atol=0)


@pytest.mark.parametrize("family", SPACES)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_every_proxy_has_the_value_of_the_cpu(family, mode):
    """In float64, where only the order of sums differs. ReLU patterns of units that are nearly zero may flip."""
    space, (inputs, targets) = SPACES[family], batch()
    model = build(space, space.sample(np.random.default_rng(1)), 0)
    features = getattr(model, "features", None) if family == "nasbench201" else None
    options = {"precision": "float64", "reg_swap": (0.1, 2.0), "mode": mode}
    options |= {"features": features} if features else {}
    names = proxies.list_proxies()
    cpu = engine.score(model, inputs, targets, names, **options)
    gpu = engine.score(model.to("cuda"), inputs, targets, names, **options)
    assert all(c.peak_bytes > 0 for c in gpu.passes.values())
    for name in names:
        one, two = cpu.scores[name], gpu.scores[name]
        assert one.reason == two.reason, name
        assert two.value == pytest.approx(one.value, rel=1e-5, nan_ok=True), name
        for component, values in one.components.items():
            np.testing.assert_allclose(
                two.components[component], values, rtol=1e-4, atol=1e-9, err_msg=f"{name}: {component}"
            )


def test_a_population_is_scored_by_processes_that_share_the_gpu():
    scorer = Scorer(VIT, *(t.to("cuda") for t in batch(8)), "hash", seed=1, device="cuda")
    fitness = Fitness(
        scorer, Predictor(("snip", "lswag"), lambda s: s.score_AP["lswag"]), 1, LayerWindow(0, 1, 2), "all"
    )
    expected = [fitness(arch) for arch in ARCHS]
    assert len({value for value, _ in expected}) == len(ARCHS)
    with shared_out(fitness, 2) as each:
        found = list(each(fitness, ARCHS))
    for (value, scores), (other, others) in zip(expected, found, strict=True):
        assert other == pytest.approx(value, rel=1e-4) and others == pytest.approx(scores, rel=1e-4)


def test_labels_come_from_trainings_and_from_a_supernet(tmp_path):
    train, val = pixels(160), pixels(40, 1)
    recipe = ShortRecipe(
        epochs=6, batch_size=20, lr=5e-3, drop_path=0.1, crop_padding=1, hflip=True, mixup=0.2, erasing=0.2
    )
    table = train_each(VIT, ARCHS, train, val, recipe, [2, 1, 1, 1], 1, tmp_path / "log", "key", "cuda")
    assert len(table) == 5 and table["accuracy"].mean() > 0.6
    again = train_each(VIT, ARCHS, train, val, recipe, [2, 1, 1, 1], 1, tmp_path / "log", "key", "cuda")
    assert again.equals(table)

    few = replace(recipe, epochs=10)
    supernet, history = train_supernet(VIT, train, few, 1, tmp_path / "supernet.pt", "key", "cuda")
    assert history[-1]["loss"] < history[0]["loss"]
    resumed, _ = train_supernet(VIT, train, few, 1, tmp_path / "supernet.pt", "key", "cuda")
    one, two = (inherit(net, ARCHS, val)["accuracy"] for net in (supernet, resumed))
    assert one.mean() > 0.5 and two.tolist() == pytest.approx(one.tolist(), abs=0.05)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_network_of_a_space_is_trained_in_bfloat16(tmp_path, compiled):
    if compiled and not shutil.which("gcc"):
        pytest.skip("torch.compile needs a C compiler on a GPU: gcc is not installed")
    train, val = (
        ArrayImages(s.images_NCHW.numpy(), s.labels_N.numpy(), list("rgbw")) for s in (pixels(160), pixels(40, 1))
    )
    recipe = make_recipe(
        {"epochs": 8, "batch_size": 20, "lr": 5e-3, "precision": "bfloat16", "hflip": True, "ema": 0.9}
    )
    model = build(VIT, ARCHS[0], 0, 0.0, fused=True)
    settings = Settings(tmp_path, workers=2, compile=compiled)
    training = Training(
        model, train, val, Look(16, 3, (0.3,) * 3, (0.25,) * 3), recipe, settings, World.from_environment("cuda")
    )
    history = training.fit()
    assert history[-1]["loss"] < history[0]["loss"] and history[-1]["val_accuracy"] > 0.6


def test_latency_is_of_the_gpu():
    space = replace(VIT, embed_dim=(16,), num_heads=(2,), mlp_ratio=(2.0,))
    table, found = measure(space, timer(Conditions("cuda", batch=8, dtype="bfloat16", repetitions=5)), 2, seed=1)
    assert all(row["measured"] > 0 for row in found["networks"]) and table(space.sample(np.random.default_rng(0))) > 0
