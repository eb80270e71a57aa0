"""Short trainings: the same to the bit after a kill, checkpoints that belong to one run, errors that say why."""

import copy
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision.transforms import v2
from training_runs import equal, one_thread  # noqa: F401
from training_runs import image_set as images

from libranas.core.errors import LibranasError
from libranas.labels.short_training import train_each
from libranas.labels.supernet import inherit, train_supernet
from libranas.networks import build
from libranas.networks.device import pick_device
from libranas.spaces import AutoFormerSpace
from libranas.training.checkpoints import Checkpoints
from libranas.training.evaluation import accuracy
from libranas.training.images import ImageSet
from libranas.training.in_memory import ShortTraining, mirrored, shifted
from libranas.training.recipe import ShortRecipe
from libranas.training.weights import save_weights

SPACE = AutoFormerSpace((12, 16), (1, 2), (1, 2), (1.5, 2.0), 8, 8, 4, 3, 4, max_relative_position=1)
ARCH = SPACE.arch(16, (2, 1), (2.0, 1.5))
#: Everything that draws random numbers is on.
RECIPE = ShortRecipe(
    epochs=4,
    batch_size=12,
    lr=3e-3,
    drop_path=0.3,
    crop_padding=1,
    hflip=True,
    randaugment=5,
    erasing=0.5,
    mixup=0.3,
    cutmix=0.5,
)


def network(drop_path=0.3):
    return build(SPACE, ARCH, seed=1, drop_path_rate=drop_path)


def fit(net, recipe, count=40, seed=7, checkpoints=None, **how):
    return ShortTraining(net, recipe, images(count), seed).fit(checkpoints, **how)


class Killed(Exception):
    pass


# -- resuming ------------------------------------------------------------------------------------------------


def test_resumed_training_is_bit_equal_to_undisturbed(tmp_path):
    whole = network()
    history = fit(whole, RECIPE)
    assert len(history) == 4 and all(math.isfinite(r["loss"]) for r in history)

    def kill(record):
        if record["epoch"] in (0, 2):
            raise Killed

    checkpoints, record = Checkpoints(tmp_path), None
    for attempt in range(3):
        torch.manual_seed(attempt)  # the state of the process does not matter
        net = network()
        try:
            record = fit(net, RECIPE, checkpoints=checkpoints, key="k", on_epoch=kill)
        except Killed:
            assert len(checkpoints.newest()[1]["history"]) == (1, 3)[attempt]
    assert record == history and equal(whole.state_dict(), net.state_dict())


def test_a_finished_training_is_not_done_again(tmp_path):
    checkpoints, calls = Checkpoints(tmp_path), []
    first, again = network(), network()
    history = fit(first, RECIPE, checkpoints=checkpoints, key="k")
    assert fit(again, RECIPE, checkpoints=checkpoints, key="k", on_epoch=calls.append) == history
    assert not calls and equal(first.state_dict(), again.state_dict())


