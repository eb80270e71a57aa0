"""The command line: ``libranas score`` for any network and any images, ``libranas proxies`` for what there is,
``libranas libra`` for any table of scores and accuracies, ``libranas networks`` for files of other projects,
``libranas onnx`` for an exported network.

The first one reads images, builds one network with its initial weights, hands both to :func:`libranas.engine.score`
and prints what comes back. A mistake of the user ends it with one message on standard error and exit code 2.

Legend: B images, C channels, S image side, K logits.
"""

import argparse
import dataclasses
import difflib
import functools
import hashlib
import importlib.util
import inspect
import itertools
import json
import math
import os
import re
import shutil
import sys
import textwrap
import traceback
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml
from PIL import UnidentifiedImageError

from libranas.data import calibration_indices, decode
from libranas.errors import LibranasError
from libranas.files import write_json, write_text
from libranas.provenance import facts, file_sha256
from libranas.scorecard import ScoreCard
from libranas.sources import ADAPTERS, LAYOUTS, Item, Source

# What needs torch is imported where it is used: help and wrong arguments answer at once.

#: Side of the images where neither the command nor the model says one.
IMAGE_SIZE = 224
#: A file of networks as the model to score, perhaps with keys of the space.
NETWORK_FILE = re.compile(r"[^,]+\.(yaml|yml|json)(,|$)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 after a LibranasError was printed."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except LibranasError as error:
        print(f"libranas: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads the output (`head`, say) had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="libranas", description="Zero-cost proxies of untrained networks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    score = commands.add_parser("score", help="score one network on your images", description=_score.__doc__)
    score.set_defaults(run=_score)
    score.add_argument(
        "--model",
        required=True,
        metavar="timm:NAME[,key=value...]|PATH.py:FUNC|FILE.yaml[,key=value...]",
        help="a model of timm, with arguments of its own; or a function (or class) of a Python file that returns an "
        "nn.Module and is given the number of classes if it takes an argument; or a file of `libranas networks` with "
        "one network, and keys of the config section `space`",
    )
    score.add_argument("--images", required=True, type=Path, metavar="DIR", help=LAYOUTS["folder"])
    score.add_argument("--batch", type=_positive, default=64, metavar="B", help="images, class-balanced (default: 64)")
    score.add_argument("--image-size", type=_positive, metavar="S", help=f"default: timm's, otherwise {IMAGE_SIZE}")
    score.add_argument("--channels", type=int, choices=(1, 3), help="grey or RGB (default: timm's, otherwise 3)")
    score.add_argument("--proxies", metavar="A,B,...", help="names of `libranas proxies` (default: all)")
    score.add_argument("--seed", type=int, default=0, help="of the choice of images and of all noise (default: 0)")
    score.add_argument("--init-seed", type=int, default=0, help="of the initial weights (default: 0)")
    score.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    score.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the proxies (libranas.proxies.Options), as in YAML; may be repeated",
    )
    score.add_argument("--output", type=Path, metavar="FILE.json", help="write values, components and conditions here")
    listing = commands.add_parser("proxies", help="list the proxies", description=_proxies.__doc__)
    listing.set_defaults(run=_proxies)
    listing.add_argument("--json", action="store_true", help="as JSON")
    libra = commands.add_parser("libra", help="rank architectures of a table", description=_libra.__doc__)
    libra.set_defaults(run=_libra)
    libra.add_argument(
        "table", type=Path, metavar="TABLE.csv", help="first column: architecture; proxies, higher = better"
    )
    libra.add_argument("--accuracy", default="accuracy", metavar="COLUMN", help="default: accuracy")
    libra.add_argument("--params", default="params", metavar="COLUMN", help="numbers of parameters (default: params)")
    libra.add_argument("--labels", type=int, default=30, help="accuracies that are looked at (default: 30)")
    libra.add_argument("--splits", type=_positive, default=20, help="random choices of them (default: 20)")
    libra.add_argument("--seed", type=int, default=0, help="of the splits (default: 0)")
    libra.add_argument("--methods", metavar="A,B,...", help="of the comparison (default: all)")
    libra.add_argument("--output", type=Path, metavar="FILE.csv", help="write the comparison here")
    networks = commands.add_parser("networks", help="read files of other projects", description=_networks.__doc__)
    networks.set_defaults(run=_networks)
    networks.add_argument(
        "file", type=Path, metavar="FILE", help="YAML of AutoFormer, TF-TAS, AZ-NAS; JSON of PreNAS, ViT-Bench-101"
    )
    networks.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of the config section `space` (preset=small); may be repeated (default: what the networks use)",
    )
    networks.add_argument("--image-size", type=_positive, default=IMAGE_SIZE, metavar="S", help="default: 224")
    networks.add_argument("--channels", type=int, choices=(1, 3), default=3, help="default: 3")
    networks.add_argument("--classes", type=_positive, default=1000, help="default: 1000")
    networks.add_argument(
        "--to",
        choices=("text", "csv", "config", "yaml", "prenas"),
        default="text",
        help="text: a table to look at (default); csv: a table for `benchmark.table`; config: the section `space` with "
        "the choices of the file; yaml: AutoFormer's file of the one network; prenas: PreNAS's of all",
    )
    networks.add_argument("--output", type=Path, metavar="FILE", help="write to a file")
    onnx = commands.add_parser("onnx", help="an exported network as ONNX", description=_onnx.__doc__)
    onnx.set_defaults(run=_onnx)
    onnx.add_argument("folder", type=Path, metavar="FOLDER", help="such as results/digits/export/winner")
    onnx.add_argument("--output", type=Path, metavar="FILE.onnx", help="default: model.onnx in the folder")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return number


