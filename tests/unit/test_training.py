"""Final training: recipes, the order of images, what a recipe's fields do, divergence, bad images."""

import functools
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from training_runs import LOOK, RANDOM, equal, image_set, images, network, one_thread, steps, training, weights  # noqa: F401

from libranas.core.errors import LibranasError
from libranas.export.timm import export_timm
from libranas.spaces import AutoFormerSpace
from libranas.training.bad_images import BadImages
from libranas.training.distributed import World
from libranas.training.images import ArrayImages
from libranas.training.order import Plan
from libranas.training.recipe import ABOUT, TrainingRecipe, make_recipe, read_recipe, shipped
from libranas.training.settings import computes_in
from libranas.training.train_and_test import train_and_test
from libranas.training.transforms import Look, evaluation_transform, training_transform

PLAIN = make_recipe({"epochs": 2, "batch_size": 16, "lr": 3e-3})


# -- recipes -------------------------------------------------------------------------------------------------


def test_the_recipes_that_are_promised_are_shipped():
    promised = {"smoke", "small-images", "short100", "deit300", "autoformer500", "deit3_800", "finetune"}
    assert set(shipped()) == promised


@pytest.mark.parametrize("name", shipped())
def test_every_recipe_file_runs_two_steps(name, tmp_path):
    """As it is, but for its length and the size of its batch."""
    recipe, about = read_recipe(name)
    assert set(about) == set(ABOUT) and all(about.values()) and f"--recipe {name}" in about["command"]
    run = training(tmp_path, replace(recipe, epochs=2, batch_size=8), data=images(8))
    history = run.fit()
    assert run.state.step == 2 and all(np.isfinite(r["loss"]) for r in history)


def test_published_hyperparameters():
    deit, auto, three = (read_recipe(name)[0] for name in ("deit300", "autoformer500", "deit3_800"))
    assert (deit.epochs, deit.batch_size, deit.effective_lr(), deit.warmup_epochs) == (300, 1024, 1e-3, 5)
    assert replace(auto, batch_size=2048).effective_lr() == 2e-3  # as AZ-NAS
    assert (auto.epochs, auto.warmup_epochs, auto.repeats) == (500, 20, 3)
    assert (three.optimizer, three.effective_lr(), three.loss, three.label_smoothing) == ("lamb", 4e-3, "bce", 0)


def test_rates_scale_with_the_batch():
    recipe = make_recipe({"epochs": 1, "lr": 1.0, "lr_batch": 256, "batch_size": 1024})
    assert recipe.effective_lr() == 4 and replace(recipe, lr_scaling="sqrt").effective_lr() == 2
    assert replace(recipe, lr_batch=None).effective_lr() == 1


def test_wrong_recipes_say_what_is_wrong(tmp_path):
    def problem(settings):
        with pytest.raises(LibranasError) as error:
            make_recipe(settings, "here.")
        return str(error.value)

    assert "here.epoch: unknown key; did you mean here.epochs?" in problem({"epoch": 3})
    assert "here: 'epochs' is missing" in problem({"lr": 1})
    assert "here.lr: expected a number, got 'high'" in problem({"epochs": 1, "lr": "high"})
    assert "here.epochs: expected a whole number, got 1.5" in problem({"epochs": 1.5})
    assert "here.hflip: expected true or false, got 1" in problem({"epochs": 1, "hflip": 1})
    assert "here.crop: expected one of rrc, rkrc, rkrr, pad, got 'random'" in problem({"epochs": 1, "crop": "random"})
    assert "here.erasing: expected at most 1, got 2" in problem({"epochs": 1, "erasing": 2})
    assert "here.betas: expected a list of 2, got [0.9]" in problem({"epochs": 1, "betas": [0.9]})
    assert make_recipe({"epochs": 6e1, "batch_size": "1e2"}) == make_recipe({"epochs": 60, "batch_size": 100})
    assert "bce_threshold is set" in problem({"epochs": 1, "bce_threshold": 0.0})
    with pytest.raises(LibranasError, match=r"no recipe 'deit30'.\n  -> Did you mean deit300"):
        read_recipe("deit30")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"recipe": {"epochs": 3}}))
    with pytest.raises(LibranasError, match=r"(?s)does not name batch_size, lr, .*A recipe names every field"):
        read_recipe(str(path))
    path.write_text("recipe: [")
    with pytest.raises(LibranasError, match="is not a YAML file"):
        read_recipe(str(path))


