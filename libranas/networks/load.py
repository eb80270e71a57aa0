"""Load a network that a command names: of timm, of a Python file, of a search space, of a file of another project."""

import difflib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from libranas.core.errors import LibranasError
from libranas.core.files import user_path
from libranas.core.provenance import file_sha256
from libranas.core.text import key_value, split
from libranas.spaces import FAMILIES, make_space

#: Side of the images where neither the command nor the model says one.
IMAGE_SIZE = 224

#: Name, keys and string of a member of a space: ``nasbench201,width=8:|nor_conv_3x3~0|+...``.
MEMBER = re.compile(r"([\w-]+)((?:,[^:]*)?):(.*)", re.DOTALL)
#: A file of networks as the model, perhaps with keys of the space: ``net.yaml,patch_size=8``.
NETWORK_FILE = re.compile(r"(.+?\.(?:yaml|yml|json))((?:,\s*\w+\s*=.*)?)", re.DOTALL)


class Wanted(NamedTuple):
    """Settings that were asked for besides the name of the network; None: as the network has it."""

    classes: int
    seed: int = 0
    image_size: int | None = None
    channels: int | None = None
    drop_path: float | None = None
    fused: bool = False  # attention, for training


def model_of(text: str, wanted: Wanted) -> tuple:
    """Build the network that `text` names, with initial weights; also return side and channels of its images."""
    import torch

    path, colon, function = text.rpartition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(wanted.seed)
        folder = text.removeprefix("timm:local-dir:")
        if _is_export(folder):
            model, size, channels = _timm_model(f"local-dir:{user_path(folder)}", [], wanted)
        elif text.startswith("timm:"):
            name, *pairs = split(text.removeprefix("timm:"))
            model, size, channels = _timm_model(name, pairs, wanted)
        elif colon and path.endswith(".py"):
            model = _model_of_file(user_path(path), function, wanted.classes)
            size, channels = wanted.image_size or IMAGE_SIZE, wanted.channels or 3
        elif match := _member_of_space(text):
            size = wanted.image_size or FAMILIES[match[1]].image_size
            channels = wanted.channels or 3
            model = _member(text, match, wanted, (size, channels, wanted.classes))
        elif match := NETWORK_FILE.fullmatch(text):
            model, size, channels = _published_model(match[1], split(match[2])[1:], wanted)
        else:
            raise LibranasError(
                f"--model {text} is neither timm:NAME nor PATH.py:FUNC, nor a .yaml or .json file.",
                "For example timm:vit_tiny_patch16_224, networks/mine.py:build, results/RUN/export/winner.",
            )
    if not isinstance(model, torch.nn.Module):
        raise LibranasError(f"--model {text} gave a {type(model).__name__}.", "It must return a torch.nn.Module.")
    if lazy := [name for name, p in model.named_parameters() if torch.nn.parameter.is_lazy(p)]:
        raise LibranasError(
            f"--model {text}: the parameter {lazy[0]} has no shape yet.",
            "Run the network once on images in the function, before it is returned.",
        )
    if not any(p.numel() for p in model.parameters()):
        raise LibranasError(f"--model {text} has no parameters.", "Name a network with weights.")
    return model, size, channels


def _member_of_space(text: str) -> re.Match | None:
    match = MEMBER.fullmatch(text)
    return match if match and match[1] in FAMILIES else None


def _is_export(text: str) -> bool:
    return os.path.isfile(user_path(text) / "config.json")  # no error for a text that is no path


def _published_model(path: str, pairs: Sequence[str], wanted: Wanted) -> tuple:
    """Build the one network of a file of another project."""
    from libranas.networks import build
    from libranas.spaces import file_formats as network_files

    content = network_files.read_file(user_path(path))
    settings = dict(key_value(pair, f"--model {path}:") for pair in pairs)
    try:
        space = network_files.network_space(content, settings, wanted.image_size, wanted.channels, wanted.classes)
    except LibranasError as error:
        raise LibranasError(f"--model {path}: {error.what}", error.todo) from None
    arch = network_files.one_network(content, space, f"--model {path}")
    return (
        build(space, arch, wanted.seed, wanted.drop_path or 0.0, wanted.fused, timm=wanted.fused),
        space.image_size,
        space.channels,
    )