# The commands -----------------------------------------------------------------------------------------


def _score(arguments: argparse.Namespace) -> None:
    """Score one network, with its initial weights, on a class-balanced batch of images."""
    from libranas import engine, proxies

    names = proxies.list_proxies() if arguments.proxies is None else _names(arguments.proxies)
    names = proxies.with_parts(names)
    options = _options(arguments.option)
    device = _device(arguments.device)
    with _open_images(arguments.images) as source:
        items = _chosen(source, arguments.images, arguments.batch, arguments.seed)
        model, size, channels = _model(arguments, len(source.classes))
        inputs_BCSS, targets_B, normalisation = _batch(items, size, channels)
    import torch

    inputs, targets = torch.from_numpy(inputs_BCSS), torch.from_numpy(targets_B)
    with _explained(device, arguments.batch):
        model = model.to(device)
        outputs = _checked_outputs(model, inputs[:2].to(device), arguments.model, len(source.classes))
        card = engine.score(model, inputs, targets, names, arguments.seed, **options)
    if outputs > len(source.classes):
        note = f"the model has {outputs} outputs for {len(source.classes)} classes; the others are never a target"
        card = dataclasses.replace(card, warnings=(*card.warnings, note))
    report = _report(arguments, card, model, device, source.classes, inputs_BCSS.shape)
    try:
        if arguments.output:
            sha256 = hashlib.sha256(inputs_BCSS.astype("<f4").tobytes() + targets_B.astype("<i8").tobytes())
            conditions = {
                "model": _model_record(arguments.model),
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


def _libra(arguments: argparse.Namespace) -> None:
    """Choose three proxies from some accuracies of a table, and compare all ways of combining proxies on the others.
    A table of a published benchmark (SPACE-TASK.csv) also shows learners its architectures."""
    from libranas.combiners import COMBINERS
    from libranas.ensemble import choose_and_judge
    from libranas.published import read_table

    names = list(COMBINERS) if arguments.methods is None else arguments.methods.split(",")
    table = read_table(arguments.table, accuracy=arguments.accuracy, params=arguments.params)
    settings = {"mode": "corrected", "combiner": "libra_corrected", "window": 0.1, "duplicate": 0.98}
    settings |= {"calibration": arguments.labels, "splits": arguments.splits, "methods": names}
    judged = (table.score_AP, table.accuracy_A, table.params_A, settings, arguments.seed)
    verdict = choose_and_judge(*judged, table.feature_AF, table.network_A)
    methods = verdict.methods.sort_values("spearman", ascending=False)
    if arguments.output:
        write_text(arguments.output, methods.to_csv(index=False))
    for reason in verdict.choice["reasons"]:
        print(reason)
    rows = [
        (
            m.method,
            str(m.labels),
            *(f"{v:.3f}" for v in (m.spearman, m.low, m.high, m.kendall, m.p5)),
            f"{m.regret:.4g}",
        )
        if not m.lacks
        else (m.method, "", f"needs {m.lacks}", *[""] * 5)
        for m in methods.itertuples()
    ]
    head = ("method", "labels", "Spearman", "2.5 %", "97.5 %", "Kendall", "best 5 % found", "regret")
    print(f"\nMeans of {arguments.splits} splits, judged on the other architectures:\n")
    print(_table(head, rows, right={1, 2, 3, 4, 5, 6, 7}))


def _networks(arguments: argparse.Namespace) -> None:
    """Read networks and search spaces from files of AutoFormer, TF-TAS, AZ-NAS, PreNAS and ViT-Bench-101, count their
    parameters and MACs, and write them in another format."""
    from libranas import network_files as files

    content = files.read_file(arguments.file)
    settings = dict(_pair(pair, "--space") for pair in arguments.space)
    try:
        if arguments.to == "config":
            text = _space_section(files, content, arguments.file)
        else:
            task = arguments.image_size, arguments.channels, arguments.classes
            space = files.network_space(content, settings, *task)
            table = files.networks_table(content, space)
            archs = [space.parse(text) for text in table["architecture"]]
            text = _networks_text(files, arguments, space, archs, table)
    except LibranasError as error:
        raise LibranasError(f"{arguments.file}: {error.what}", error.todo) from None
    if arguments.output:
        write_text(arguments.output, text)
    else:
        print(text, end="" if text.endswith("\n") else "\n")


def _space_section(files, content, path: Path) -> str:
    settings = files.space_settings(content)
    if settings is None:
        raise LibranasError("there is no section SEARCH_SPACE.", "Only AutoFormer's YAML files have one.")
    return yaml.safe_dump({"space": settings}, sort_keys=False, default_flow_style=None)


def _networks_text(files, arguments: argparse.Namespace, space, archs: list, table) -> str:
    if arguments.to == "csv":
        return table.to_csv(index=False)
    if arguments.to == "prenas":
        if space.family != "autoformer":
            raise LibranasError(f"PreNAS has no networks of the family {space.family}.", "Use --to csv or yaml.")
        return files.prenas_json(space, archs)
    if arguments.to == "yaml":
        if len(archs) > 1:
            raise LibranasError(
                f"there are {len(archs)} networks, and AutoFormer's files hold one.", "Use --to csv or prenas."
            )
        return files.yaml_text(space, archs[0])
    names = list(table["name"]) if "name" in table else [arch.id for arch in archs]
    rows = []
    for name, arch in zip(names, archs, strict=True):
        genes = {gene: arch[gene] for gene in arch.genes}
        said = " ".join(f"{k} {','.join(f'{x:g}' for x in v) if isinstance(v, tuple) else v}" for k, v in genes.items())
        rows.append((name, f"{space.params(arch) / 1e6:.3f}", f"{space.macs(arch) / 1e9:.3f}", said))
    size = f"{arguments.image_size} px, {arguments.classes} classes"
    return _table(("network", "M params", "GMACs", f"genes ({size})"), rows, right={1, 2})


def _onnx(arguments: argparse.Namespace) -> None:
    """Write an exported network (timm local-dir) as ONNX, with a free batch size, and compare what ONNX Runtime and
    PyTorch make of random images. Needs `pip install libranas[onnx]`."""
    from libranas.export import export_onnx

    path = arguments.output or arguments.folder / "model.onnx"
    difference = export_onnx(arguments.folder, path)
    print(f"{path}: logits differ from PyTorch's by at most {difference:.1e}.")


def _proxies(arguments: argparse.Namespace) -> None:
    """List the proxies: the pass that each one needs, whether higher or lower is better, its title and source."""
    from libranas import proxies

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
        print(_table(head, rows))


# What is asked for ------------------------------------------------------------------------------------


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise LibranasError("--proxies names no proxy.", "`libranas proxies` lists them; the default is all.")
    return names


def _literal(text: str):
    """A value as YAML (and so JSON) reads it, or a tuple as Python writes it; what it cannot read is text."""
    try:
        return _numbers(yaml.safe_load(re.sub(r"^\((.*)\)$", r"[\1]", text.strip())))
    except yaml.YAMLError:
        return text


def _numbers(value):
    """YAML 1.1 takes 1e-3 for text: here it is a number."""
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _pair(text: str, where: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise LibranasError(f"{where} '{text}' is not of the form key=value.")
    return key.strip(), _literal(value)


def _options(pairs: Sequence[str]) -> dict:
    """Settings of the scoring call, each with a value that its type allows."""
    from libranas.proxies import Options

    kinds, options = typing.get_type_hints(Options), {}
    for pair in pairs:
        key, value = _pair(pair, "--option")
        if key not in kinds:
            close = difflib.get_close_matches(key, kinds, 1)
            raise LibranasError(
                f"--option {pair}: there is no option {key}.",
                f"Did you mean {close[0]}?" if close else f"Options: {', '.join(kinds)}.",
            )
        if typing.get_origin(kinds[key]) is tuple and isinstance(value, str):
            value = [part.strip() for part in value.split(",")]  # names need no brackets
        options[key] = value
    try:
        Options(**options)
    except ValueError as error:
        todo = "Values are written as in YAML: true, 8, [0.2, 0.8], null. See libranas.proxies.Options."
        raise LibranasError(f"--option {' '.join(pairs)}: {error}.", todo) from None
    return options


def _device(setting: str) -> str:
    import torch

    from libranas.train import pick_device

    if setting == "cuda" and not torch.cuda.is_available():
        raise LibranasError("--device cuda: PyTorch finds no GPU here.", "Use --device cpu or auto.")
    return pick_device(setting)


# Images -----------------------------------------------------------------------------------------------


@contextmanager
def _open_images(path: Path) -> Iterator[Source]:
    """Class folders or a tar of them; what the adapter says of the configuration is said of --images."""
    path = path.expanduser()
    if not path.exists():
        raise LibranasError(f"--images {path} does not exist.", f"Name {LAYOUTS['folder']}.")
    try:
        with ADAPTERS["folder"](path) as source:
            yield source
    except LibranasError as error:
        what = error.what.replace(" (data.adapter is 'folder')", "")
        raise LibranasError(what, re.sub("`data.path`( in the config)?", "`--images`", error.todo)) from error


def _chosen(source: Source, path: Path, batch: int, seed: int) -> list[Item]:
    """The images of the batch: training images, as many of each class as far as they go."""
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
    """The images, each channel normalised to mean 0 and deviation 1 over the batch.

    The statistics are those of the batch, since no other image is decoded.

    Returns
    -------
    inputs float32 (B, C, S, S), targets int64 (B,), and the mean and deviation of each channel (pixels in [0, 1])
    """
    images, broken = [], []
    for item in items:
        try:
            images.append(decode(item.load(), size, channels))
        except UnidentifiedImageError:  # its own message has an address in it
            broken.append(f"{item.source}: not an image file")
        except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
            broken.append(f"{item.source}: {getattr(error, 'strerror', None) or error}")
    if broken:
        names = "".join(f"\n     {reason}" for reason in broken[:10])
        what = f"{len(broken)} of the {len(items)} chosen images cannot be read:{names}"
        raise LibranasError(what, "Mend or remove them.")
    pixels_BSSC = np.stack(images) / 255
    mean_C, std_C = pixels_BSSC.mean((0, 1, 2)), pixels_BSSC.std((0, 1, 2))
    if not std_C.all():
        raise LibranasError(
            f"Channel {int(std_C.argmin())} is the same in every pixel of every chosen image.",
            "Check that `--images` holds the right images.",
        )
    inputs_BSSC = ((pixels_BSSC - mean_C) / std_C).astype(np.float32)
    targets_B = np.array([item.label for item in items], np.int64)
    statistics = {"mean": mean_C.tolist(), "std": std_C.tolist()}
    return np.ascontiguousarray(inputs_BSSC.transpose(0, 3, 1, 2)), targets_B, statistics


# Networks ---------------------------------------------------------------------------------------------


def _model(arguments: argparse.Namespace, classes: int) -> tuple:
    """The network with the initial weights of --init-seed, and the side and channels of its images."""
    import torch

    text: str = arguments.model
    path, colon, function = text.rpartition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.init_seed)
        if text.startswith("timm:"):
            model, size, channels = _timm_model(text.removeprefix("timm:"), arguments, classes)
        elif colon and path.endswith(".py"):
            model = _model_of_file(Path(path).expanduser(), function, classes)
            size, channels = arguments.image_size or IMAGE_SIZE, arguments.channels or 3
        elif NETWORK_FILE.match(text):
            size, channels = arguments.image_size or IMAGE_SIZE, arguments.channels or 3
            model = _published_model(text, arguments.init_seed, (size, channels, classes))
        else:
            raise LibranasError(
                f"--model {text} is neither timm:NAME nor PATH.py:FUNC, nor a .yaml or .json file.",
                "For example timm:vit_tiny_patch16_224, timm:resnet18 or networks/mine.py:build.",
            )
    if not isinstance(model, torch.nn.Module):
        raise LibranasError(f"--model {text} gave a {type(model).__name__}.", "It must return a torch.nn.Module.")
    if not any(p.numel() for p in model.parameters()):
        raise LibranasError(f"--model {text} has no parameters.", "Name a network with weights.")
    return model, size, channels


def _split(text: str) -> list[str]:
    """A name and the pairs key=value after it: a comma also separates the entries of a list, so it ends a value only
    before the next key."""
    return re.split(r",(?=\s*\w+\s*=)", text)


def _published_model(text: str, seed: int, task: tuple[int, int, int]):
    """The one network of a file of another project."""
    from libranas import network_files
    from libranas.nets import build

    path, *pairs = _split(text)
    content = network_files.read_file(Path(path).expanduser())
    try:
        space = network_files.network_space(content, dict(_pair(pair, f"--model {path}:") for pair in pairs), *task)
    except LibranasError as error:
        raise LibranasError(f"--model {path}: {error.what}", error.todo) from None
    return build(space, network_files.one_network(content, space, f"--model {path}"), seed)


def _timm_model(text: str, arguments: argparse.Namespace, classes: int) -> tuple:
    import timm

    import libranas.nets  # noqa: F401 - registers our models with timm

    name, *pairs = _split(text)
    given = dict(_pair(pair, f"--model timm:{text}:") for pair in pairs)
    kind = name.split(".")[0]
    if ":" not in name and not timm.is_model(kind):  # with a colon: local-dir: or hf-hub:
        close = _similar(kind, timm.list_models())
        todo = f"Close matches: {', '.join(close)}." if close else "timm.list_models() lists all names."
        raise LibranasError(f"timm {timm.__version__} has no model '{name}'.", todo)
    known = timm.get_pretrained_cfg(kind) if ":" not in name else None
    if arguments.image_size and known and known.fixed_input_size:
        given.setdefault("img_size", arguments.image_size)
    if arguments.channels:
        given.setdefault("in_chans", arguments.channels)
    try:
        model = timm.create_model(name, **{"pretrained": False, "num_classes": classes, **given})
    except Exception as error:  # any argument can be wrong in any way
        raise LibranasError(
            f"timm cannot make {text} with {classes} classes: {type(error).__name__}: {error}.",
            f"Check the arguments that timm's {kind} takes.",
        ) from error
    channels, *sides = model.pretrained_cfg["input_size"]
    size = arguments.image_size or np.max(given.get("img_size") or sides).item()
    return model, size, given.get("in_chans") or channels


def _similar(name: str, names: Sequence[str]) -> list[str]:
    """Up to five names like this one, or that begin like it: timm's names have long endings."""

    def ratio(other: str) -> float:
        return max(difflib.SequenceMatcher(None, name, o).ratio() for o in (other, other[: len(name)]))

    ratios = {other: ratio(other) for other in names}
    return sorted((o for o in names if name and ratios[o] > 0.6), key=lambda o: -ratios[o])[:5]


def _model_of_file(path: Path, function: str, classes: int):
    """What the function of the file returns; it is given the number of classes if it takes an argument."""
    if not path.is_file():
        raise LibranasError(f"--model: {path} does not exist.", "Name a Python file and a function: PATH.py:FUNC.")
    with _blame(path, "cannot be imported"):
        spec = importlib.util.spec_from_file_location(f"libranas_model_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pickles look there
        sys.path.insert(0, str(path.resolve().parent))  # as `python PATH.py` has it, for its neighbours
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.pop(0)
    build = getattr(module, function, None)
    if not callable(build):
        callables = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        close = difflib.get_close_matches(function, callables, 3, 0.4)
        raise LibranasError(
            f"--model: {path} has no function '{function}'.",
            f"Close matches: {', '.join(close)}." if close else f"It has: {', '.join(callables) or 'none'}.",
        )
    with _blame(path, f"{function} failed"):
        return _called(build, classes)


def _called(build: Callable, classes: int):
    kinds = {name: p.kind for name, p in inspect.signature(build).parameters.items()}
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    if kinds.get("num_classes", inspect.Parameter.POSITIONAL_ONLY) != inspect.Parameter.POSITIONAL_ONLY:
        return build(num_classes=classes)
    if positional & set(kinds.values()):
        return build(classes)
    if inspect.Parameter.VAR_KEYWORD in kinds.values():  # torchvision's functions take it so
        return build(num_classes=classes)
    return build()


@contextmanager
def _blame(path: Path, problem: str) -> Iterator[None]:
    """Turn whatever the user's file raises into one message that names the line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f", line {f.lineno}" for f in frames if Path(f.filename).resolve() == path.resolve()]
        raise LibranasError(
            f"--model: {path}{lines[-1] if lines else ''}: {problem}: {type(error).__name__}: {error}.",
            "The function is called with the number of classes if it takes an argument.",
        ) from error


def _checked_outputs(model, inputs, text: str, classes: int) -> int:
    """Number of logits K; an error if the network does not make (B, K) of these images (B, C, S, S)."""
    import torch

    shape = tuple(inputs.shape)
    try:
        with torch.no_grad(), torch.random.fork_rng():
            logits = model.eval()(inputs)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise LibranasError(
            f"--model {text} does not take images of shape {shape}: {type(error).__name__}: {error}.",
            "Change --image-size or --channels, or the model.",
        ) from error
    found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if isinstance(found, str) or len(found) != 2 or len(logits) != len(inputs):
        raise LibranasError(
            f"--model {text} returns {found} for images of shape {shape}; expected are logits of shape (B, K).",
            "Wrap the network so that it returns logits.",
        )
    if logits.shape[1] < classes:
        raise LibranasError(
            f"--model {text} has {logits.shape[1]} outputs, but the images have {classes} classes.",
            "Make the network for this number of classes, or leave class folders out.",
        )
    return logits.shape[1]


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


def _model_record(text: str) -> dict:
    """Names the network in the conditions: without folders, but a file with its hash."""
    if text.startswith("timm:"):
        return {"name": text}
    if NETWORK_FILE.match(text):
        name, *pairs = _split(text)
        path = Path(name).expanduser()
        return {"name": ",".join([path.name, *pairs]), "sha256": file_sha256(path)}
    path, _, function = text.rpartition(":")
    path = Path(path).expanduser()
    return {"name": f"{path.name}:{function}", "sha256": file_sha256(path)}


# Printing ---------------------------------------------------------------------------------------------


def _report(arguments: argparse.Namespace, card: ScoreCard, model, device: str, classes: list[str], shape) -> str:
    from libranas import proxies

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
            _table(("proxy", "value", "orientation", "pass", "seconds"), rows, right={1, 4}),
            *(["", "Undefined for this network:", *undefined] if undefined else []),
            "",
            "Proxies of a pass share one run of the network; their seconds are those of the pass. "
            + ("Peak: memory of the whole process." if device == "cpu" else "Peak: memory of the GPU."),
            _table(("pass", "seconds", "peak MB"), costs, right={1, 2}),
            "",
            f"{len(card.excluded)} parameter tensors ({sum(sizes[n] for n in card.excluded)} parameters) belong to no "
            "layer (biases, norms, embeddings): proxies of layers leave them out.",
            *(f"Warning: {sentence}" for sentence in card.warnings),
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], right: set[int] = frozenset()) -> str:
    """Columns two spaces apart; those of `right` are set flush right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        cells = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _better(proxy) -> str:
    """The orientation in words: which values promise a better network."""
    return "higher" if proxy.orientation > 0 else "lower"


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def _megabytes(size: float) -> str:
    return "-" if math.isnan(size) else f"{size / 1e6:.0f}"