def test_a_recipe_on_top_of_another():
    recipe = make_recipe({"base": "deit300", "epochs": 5, "lr": "1e-4"})
    assert (recipe.epochs, recipe.lr, recipe.repeats) == (5, 1e-4, 3)


@pytest.fixture
def any_precision(monkeypatch):
    """Precisions that this processor only emulates are used all the same."""
    monkeypatch.setattr("libranas.training.updates.computes_in", lambda precision, device: True)


def test_every_field_of_a_recipe_changes_the_training(tmp_path, any_precision):
    base = make_recipe({"epochs": 2, "batch_size": 20, "lr": 3e-3, "min_lr": 1e-4})
    context = {
        "lr_scaling": {"lr_batch": 40},
        "warmup_prefix": {"epochs": 3, "warmup_epochs": 2},
        "scale": {"crop": "rrc"},
        "ratio": {"crop": "rrc"},
        "interpolation": {"crop": "rrc"},
        "bce_threshold": {"loss": "bce", "mixup": 1.0, "cutmix": 0.0},
        "mix_prob": {"mixup": 1.0},
        "mix_switch": {"mixup": 1.0, "cutmix": 1.0},
        "ema_warmup": {"ema": 0.5},
    }
    other = {
        **{"epochs": 3, "batch_size": 10, "lr": 2e-3, "lr_batch": 40, "lr_scaling": "sqrt", "schedule": "poly"},
        **{"min_lr": 5e-4, "warmup_lr": 1e-3, "warmup_epochs": 0.0, "warmup_prefix": False, "optimizer": "lamb"},
        **{"betas": (0.5, 0.9), "eps": 1e-2, "weight_decay": 0.5, "layer_decay": 0.5, "clip_grad": 0.01, "loss": "bce"},
        **{"bce_threshold": 0.3, "label_smoothing": 0.0, "mixup": 0.5, "cutmix": 0.5, "mix_prob": 0.3},
        **{"mix_switch": 0.0, "crop": "rkrr", "crop_padding": 2, "scale": (0.5, 0.6), "ratio": (1.0, 3.0)},
        **{"hflip": True, "color_jitter": 0.4, "auto_augment": "3a", "erasing": 0.9, "repeats": 2},
        **{"interpolation": "bilinear", "drop_path": 0.5, "ema": 0.9, "ema_warmup": True, "precision": "bfloat16"},
    }
    # Of how a run goes on, of evaluation, and of distillation other tests speak.
    apart = {"crop_pct", "evaluate_every", "nan_restarts", "nan_lr_factor"}
    apart |= {"teacher", "distillation", "distillation_weight", "temperature"}
    assert other.keys() | apart == {f.name for f in fields(TrainingRecipe)}

    @functools.cache
    def trained(recipe):
        folder = tempfile.mkdtemp(dir=tmp_path)
        run = training(Path(folder), recipe, model=network(recipe.drop_path), data=images(60))
        run.fit()
        return weights(run)

    for name, value in other.items():
        start = replace(base, **context.get(name, {}))
        assert not equal(trained(start), trained(replace(start, **{name: value}))), name


# -- order ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeats", [1, 3])
def test_an_epoch_is_made_of_equal_parts_of_random_images(repeats):
    plan = Plan(count=100, batch=12, micro_batches=3, repeats=repeats, seed=0)
    order = plan.order(0)
    assert plan.updates == 8 and len(order) == 96
    assert len(np.unique(order)) == 96 // repeats and np.bincount(order).max() == repeats
    parts = [plan.micro_batch(order, 0, update, part) for update in range(8) for part in range(3)]
    assert all(len(part) == 4 for part in parts)
    assert sorted(i for part in parts for i, _ in part) == sorted(order)
    assert len({seed for part in parts for _, seed in part}) == 96
    if repeats == 3:  # the draws of an image come to different parts
        assert all(len({i for i, _ in part}) == 4 for part in parts)
    assert not np.array_equal(order, plan.order(1)) and np.array_equal(order, plan.order(0))
    assert not np.array_equal(order, replace(plan, seed=1).order(0))


def test_a_batch_that_cannot_be_cut(tmp_path):
    with pytest.raises(LibranasError, match=r"A batch of 16 images cannot be cut into equal parts of 5 for 1 process"):
        training(tmp_path, PLAIN, micro_batch=5)
    with pytest.raises(LibranasError, match="into equal even parts of 1"):
        training(tmp_path, replace(PLAIN, mixup=0.5), micro_batch=1)


