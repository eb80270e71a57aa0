"""``libranas score`` scores any network on any images, ``libranas proxies`` lists the proxies.

Legend: B images, C channels, S image side.
"""

import argparse
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import shutil
import sys
import textwrap
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from libranas.cli import count, positive
from libranas.core.errors import LibranasError
from libranas.core.files import user_path, write_json
from libranas.core.provenance import facts
from libranas.core.scorecard import ScoreCard
from libranas.core.text import key_value, text_table
from libranas.core.typed import BadSetting, keys_of, read
from libranas.data.calibration import calibration_indices, normalised
from libranas.data.decode import decoded
from libranas.data.registry import DATA_SETS, open_data_set
from libranas.data.source import Item, Source
from libranas.networks.load import IMAGE_SIZE, Wanted, checked_outputs, model_of, model_record


def add(commands) -> None:
    score = commands.add_parser("score", description=_score.__doc__)
    score.set_defaults(run=_score)
    score.add_argument(
        "--model",
        required=True,
        metavar="timm:NAME|FOLDER|FAMILY:STRING|FILE.yaml|PATH.py:FUNC",
        help="a model of timm (timm:NAME,key=value with arguments of its own) or an exported folder; a member of a "
        "space by its string (nasbench201:|nor_conv_3x3~0|+..., darts,layers=20:Genotype(...), or canonical JSON), or "
        "a file of `libranas networks` with one network, both with keys of the config section `space` "
        "(FILE.yaml,patch_size=8); or a function (or class) of a Python file that returns an nn.Module and is given "
        "the number of classes if it takes an argument",
    )
    score.add_argument("--images", required=True, type=Path, metavar="DIR", help=DATA_SETS["folder"].layout)
    score.add_argument("--batch", type=positive, default=64, metavar="B", help="images, class-balanced (default: 64)")
    score.add_argument(
        "--image-size", type=positive, metavar="S", help=f"default: the network's, otherwise {IMAGE_SIZE}"
    )
    score.add_argument(
        "--channels", type=count, choices=(1, 3), help="grey or RGB (default: the network's, otherwise 3)"
    )
    score.add_argument("--proxies", metavar="A,B,...", help="names of `libranas proxies` (default: all)")
    score.add_argument("--seed", type=count, default=0, help="of the choice of images and of all noise (default: 0)")
    score.add_argument("--init-seed", type=count, default=0, help="of the initial weights (default: 0)")
    score.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    score.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the proxies (libranas.zero_cost.registry.Options), as in YAML; may be repeated",
    )
    score.add_argument("--output", type=Path, metavar="FILE.json", help="write values, components and conditions here")
    listing = commands.add_parser("proxies", description=_proxies.__doc__)
    listing.set_defaults(run=_proxies)
    listing.add_argument("--json", action="store_true", help="as JSON")


def _score(arguments: argparse.Namespace) -> None:
    """Score one network, with its initial weights, on a class-balanced batch of images."""
    from libranas.zero_cost import registry as proxies
    from libranas.zero_cost import score as engine

    names = proxies.list_proxies() if arguments.proxies is None else _names(arguments.proxies)
    names = proxies.with_parts(names)
    options = _options(arguments.option)
    device = _device_of(arguments.device)
    with _open_images(arguments.images) as source:
        items = _chosen(source, arguments.images, arguments.batch, arguments.seed)
        wanted = Wanted(len(source.classes), arguments.init_seed, arguments.image_size, arguments.channels)
        model, size, channels = model_of(arguments.model, wanted)
        inputs_BCSS, targets_B, normalisation = _batch(items, size, channels)
    import torch

    inputs, targets = torch.from_numpy(inputs_BCSS), torch.from_numpy(targets_B)
    with _explained(device, arguments.batch):
        model = model.to(device)
        outputs = checked_outputs(model, inputs[:2].to(device), arguments.model, len(source.classes))
        card = engine.score(model, inputs, targets, names, arguments.seed, **options)
    if outputs > len(source.classes):
        note = f"the model has {outputs} outputs for {len(source.classes)} classes; the others are never a target"
        card = dataclasses.replace(card, warnings=(*card.warnings, note))
    report = _report(arguments, card, model, device, source.classes, inputs_BCSS.shape)
    try:
        if arguments.output:
            sha256 = hashlib.sha256(inputs_BCSS.astype("<f4").tobytes() + targets_B.astype("<i8").tobytes())
            conditions = {
                "model": model_record(arguments.model),
                "init_seed": arguments.init_seed,
                "images": {
                    "source": arguments.images.resolve().name,
                    "classes": source.classes,
                    "shape": inputs_BCSS.shape,
                    "sha256": sha256.hexdigest(),
                    **normalisation,
                },
                "seed": arguments.seed,
                "device": device,
                "options": dataclasses.asdict(proxies.Options(**options)),
                "proxy_versions": {name: proxies.get(name).version for name in names},
                "facts": facts(),
            }
            write_json(arguments.output, {**card.to_record(), "conditions": conditions})
    finally:
        print(report)  # also where the file cannot be written: scoring took its time


