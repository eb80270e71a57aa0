"""``libranas train``: final training of any network, alone or under torchrun."""

import argparse
import logging
import math
import shutil
from pathlib import Path

from libranas.cli import count, positive, value
from libranas.core.errors import LibranasError
from libranas.core.progress import Stopped
from libranas.core.text import key_value
from libranas.core.typed import DEVICE

log = logging.getLogger("libranas")

#: Exit code of a run that was told to stop and can go on (EX_TEMPFAIL). torchrun replaces it by 1.
TRY_AGAIN = 75


def add(commands) -> None:
    share, minutes = value(float, least=0, below=1), value(float, above=0)
    parser = commands.add_parser("train", description=_train.__doc__)
    parser.set_defaults(run=_train)
    parser.add_argument(
        "--recipe", required=True, metavar="NAME|FILE", help="a shipped recipe (`--recipe list` lists them) or a file"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a field of the recipe; may be repeated"
    )
    parser.add_argument(
        "--model",
        metavar="timm:NAME|FOLDER|FAMILY:STRING|FILE.yaml|PATH.py:FUNC",
        help="as `libranas score --model`; of an exported folder, the architecture is trained anew",
    )
    parser.add_argument("--weights", type=Path, metavar="FILE.safetensors", help="begin with these (fine-tuning)")
    parser.add_argument("--data", metavar="KIND:PATH", help="such as folder:DIR, imagenet:DIR (docs/data-sets.md)")
    parser.add_argument(
        "--val-share", type=share, default=0.1, help="of the training images, where no val split is (default: 0.1)"
    )
    parser.add_argument("--test-share", type=share, default=0.2, help="likewise for the test split (default: 0.2)")
    parser.add_argument("--image-size", type=positive, metavar="S", help="default: the model's")
    parser.add_argument("--channels", type=count, choices=(1, 3), help="grey or RGB (default: the model's)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="results and checkpoints; the same one goes on")
    parser.add_argument("--seed", type=count, default=0, help="of weights, order and augmentation (default: 0)")
    parser.add_argument("--seeds", type=positive, default=1, metavar="N", help="trainings, from --seed on (default: 1)")
    parser.add_argument("--device", type=value(str, **DEVICE), default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--workers", type=count, default=0, help="reading processes for each process (default: 0)")
    parser.add_argument(
        "--micro-batch",
        type=positive,
        metavar="B",
        help="images at a time on a device; the batch of the recipe is accumulated from them, with any number of "
        "processes to the same result (default: a process's share of the batch)",
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--channels-last", action="store_true", help="memory layout for convolutional networks")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory, a third more time")
    parser.add_argument("--bad-images", type=count, default=0, metavar="N", help="unreadable images that are tolerated")
    parser.add_argument("--tensorboard", action="store_true", help="write metrics for TensorBoard too")
    parser.add_argument("--checkpoint-minutes", type=minutes, default=10, metavar="M", help="besides each epoch's end")
    parser.add_argument("--licence", help="of the weights, for the model card, such as apache-2.0")
    parser.add_argument("--scores", type=Path, metavar="FILE.json", help="of `libranas score --output`, for the card")
    parser.add_argument(
        "--restart-on-change", action="store_true", help="begin anew where checkpoints are of another run (or recipe)"
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="FIELD",
        help="go on although this field of the recipe changed; "
        "it acts from there on (any but those that change the order of the images or the optimizer)",
    )


def _train(arguments: argparse.Namespace) -> int:
    """Train a network by a recipe and test it once. Killed or told to stop (SIGTERM, SIGUSR1: exit code 75), the same
    command goes on where it was, to the same result. Under torchrun, all its processes share the work."""
    from libranas.training.recipe import FOLDER, read_recipe, shipped

    if arguments.recipe == "list":
        for name in shipped():
            recipe, about = read_recipe(name)
            print(f"{name}: {recipe.epochs} epochs, batch {recipe.batch_size}. {about['source']}")
        print(f"\nThe files: {FOLDER}")
        return 0
    if lacking := [name for name in ("model", "data", "output") if getattr(arguments, name) is None]:
        raise LibranasError(f"--{' and --'.join(lacking)} not given.", "`libranas train --help` explains them.")
    from libranas.training.distributed import World

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    world = World.from_environment(arguments.device)
    if not world.first:
        logging.getLogger().setLevel(logging.ERROR)
    try:
        _run(arguments, world)
    except Stopped as stopped:
        log.warning("%s", stopped)
        return TRY_AGAIN
    finally:
        world.close()
    return 0


def _run(arguments: argparse.Namespace, world) -> None:
    import dataclasses

    from libranas.core.files import write_json
    from libranas.training.data_sets import open_splits
    from libranas.training.recipe import make_recipe, read_recipe
    from libranas.training.results import over_seeds

    recipe, _ = read_recipe(arguments.recipe)
    changes = dict(key_value(pair, "--set") for pair in arguments.set)
    recipe = make_recipe({**dataclasses.asdict(recipe), **changes}, "--set ")
    _scores(arguments.scores)  # a wrong file is an error before the training, not after it
    shares = arguments.val_share, arguments.test_share
    with open_splits(arguments.data, arguments.channels or 3, *shares) as splits:
        for warning in splits.warnings:
            log.warning("%s: %s", arguments.data, warning)
        seeds = range(arguments.seed, arguments.seed + arguments.seeds)
        folders = [arguments.output / f"seed-{seed}" if len(seeds) > 1 else arguments.output for seed in seeds]
        results = [_one(arguments, world, recipe, splits, *run) for run in zip(seeds, folders, strict=True)]
    if len(seeds) > 1 and splits.test:
        summary = over_seeds([result["test"] for result in results])
        log.info("test accuracy %.4f (95 %% interval %.4f to %.4f)", *list(summary["top1"].values())[:3])
        if world.first:
            same = {k: v for k, v in results[0].items() if k not in ("test", "history", "seed")}
            write_json(arguments.output / "result.json", {"seeds": list(seeds), "test": summary, **same})


def _one(arguments: argparse.Namespace, world, recipe, splits, seed: int, folder: Path) -> dict:
    """Train and test with one seed."""
    import torch

    from libranas.core.files import write_json
    from libranas.core.provenance import digest, facts, file_sha256
    from libranas.core.random import stream_seed
    from libranas.networks.load import Wanted, checked_outputs, model_of, model_record
    from libranas.training.results import outcome
    from libranas.training.settings import Settings
    from libranas.training.trainer import Training
    from libranas.training.transforms import Look
    from libranas.training.weights import load_weights, save_weights

    classes = splits.train.classes
    wanted = Wanted(
        *(len(classes), stream_seed(seed, "train", "init"), arguments.image_size, arguments.channels),
        drop_path=recipe.drop_path,
        fused=True,
    )
    model, size, channels = model_of(arguments.model, wanted)
    for training in (True, False):
        inputs = torch.zeros(()).expand(2, channels, size, size)
        outputs = checked_outputs(model, inputs, arguments.model, len(classes), training)
    if outputs > len(classes):
        raise LibranasError(
            f"--model {arguments.model} has {outputs} outputs, but the images have {len(classes)} classes.",
            "Make the network for this number of classes.",
        )
    for images in splits[:3]:
        if images:
            images.channels = channels
    if arguments.weights:
        load_weights(model, arguments.weights)
    mean, std = _normalisation(model, channels)
    look = size, classes, mean, std
    world.first_does(lambda: _try_export(model, folder / ".export", look, arguments.model))
    named, shares = model_record(arguments.model), (arguments.val_share, arguments.test_share)
    weights = file_sha256(arguments.weights) if arguments.weights else None
    key = digest(named, weights, arguments.data, shares, size, channels)
    same = ("micro_batch", "workers", "compile", "channels_last", "gradient_checkpointing", "bad_images", "tensorboard")
    how = {name: getattr(arguments, name) for name in (*same, "accept", "restart_on_change")}
    settings = Settings(folder, seed, key, checkpoint_seconds=60 * arguments.checkpoint_minutes, **how)
    training = Training(model, splits.train, splits.val, Look(size, channels, mean, std), recipe, settings, world)
    history = training.fit(
        lambda r: log.info(
            *("epoch %d of %d: %s", r["epoch"] + 1, recipe.epochs),
            ", ".join(f"{name} {value:.5g}" for name, value in r.items() if name != "epoch"),
        )
    )
    result = {"model": named, "weights": weights, "seed": seed, "recipe": training.recipe.to_dict()}
    result |= {"data": arguments.data, "splits": splits.rules, "classes": classes, "processes": world.size}
    if splits.test:
        test = result["test"] = outcome(training.evaluate(splits.test), splits.test)
        log.info("test accuracy %.4f on %d images", test["top1"], test["images"])
    bad = {"count": training.bad.check(), "images": training.bad.found()}
    result |= {"unreadable": bad, "history": history, "facts": facts()}
    if world.first:
        network = training.network().cpu()
        save_weights(folder / "model.safetensors", network)
        write_json(folder / "result.json", result)
        counts = {name: len(getattr(splits, name)) for name in splits.rules}
        card = _card(arguments, result, counts, _scores(arguments.scores))
        tested = {"crop_pct": recipe.crop_pct, "interpolation": recipe.test_interpolation}
        log.info("%s: %s", folder, _export(network, folder, look, arguments.model, card, **tested))
    return result


def _normalisation(model, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of a channel, as timm's description of the network says."""
    import timm

    try:
        config = timm.data.resolve_data_config({}, model=model, use_test_size=False)
        mean, std = (tuple(map(float, config[k])) for k in ("mean", "std"))
        if not all(map(math.isfinite, (*mean, *std))) or not all(std):
            raise ValueError(f"mean {mean}, std {std}")
        return tuple(values if len(values) == channels else (0.5,) * channels for values in (mean, std))
    except (ArithmeticError, AttributeError, TypeError, ValueError, AssertionError) as error:
        raise LibranasError(
            f"The attribute pretrained_cfg of {type(model).__name__} is no description of timm ({error}).",
            "Delete it, or give it `mean` and `std` of each channel.",
        ) from None


def _try_export(model, folder: Path, look: tuple, text: str) -> None:
    """Write the network before the first epoch as after the last one, to say at once what cannot be; keep nothing."""
    from libranas.training.weights import save_weights

    try:
        save_weights(folder / "model.safetensors", model)
        _export(model, folder, look, text, "")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _export(model, folder: Path, look: tuple, text: str, card: str, **tested) -> str:
    """Export the network for timm, or as a program where timm does not load it; say what was written.

    `look`: side of the images, names of the classes, mean and deviation of a channel.
    """
    from libranas.export.comparison import NotExported
    from libranas.export.formats import write_program
    from libranas.export.timm import export_timm

    program, (size, _, mean, _) = folder / "model.pt2", look
    program.unlink(missing_ok=True)
    try:
        # Only a Python file has code of the user, which can change timm.
        export_timm(model, folder / "export", *look, card, **tested, fresh=text.rpartition(":")[0].endswith(".py"))
        return "export has the network for timm, with its model card; it loads back with equal weights and logits"
    except NotExported as error:
        log.warning("%s", error)
    if write_program(model, (len(mean), size, size), program):
        return "model.pt2 is the network as a program of torch.export; it loads back with equal logits"
    return "model.safetensors has the weights of the network; its own code has to load them"


def _card(arguments: argparse.Namespace, result: dict, images: dict[str, int], scores: dict[str, float]) -> str:
    from libranas.export.model_card import model_card
    from libranas.training.results import percent

    accuracy = {"seed": result["seed"]}
    if test := result.get("test"):
        interval = {"mean": test["top1"], "low": test["top1_low"], "high": test["top1_high"]}
        accuracy |= {
            f"test accuracy on {test['images']} images": percent(interval),
            "top-5": f"{100 * test['top5']:.2f} %",
        }
        if real := test.get("real"):
            accuracy[f"by the reassessed labels, on {real['images']} images"] = f"{100 * real['top1']:.2f} %"
    kind, _, path = arguments.data.partition(":")
    data = {"data set": f"{kind} {Path(path).name}".strip(), "images": images, "classes": result["classes"]}
    data |= {f"split {split}": rule for split, rule in result["splits"].items()}
    facts = result["facts"]
    title = f"{result['model']['name']}, {kind}"
    return model_card(title, result["model"], accuracy, data, result["recipe"], facts, scores, arguments.licence)


def _scores(path: Path | None) -> dict[str, float]:
    """Return the values of a file of `libranas score --output`, by proxy."""
    import json

    try:
        scores = json.loads(path.read_text(encoding="utf-8"))["scores"] if path else {}
        return {name: float(score["value"]) for name, score in scores.items() if score["value"] is not None}
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise LibranasError(
            f"--scores {path} holds no scores ({type(error).__name__}: {error}).",
            "Name a file that `libranas score --output` wrote.",
        ) from None