def test_a_set_smaller_than_a_batch(tmp_path):
    run = training(tmp_path, replace(PLAIN, batch_size=64, mixup=0.5), data=images(9))
    assert run.plan.batch == 8 and len(run.fit()) == 2


def test_an_image_looks_the_same_wherever_it_is_read():
    recipe = make_recipe(RANDOM)
    for crop in ("pad", "rrc", "rkrc", "rkrr"):
        look = training_transform(replace(recipe, crop=crop), LOOK)
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (23, 31, 3)).astype(np.uint8))
        seen = []
        for seed in (1, 1, 2):
            from libranas.training.randomness import seed_everything

            seed_everything(seed)
            seen.append(look(image))
            assert seen[-1].shape == (3, 16, 16) and seen[-1].dtype == torch.uint8
        assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_images_of_the_right_size_are_evaluated_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16)).astype(np.uint8)
    seen = evaluation_transform(PLAIN, LOOK)(ArrayImages(pixels, [0], ["a"]).read(0))
    assert np.array_equal(seen.numpy(), pixels[0])
    grey = ArrayImages(pixels[:, :1], [0], ["a"]).read(0)
    assert grey.mode == "L"
    for policy in (None, "rand-m9-mstd0.5-inc1", "3a", "original"):
        look = training_transform(replace(PLAIN, auto_augment=policy), Look(16, 1, (0.5,), (0.2,)))
        assert all(look(grey).shape == (1, 16, 16) for _ in range(30))


def test_the_strongest_posterize_is_black_as_it_was_before_pillow_13():
    look = training_transform(replace(PLAIN, auto_augment="rand-m10-inc1-n1"), LOOK)
    image = Image.fromarray(np.full((16, 16, 3), 200, np.uint8))
    assert any(look(image).max() == 0 for _ in range(300))


# -- the loop ------------------------------------------------------------------------------------------------


def test_it_learns(tmp_path):
    recipe = make_recipe({"epochs": 8, "batch_size": 20, "lr": 1e-2, "hflip": True})
    run = training(tmp_path, recipe, data=images(200))
    history = run.fit()
    assert history[-1]["loss"] < history[0]["loss"] and history[-1]["val_accuracy"] > 0.9
    result = run.evaluate(images(30, 1))
    assert result.top1 == history[-1]["val_accuracy"] and result.images == 30 and result.top5 == 1
    assert np.trace(result.confusion_KK) == round(30 * result.top1)
    assert result.confusion_KK.sum(1).tolist() == [8, 8, 7, 7]


def test_rates_warm_up_and_fall(tmp_path):
    recipe = make_recipe({"epochs": 6, "batch_size": 20, "lr": 1e-2, "min_lr": 1e-4, "warmup_epochs": 2})
    run = training(tmp_path, recipe, log_steps=1)
    run.fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if line["event"] == "updates"]
    assert len(rates) == 24 and rates[0] == pytest.approx(1e-6)
    assert rates[:8] == sorted(rates[:8]) and rates[8:] == sorted(rates[8:], reverse=True)
    assert rates[8] == pytest.approx(1e-2) and rates[-1] < 4e-4
    assert [line["step"] for line in lines if line["event"] == "epoch"] == [4, 8, 12, 16, 20, 24]


def test_the_random_state_of_the_caller_is_left_alone(tmp_path):
    import random

    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    before, numpy, python = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    training(tmp_path).fit()
    assert torch.equal(torch.get_rng_state(), before) and (np.random.get_state()[1] == numpy).all()
    assert random.getstate() == python


def test_averaged_weights_are_what_is_evaluated(tmp_path):
    run = training(tmp_path, replace(PLAIN, ema=0.99))
    history = run.fit()
    assert run.evaluate(images(30, 1)).loss == history[-1]["val_loss"]
    assert run.evaluate(images(30, 1), averaged=False).loss != history[-1]["val_loss"]
    assert not equal(weights(run), run.network(False).state_dict())


@pytest.fixture
def teacher(tmp_path):
    """An exported network of another width, for four classes, as the recipe names it."""
    export_timm(network(embed_dim=32), tmp_path / "teacher", 16, list("abcd"), [0.4] * 3, [0.2] * 3, "", fresh=False)
    return f"local-dir:{tmp_path / 'teacher'}"