def _proxies(arguments: argparse.Namespace) -> None:
    """List the proxies: the pass that each one needs, whether higher or lower is better, its title and source."""
    from libranas.zero_cost import registry as proxies

    records = [proxies.get(name) for name in proxies.list_proxies()]
    if arguments.json:
        fields = ("name", "title", "source", "orientation", "version", "parts")
        listing = [{f: getattr(p, f) for f in fields} | {"pass": p.run.name} for p in records]
        print(json.dumps(listing, indent=2))
    else:
        head = ("proxy", "pass", "orientation", "title", "source")
        taken = max(map(len, proxies.list_proxies())) + max(len(p.run.name) for p in records) + len(head[2]) + 8
        width = max(24, (shutil.get_terminal_size((120, 24)).columns - taken) // 2)
        wrapped = functools.partial(textwrap.wrap, width=width, break_on_hyphens=False)
        rows = []
        for p in records:
            cells = [p.name], [p.run.name], [_better(p)], wrapped(p.title), wrapped(p.source)
            rows += itertools.zip_longest(*cells, fillvalue="")
        print(text_table(head, rows))


def _device_of(setting: str) -> str:
    import torch

    from libranas.networks.device import pick_device

    if setting == "cuda" and not torch.cuda.is_available():
        raise LibranasError("--device cuda: PyTorch finds no GPU here.", "Use --device cpu or auto.")
    return pick_device(setting)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise LibranasError("--proxies names no proxy.", "`libranas proxies` lists them; the default is all.")
    return names


def _options(pairs: Sequence[str]) -> dict:
    """Read the options of the scoring call."""
    from libranas.zero_cost.options import Options

    keys, options = keys_of(Options), dict(key_value(pair, "--option") for pair in pairs)
    for name, value in options.items():
        if isinstance(value, str) and name in keys and typing.get_origin(keys[name].hint) is tuple:
            options[name] = [part.strip() for part in value.split(",")]  # names need no brackets
    try:
        options = read(keys, options, "--option ", partial=True)
        Options(**options)
    except BadSetting as error:
        todo = (
            "Values are written as in YAML: true, 8, [0.2, 0.8], null. config/schema.yaml lists them (score.options)."
        )
        raise LibranasError(error.what, f"{error.todo} {todo}".strip()) from None
    return options


@contextmanager
def _open_images(path: Path) -> Iterator[Source]:
    """Open class folders or a tar of them; errors name --images instead of the configuration."""
    path = user_path(path)
    if not os.path.exists(path):  # no error for a text that is no path
        raise LibranasError(f"--images {path} does not exist.", f"Name {DATA_SETS['folder'].layout}.")
    with open_data_set("folder", path, "--images") as source:
        for warning in source.warnings:
            print(f"Warning: {warning}", file=sys.stderr)
        yield source


def _chosen(source: Source, path: Path, batch: int, seed: int) -> list[Item]:
    """Choose training images, as many of each class as far as they go."""
    items = source.splits["train"]
    if len(source.classes) < 2:
        raise LibranasError(
            f"--images {path} has only the class {source.classes[0]}; classification needs two or more.",
            "Name the folder above the class folders.",
        )
    if len(items) < batch:
        raise LibranasError(
            f"--images {path} has {len(items)} training images, --batch asks for {batch}.",
            f"Add images, or use --batch {len(items)} or less.",
        )
    indices_B = calibration_indices(np.array([item.label for item in items]), batch, seed)
    return [items[i] for i in indices_B]


def _batch(items: Sequence[Item], size: int, channels: int) -> tuple[np.ndarray, np.ndarray, dict]:
    """Decode the images and normalise each channel to mean 0 and deviation 1 over the batch; no other is decoded.

    Returns
    -------
    inputs float32 (B, C, S, S), targets int64 (B,), and the mean and deviation of each channel (pixels in [0, 1])
    """
    images = list(decoded(items, size, channels, workers=1))
    if broken := [f"\n     {item.source}: {reason}" for item, reason in images if isinstance(reason, str)]:
        what = f"{len(broken)} of the {len(items)} chosen images cannot be read:{''.join(broken[:10])}"
        raise LibranasError(what, "Mend or remove them.")
    pixels_BSSC = np.stack([image for _, image in images])
    mean_C, std_C = (pixels_BSSC / 255).mean((0, 1, 2)), (pixels_BSSC / 255).std((0, 1, 2))
    inputs_BCSS = normalised(pixels_BSSC, mean_C, std_C, "chosen", "--images")
    targets_B = np.array([item.label for item in items], np.int64)
    return inputs_BCSS, targets_B, {"mean": mean_C.tolist(), "std": std_C.tolist()}


@contextmanager
def _explained(device: str, batch: int) -> Iterator[None]:
    """Turn what a batch that does not fit the network or the machine raises into an error for the user."""
    import torch

    try:
        yield
    except ValueError as error:  # also what batch normalisation raises on one value a channel
        raise LibranasError(
            f"The network cannot be scored on these {batch} images: {error}.",
            "Raise --batch or --image-size, or change the --option that the message names.",
        ) from error
    except torch.OutOfMemoryError as error:
        raise LibranasError(
            f"The memory of the device '{device}' does not suffice for {batch} images.",
            "Lower --batch or --image-size, choose fewer --proxies, or use --device cpu.",
        ) from error


def _report(arguments: argparse.Namespace, card: ScoreCard, model, device: str, classes: list[str], shape) -> str:
    from libranas.zero_cost import registry as proxies

    sizes = {name: p.numel() for name, p in model.named_parameters()}
    scores = [(proxies.get(name), score) for name, score in card.scores.items()]
    rows = [(p.name, _number(s.value), _better(p), s.pass_name, f"{s.seconds:.3f}") for p, s in scores]
    costs = [(name, f"{c.seconds:.3f}", _megabytes(c.peak_bytes)) for name, c in card.passes.items()]
    undefined = [f"  {p.name}: {s.reason}" for p, s in scores if s.reason]
    batch, channels, side, _ = shape
    return "\n".join(
        [
            f"{arguments.model}: {sum(sizes.values())} parameters, init seed {arguments.init_seed}",
            f"{batch} images of {len(classes)} classes, {side} x {side} x {channels}, seed {arguments.seed}; {device}",
            "",
            text_table(("proxy", "value", "orientation", "pass", "seconds"), rows, right={1, 4}),
            *(["", "Undefined for this network:", *undefined] if undefined else []),
            "",
            "Proxies of a pass share one run of the network; their seconds are those of the pass. "
            + ("Peak: memory of the whole process." if device == "cpu" else "Peak: memory of the GPU."),
            text_table(("pass", "seconds", "peak MB"), costs, right={1, 2}),
            "",
            f"{len(card.excluded)} parameter tensors ({sum(sizes[n] for n in card.excluded)} parameters) belong to no "
            "layer (biases, norms, embeddings): proxies of layers leave them out.",
            *(f"Warning: {sentence}" for sentence in card.warnings),
        ]
    )


def _better(proxy) -> str:
    return "higher" if proxy.orientation > 0 else "lower"


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def _megabytes(size: float) -> str:
    return "-" if math.isnan(size) else f"{size / 1e6:.0f}"