def _member(text: str, match: re.Match, wanted: Wanted, task: tuple[int, int, int]):
    """Build a member of a search space, by its string in the original benchmark or as canonical JSON."""
    from libranas.networks import build

    family, keys, string = match.groups()
    settings = dict(key_value(pair, f"--model {family}:") for pair in split(keys)[1:]) if keys else {}
    try:
        space = make_space({"family": family, **settings}, *task)
    except (LibranasError, TypeError) as error:  # TypeError: choices that are no numbers
        what, todo = (error.what, error.todo) if isinstance(error, LibranasError) else (f"{error}.", "")
        raise LibranasError(f"--model {text}: {what}", f"{todo} See `space` in config/schema.yaml.".strip()) from None
    try:
        return build(space, space.parse(string), wanted.seed, wanted.drop_path or 0.0, wanted.fused, timm=wanted.fused)
    except ValueError:
        raise LibranasError(f"--model {text} is no member of {space}.", "Give other keys of the space.") from None


def _timm_model(name: str, pairs: Sequence[str], wanted: Wanted) -> tuple:
    import timm
    from timm.layers import DropPath

    import libranas.networks.timm_models  # noqa: F401 - registers our models with timm

    given = dict(key_value(pair, f"--model timm:{name}:") for pair in pairs)
    kind = name.split(".")[0]
    if ":" not in name and not timm.is_model(kind):  # with a colon: local-dir: or hf-hub:
        close = _similar(kind, timm.list_models())
        todo = f"Close matches: {', '.join(close)}." if close else "timm.list_models() lists all names."
        raise LibranasError(f"timm {timm.__version__} has no model '{name}'.", todo)
    known = timm.get_pretrained_cfg(kind) if ":" not in name else None
    if wanted.image_size and known and known.fixed_input_size:
        given.setdefault("img_size", wanted.image_size)
    if wanted.channels:
        given.setdefault("in_chans", wanted.channels)
    chosen = "drop_path_rate" in given
    if wanted.drop_path:
        given.setdefault("drop_path_rate", wanted.drop_path)
    try:
        model = timm.create_model(name, **{"pretrained": False, "num_classes": wanted.classes, **given})
        if wanted.drop_path == 0 and not chosen:  # over the rate of a file or of timm's defaults
            for module in model.modules():
                if isinstance(module, DropPath):
                    module.drop_prob = 0.0
    except Exception as error:  # any argument can be wrong in any way
        raise LibranasError(
            f"timm cannot make {','.join([name, *pairs])} with {wanted.classes} classes: "
            f"{type(error).__name__}: {error}.",
            "Check the folder and its config.json."
            if ":" in name
            else f"Check the arguments that timm's {kind} takes.",
        ) from error
    channels, *sides = model.pretrained_cfg["input_size"]
    size = wanted.image_size or np.max(given.get("img_size") or sides).item()
    return model, size, given.get("in_chans") or channels


def _similar(name: str, names: Sequence[str]) -> list[str]:
    """Return up to five names like this one, or that begin like it: timm's names have long endings."""
    if not name:
        return []
    beginnings = {other[: len(name)]: other for other in reversed(names)}
    close = [beginnings[begin] for begin in difflib.get_close_matches(name, beginnings, 5)]
    return list(dict.fromkeys([*close, *difflib.get_close_matches(name, names, 5)]))[:5]


def _model_of_file(path: Path, function: str, classes: int):
    """Call the function of the file, with the number of classes if it takes an argument."""
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


def checked_outputs(model, inputs, text: str, classes: int, training: bool = False) -> int:
    """Return the number of logits K; an error if the network does not make (B, K) of these images (B, C, S, S).

    `training`: in training mode, in which it is left; its buffers stay as they were.
    """
    import torch

    shape, kept = tuple(inputs.shape), [buffer.clone() for buffer in model.buffers()]
    try:
        with torch.no_grad(), torch.random.fork_rng():
            precision = next((p.dtype for p in model.parameters() if p.is_floating_point()), inputs.dtype)
            logits = model.train(training)(inputs.to(precision))
            for buffer, value in zip(model.buffers(), kept, strict=False):  # running statistics
                buffer.copy_(value)
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
            f"Wrap the network so that it returns logits{' in training too' if training else ''}.",
        )
    if logits.shape[1] < classes:
        raise LibranasError(
            f"--model {text} has {logits.shape[1]} outputs, but the images have {classes} classes.",
            "Make the network for this number of classes, or leave class folders out.",
        )
    return logits.shape[1]


def model_record(text: str) -> dict:
    """Name the network for the conditions: without folders, but a file with its hash."""
    if text.startswith("timm:") or _member_of_space(text):
        return {"name": text}
    if _is_export(text):
        path = user_path(text)
        return {"name": path.resolve().name, "sha256": file_sha256(path / "config.json")}
    if match := NETWORK_FILE.fullmatch(text):
        path = user_path(match[1])
        return {"name": path.name + match[2], "sha256": file_sha256(path)}
    path, _, function = text.rpartition(":")
    path = user_path(path)
    return {"name": f"{path.name}:{function}", "sha256": file_sha256(path)}