@pytest.mark.parametrize("kind", ["logit", "feature"])
def test_distillation_from_a_teacher(tmp_path, teacher, kind):
    plain = training(tmp_path / "plain", PLAIN)
    recipe = replace(PLAIN, teacher=teacher, distillation=kind, distillation_weight=0.9)
    taught, again = (training(tmp_path / name, recipe) for name in ("taught", "again"))
    head = taught.updater.task.teacher.model.head.weight
    assert torch.equal(head, load_file(tmp_path / "teacher" / "model.safetensors")["head.weight"])
    assert taught.updater.task.student_mean.flatten().tolist() == list(LOOK.mean)
    assert plain.fit() != taught.fit() and not equal(weights(plain), weights(taught))
    assert weights(plain).keys() == weights(taught).keys()
    assert again.fit() == taught.state.history and equal(weights(again), weights(taught))


def test_the_projection_of_features_is_trained(tmp_path, teacher):
    run = training(tmp_path, replace(PLAIN, teacher=teacher, distillation="feature"))
    projection = run.updater.task.get_trainable_module().projection.weight
    before = projection.detach().clone()
    run.fit()
    assert not torch.equal(projection, before) and projection.grad is None


def test_what_no_teacher_can_do_is_said(tmp_path, teacher):
    export_timm(network(num_classes=7), tmp_path / "seven", 16, list("abcdefg"), [0.4] * 3, [0.2] * 3, "", fresh=False)
    seven = replace(PLAIN, teacher=f"local-dir:{tmp_path / 'seven'}")
    with pytest.raises(LibranasError, match="knows 7 classes, the images have 4"):
        training(tmp_path, seven)
    training(tmp_path, replace(seven, distillation="feature"))
    with pytest.raises(LibranasError, match="the teacher no_such_model cannot be made"):
        training(tmp_path, replace(PLAIN, teacher="no_such_model"))
    with pytest.raises(
        LibranasError, match="token distillation is not possible for VisionTransformer, which has no set"
    ):
        training(tmp_path, replace(PLAIN, teacher=teacher, distillation="token"))
    mine = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
    with pytest.raises(LibranasError, match="logit distillation is not possible for Sequential"):
        training(tmp_path, replace(PLAIN, teacher=teacher), model=mine)