def test_a_checkpoint_of_another_run_is_not_used(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    fit(network(), replace(RECIPE, lr=1e-2), checkpoints=checkpoints, key="other")
    ours, alone = network(), network()
    fit(ours, RECIPE, checkpoints=checkpoints, key="k")
    fit(alone, RECIPE)
    assert equal(ours.state_dict(), alone.state_dict())
    assert checkpoints.newest()[1]["key"] == "k"


def test_training_leaves_the_global_random_state_alone():
    torch.manual_seed(3)
    np.random.seed(3)
    before, np_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    fit(network(), replace(RECIPE, epochs=1))
    assert torch.equal(torch.get_rng_state(), before) and (np.random.get_state()[1] == np_before).all()


def test_another_seed_is_another_training():
    a, b = network(), network()
    fit(a, replace(RECIPE, epochs=1))
    fit(b, replace(RECIPE, epochs=1), seed=8)
    assert not equal(a.state_dict(), b.state_dict())


# -- one training --------------------------------------------------------------------------------------------


def test_it_learns():
    net = network(0.0)
    history = fit(net, ShortRecipe(epochs=6, batch_size=20, lr=1e-2), 200, seed=1)
    reached = accuracy(net.eval(), images(80, seed=1))
    assert history[-1]["loss"] < history[0]["loss"] and reached > 0.9
    assert accuracy(net, images(80, seed=1), batch_size=7) == reached


def test_a_loss_that_is_not_finite_is_an_error():
    net = network()
    with torch.no_grad():
        net.head.weight.fill_(float("nan"))
    with pytest.raises(LibranasError, match="The training loss became nan in epoch 1"):
        fit(net, RECIPE)


def test_the_learning_rate_warms_up_and_falls_to_its_end():
    recipe = ShortRecipe(epochs=6, batch_size=10, lr=1e-2, min_lr=1e-4, warmup_epochs=2)
    run = ShortTraining(network(), recipe, images(), 1)
    assert run.updates == 4
    rates = []
    for step in range(24):
        run.scheduler.step_update(step)
        rates.append(run.optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(1e-4) and rates[:8] == sorted(rates[:8])
    assert rates[8:] == sorted(rates[8:], reverse=True)
    assert rates[-1] < 4e-4


def test_norms_and_biases_are_not_decayed():
    run = ShortTraining(network(), RECIPE, images(), 1)
    decayed = {id(p) for g in run.optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    for name, p in run.model.named_parameters():
        assert (id(p) in decayed) == (p.ndim > 1 and name not in ("cls_token", "pos_embed")) or "rel_pos" in name, name


def test_a_set_smaller_than_a_batch():
    history = fit(network(), replace(RECIPE, epochs=1, batch_size=64), 5)
    assert math.isfinite(history[0]["loss"])


def test_images_are_mixed_in_pairs():
    """An odd batch is made even; it is not silently trained on unmixed."""
    run = ShortTraining(network(), ShortRecipe(epochs=1, batch_size=7, mixup=1.0), images(), 1)
    batches = list(run.batches())
    assert [len(x) for x, _ in batches] == [6] * 6
    assert all(y.shape == (6, 4) and y.is_floating_point() for _, y in batches)


def test_images_are_normalised_by_channel():
    data = ImageSet(torch.full((1, 2, 1, 1), 255, dtype=torch.uint8), torch.zeros(1), (0.5, 0.0), (0.5, 2.0), 2)
    assert data.normalised(data.images_NCHW, "cpu").flatten().tolist() == [1.0, 0.5]


def test_recipes_without_augmentation_train_on_the_images_themselves():
    run = ShortTraining(network(), ShortRecipe(epochs=1, batch_size=10), images(), 1)
    assert run.each_image is None and run.mixup is None
    seen = torch.cat([x for x, _ in run.batches()])
    expected = images().normalised(images().images_NCHW, "cpu")
    key = lambda t: sorted(map(tuple, t.flatten(1).tolist()))  # noqa: E731
    assert key(seen) == key(expected)


def test_each_image_is_shifted_by_its_own_steps():
    """As torchvision crops one image after another, with the numbers that are drawn."""
    whole = torch.randint(1, 256, (50, 3, 6, 5), dtype=torch.uint8)
    torch.manual_seed(3)
    found = shifted(whole, 2)
    torch.manual_seed(3)
    top, left = torch.randint(5, (2, 50)).tolist()
    for image, other, y, x in zip(whole, found, top, left, strict=True):
        assert torch.equal(other, v2.functional.crop(v2.functional.pad(image, [2]), y, x, 6, 5))
    assert found.dtype == torch.uint8 and set(top) == set(left) == {0, 1, 2, 3, 4} and top != left


def test_about_every_second_image_is_mirrored():
    whole = torch.arange(3.0).expand(400, 1, 1, 3)
    torch.manual_seed(0)
    found = mirrored(whole)[:, 0, 0]
    assert set(map(tuple, found.tolist())) == {(0, 1, 2), (2, 1, 0)} and 160 < int((found[:, 0] == 2).sum()) < 240


def test_every_setting_of_a_recipe_changes_the_training():
    base = ShortRecipe(epochs=2, batch_size=10, drop_path=0.0)
    other = {
        "epochs": 3,
        "batch_size": 20,
        "lr": 2e-3,
        "min_lr": 5e-4,
        "weight_decay": 0.5,
        "warmup_epochs": 0,
        "label_smoothing": 0.0,
        "clip_grad": 0.01,
        "crop_padding": 1,
        "hflip": True,
        "randaugment": 9,
        "erasing": 0.9,
        "mixup": 0.5,
        "cutmix": 0.5,
        "drop_path": 0.9,
    }
    assert other.keys() == {f.name for f in fields(ShortRecipe)}

    def trained(recipe):
        net = network(recipe.drop_path)
        fit(net, recipe, seed=1)
        return net.state_dict()

    plain = trained(base)
    for name, value in other.items():
        assert not equal(plain, trained(replace(base, **{name: value}))), name


# -- weights and devices -------------------------------------------------------------------------------------


def test_saved_weights_are_the_weights(tmp_path):
    net = network()
    save_weights(tmp_path / "w.safetensors", net)
    loaded = load_file(tmp_path / "w.safetensors")
    assert loaded.keys() == net.state_dict().keys() and equal(net.state_dict(), loaded)


def test_pick_device():
    assert pick_device("cpu") == "cpu" and pick_device("cuda:1") == "cuda:1"
    assert pick_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


# -- benchmarks ----------------------------------------------------------------------------------------------


def test_a_killed_benchmark_goes_on_and_gives_the_same_table(tmp_path):
    archs = [SPACE.sample(np.random.default_rng(i)) for i in range(3)]
    recipe = replace(RECIPE, epochs=1)

    def table(log, key="k", progress=lambda iterable, total, label: iterable):
        return train_each(
            SPACE, archs, images(), images(seed=1), recipe, [2] * len(archs), 1, log, key, progress=progress
        )

    whole = table(tmp_path / "whole")
    assert list(whole.columns) == ["id", "seed", "accuracy"]
    assert list(zip(whole["id"], whole["seed"], strict=True)) == [(a.id, s) for a in archs for s in range(2)]

    def kills(iterable, total, label):
        for i, item in enumerate(iterable):
            if i == 3:
                raise Killed
            yield item

    with pytest.raises(Killed):
        table(tmp_path / "killed", progress=kills)
    before = (tmp_path / "killed").read_bytes()
    assert before.count(b"\n") == 3
    assert table(tmp_path / "killed").equals(whole)
    assert (tmp_path / "killed").read_bytes().startswith(before)
    table(tmp_path / "killed", key="other")
    assert (tmp_path / "killed").read_bytes().count(b"\n") == 12


def test_a_killed_supernet_goes_on_to_the_same_weights(tmp_path):
    recipe = replace(RECIPE, epochs=3, drop_path=0.0)

    def kill(record):
        if record["epoch"] == 1:
            raise Killed

    whole, history = train_supernet(SPACE, images(), recipe, 1, tmp_path / "whole", "k")
    with pytest.raises(Killed):
        train_supernet(SPACE, images(), recipe, 1, tmp_path / "killed", "k", on_epoch=kill)
    shown = []

    def show(iterable, total, label):
        shown.append((total, label))
        return iterable

    again, resumed = train_supernet(SPACE, images(), recipe, 1, tmp_path / "killed", "k", progress=show)
    assert shown == [(1, "epochs")]
    assert resumed == history and equal(whole.model.state_dict(), again.model.state_dict())
    archs = [SPACE.sample(np.random.default_rng(i)) for i in range(3)]
    before = copy.deepcopy(whole.model.state_dict())
    table = inherit(whole, archs, images(seed=1))
    assert equal(before, whole.model.state_dict())
    for arch, value in zip(archs, table["accuracy"], strict=True):
        assert value == accuracy(whole.extract(arch), images(seed=1))