@pytest.mark.parametrize("how", ["channels_last", "gradient_checkpointing"])
def test_what_is_for_speed_or_memory_changes_no_loss(tmp_path, how):
    plain, special = (training(tmp_path / str(on), PLAIN, **{how: on}).fit() for on in (False, True))
    for a, b in zip(plain, special, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler here: g++ is not installed")
def test_a_compiled_network_is_trained_as_it_is(tmp_path):
    plain, compiled = (training(tmp_path / str(on), replace(PLAIN, ema=0.9), compile=on) for on in (False, True))
    for a, b in zip(plain.fit(), compiled.fit(), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["val_loss"] == pytest.approx(b["val_loss"], abs=1e-5)
    assert weights(plain).keys() == weights(compiled).keys() and type(compiled.network()) is type(plain.network())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_on_a_gpu(tmp_path, precision):
    world = World.from_environment("cuda")
    recipe = make_recipe({**RANDOM, "epochs": 8, "precision": precision, "lr": 1e-2})
    how = {"workers": 2, "channels_last": True}
    whole = training(tmp_path / "whole", recipe, world, data=images(200), **how)
    history = whole.fit()
    assert history[-1]["loss"] < history[0]["loss"] and whole.evaluate(images(30, 1)).images == 30

    def stop(record):
        if record["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "again", recipe, world, data=images(200), **how).fit(stop)
    again = training(tmp_path / "again", recipe, world, data=images(200), **how).fit()
    assert again[-1]["loss"] == pytest.approx(history[-1]["loss"], rel=0.1)


def test_what_timm_does_not_know_is_named(tmp_path):
    with pytest.raises(LibranasError, match="timm has no optimizer 'adamm'"):
        training(tmp_path, replace(PLAIN, optimizer="adamm"))
    with pytest.raises(LibranasError, match="no augmentation of auto_augment 'rain-m9'"):
        training(tmp_path, replace(PLAIN, auto_augment="rain-m9"))


def test_the_learning_rate_that_is_used_is_told(tmp_path, caplog):
    with caplog.at_level("INFO"):
        training(tmp_path, replace(PLAIN, lr=1.0, lr_batch=256, epochs=1), micro_batch=4).fit()
    expected = "80 images, 5 updates an epoch; batches of 16 images (4 micro-batches of 4); peak learning rate 0.0625"
    assert expected in caplog.messages


def test_a_precision_that_is_only_emulated_is_not_used(tmp_path, monkeypatch, caplog):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    with caplog.at_level("INFO"):
        histories = [
            training(tmp_path / name, replace(PLAIN, precision=name)).fit() for name in ("float32", "bfloat16")
        ]
    assert histories[0] == histories[1] and "only emulates bfloat16: float32 is used" in caplog.text
    assert computes_in("bfloat16", torch.device("cuda"))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert computes_in("bfloat16", torch.device("cpu")) and not computes_in("float16", torch.device("cpu"))


def test_float16_scales_the_loss(tmp_path, any_precision):
    run = training(tmp_path, replace(PLAIN, precision="float16"))
    assert all(np.isfinite(r["loss"]) for r in run.fit()) and run.updater.scaler.is_enabled()


def test_convolutional_networks_with_batch_normalisation(tmp_path):
    model = timm.create_model("resnet10t", num_classes=4)
    run = training(tmp_path, PLAIN, model=model, channels_last=True)
    run.fit()
    assert not any(p.is_contiguous() for p in run.network().parameters() if p.ndim == 4 and min(p.shape[2:]) > 1)


# -- divergence ----------------------------------------------------------------------------------------------


def poisoned(run, step, times=1):
    """A weight becomes NaN before the update after `step`."""
    update, left = run._update, [times]

    def update_and_poison(batches):
        if run.state.step == step and left[0]:
            left[0] -= 1
            with torch.no_grad():
                run.network(False).head.weight.fill_(float("nan"))
        update(batches)

    run._update = update_and_poison
    return run


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    run = poisoned(training(tmp_path, replace(PLAIN, epochs=3), checkpoint_steps=1, log_steps=100), 7)
    with pytest.raises(LibranasError) as error:
        run.fit()
    assert "The training loss is not finite at update 8 of 15 (learning rate" in str(error.value)
    assert "The last good one is" in str(error.value) and "step-000000007-" in str(error.value)
    assert steps(run.checkpoints)[0] == 7
    assert all(torch.isfinite(t).all() for t in run.checkpoints.newest()[1]["model"].values())


def test_weights_that_are_not_finite_never_become_a_checkpoint(tmp_path):
    run = training(tmp_path, replace(PLAIN, epochs=3), checkpoint_steps=1)
    update = run._update

    def update_then_poison(batches):
        update(batches)
        if run.state.step == 4:
            with torch.no_grad():
                run.network(False).head.weight.fill_(float("inf"))

    run._update = update_then_poison
    with pytest.raises(LibranasError, match="not finite at update 4 of 15"):
        run.fit()
    assert steps(run.checkpoints)[0] == 3


def test_it_restarts_beside_its_reading_processes(tmp_path):
    """They are forked from the process that has metrics.jsonl locked."""
    recipe = replace(PLAIN, epochs=3, nan_restarts=1)
    run = poisoned(training(tmp_path, recipe, log_steps=1, workers=1, data=images(160)), 3)
    assert len(run.fit()) == 3 and run.state.restarts == 1


def test_it_restarts_at_a_lower_rate_where_the_recipe_says_so(tmp_path, caplog):
    recipe = replace(PLAIN, epochs=3, nan_restarts=1, nan_lr_factor=0.25)
    plain = training(tmp_path / "plain", recipe, log_steps=1)
    plain.fit()
    run = poisoned(training(tmp_path / "run", recipe, log_steps=1, checkpoint_steps=2), 7)
    assert len(run.fit()) == 3
    assert "Going on after update 6, at 0.25 times the planned rate." in caplog.text
    rates = [
        [json.loads(line)["lr"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("plain", "run")
    ]
    ratios = [b / a for a, b in zip(*rates, strict=True)]
    assert ratios[:7] == [1.0] * 7 and ratios[7:] == pytest.approx([0.25] * len(ratios[7:]))
    with pytest.raises(LibranasError, match="not finite at update 8"):
        poisoned(training(tmp_path / "twice", recipe, log_steps=1), 7, times=2).fit()


# -- bad images ----------------------------------------------------------------------------------------------


class Broken(ArrayImages):
    """Some of the images cannot be read."""

    def __init__(self, count, broken):
        whole = images(count)
        super().__init__(whole.images_NSSC.transpose(0, 3, 1, 2), whole.label_N, whole.classes)
        self.broken = broken

    def read(self, index):
        if index in self.broken:
            raise OSError(f"image {index} is truncated")
        return super().read(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_named_and_skipped_up_to_a_limit(tmp_path, workers):
    run = training(tmp_path / "some", PLAIN, data=Broken(80, {3, 4, 50}), bad_images=3, workers=workers)
    run.fit()
    assert set(run.bad.found()) == {"3", "4", "50"} and run.bad.check() == 3
    assert "image 3 is truncated" in run.bad.found()["3"]
    result = run.evaluate(Broken(30, {3, 4}))
    assert result.images == 28 and result.confusion_KK.sum() == 28
    result = run.evaluate(Broken(30, set(range(16))))  # a whole batch
    assert result.images == 14 and result.index_N.tolist() == list(range(16, 30))
    with pytest.raises(LibranasError, match=r"3 images cannot be read, 2 are allowed.(.|\n)*is truncated"):
        training(tmp_path / "many", PLAIN, data=Broken(80, {3, 4, 50}), bad_images=2, workers=workers).fit()
    with pytest.raises(LibranasError, match=r"^The image 3 cannot be read: OSError: image 3 is truncated.\n  -> Mend"):
        training(tmp_path / "none", PLAIN, data=Broken(80, {3}), workers=workers).fit()


FAILS = """
import tempfile
from pathlib import Path
from training_runs import images, training
from libranas.training.recipe import make_recipe
from libranas.training.trainer import Training

Training._line = lambda self, epoch: 1 / 0
recipe = make_recipe({"epochs": 2, "batch_size": 16, "lr": 3e-3})
training(Path(tempfile.mkdtemp()), recipe, data=images(64), workers=2, log_steps=1).fit()
"""


def test_an_error_ends_the_reading_processes():
    """They are deaf to the signal by which Python would end them when it exits."""
    done = subprocess.run(
        [sys.executable, "-c", FAILS], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_bad_images_of_all_processes_are_counted_together(tmp_path):
    data, error = images(8), OSError("truncated")
    first, second = (BadImages(tmp_path, 2, rank) for rank in (0, 1))
    for process, index in ((first, 1), (second, 2), (second, 1)):
        process.add(data, index, error)
    assert len(list(tmp_path.iterdir())) == 2
    assert set(first.found()) == set(second.found()) == {"1", "2"} and first.check() == 2
    with open(tmp_path / "bad_images-1.jsonl", "a") as file:
        file.write('{"image": "3", "rea')  # being written
    assert second.check() == 2


# -- networks of a space -------------------------------------------------------------------------------------

SPACE = AutoFormerSpace((12, 16), (1, 2), (1, 2), (1.5, 2.0), 8, 8, 4, 3, 4, max_relative_position=1)
ARCH = SPACE.arch(16, (2, 1), (2.0, 1.5))


def test_train_and_test(tmp_path):
    records = []
    sets = (image_set(40, 0), image_set(20, 1), image_set(24, 2))
    net, metrics = train_and_test(SPACE, ARCH, sets, PLAIN, (1, 0), tmp_path / "a", "k", records.append)
    assert metrics["history"] == records and len(records) == 2
    assert metrics["val_accuracy"] == records[-1]["val_accuracy"]
    assert (metrics["id"], metrics["params"], metrics["macs"]) == (ARCH.id, SPACE.params(ARCH), SPACE.macs(ARCH))
    assert metrics["test_images"] == 24 and np.trace(metrics["confusion"]) == round(24 * metrics["test_accuracy"])
    other, _ = train_and_test(SPACE, ARCH, sets, PLAIN, (1, 1), tmp_path / "b", "k", records.append)
    assert not equal(net.state_dict(), other.state_dict())
    again, same = train_and_test(SPACE, ARCH, sets, PLAIN, (1, 0), tmp_path / "a", "k", records.append)
    assert len(records) == 4 and same["history"] == metrics["history"]
    assert equal(net.state_dict(), again.state_dict())
    train_and_test(SPACE, ARCH, sets, PLAIN, (1, 0), tmp_path / "a", "another key", records.append)
    assert len(records) == 6
