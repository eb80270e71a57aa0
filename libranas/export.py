"""Exports of a trained network, each loaded back and compared before it appears: timm's own format, and from there a
plain state dict, ONNX and a program of ``torch.export``; and the model card."""

import importlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path

import timm
import torch
import yaml
from timm.models import save_for_hf
from torch import nn

import libranas.nets  # noqa: F401 - registers the architectures with timm
from libranas.errors import LibranasError

#: Largest difference of a logit from PyTorch's, in units of the largest logit (or of 1), that an export may have.
TOLERANCE = 1e-5


def export_timm(
    model: nn.Module,
    folder: Path,
    image_size: int,
    classes: list[str],
    mean,
    std,
    card: str,
    extra: Mapping[str, str] | None = None,
    crop_pct: float = 1.0,
    interpolation: str = "bicubic",
) -> None:
    """Write `model` to `folder` as a timm ``local-dir``: config.json, model.safetensors, README.md.

    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads it, after ``import libranas.nets``. The folder
    appears only when its weights were loaded back and found bit-equal; else LibranasError.

    Parameters
    ----------
    model : one that ``timm.create_model`` made
    image_size : pixels a side
    classes : names of the classes, in the order of the logits
    mean, std : statistics the images were normalised with, by channel
    card : text of the model card
    extra : texts of further files, by name
    crop_pct, interpolation : share of the resized image that was looked at in testing, and of resizing
    """
    folder = Path(folder)
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    model = model.cpu().eval()
    save_for_hf(
        model,
        str(new),
        model_config={"label_names": list(classes)},
        safe_serialization=True,
        data_config={
            "input_size": (len(mean), image_size, image_size),
            "mean": tuple(mean),
            "std": tuple(std),
            "crop_pct": crop_pct,
            "interpolation": interpolation,
        },
    )
    for name, text in {"README.md": card, **(extra or {})}.items():
        (new / name).write_text(text, encoding="utf-8")
    loaded = timm.create_model(f"local-dir:{new}", pretrained=True).eval()
    if not _equal(model.state_dict(), loaded.state_dict()):
        raise LibranasError(
            f"The network exported to {new} does not load back bit-equal.",
            "Do not use this export; please report it.",
        )
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def _equal(ours: Mapping, theirs: Mapping) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def export_as(folder: Path, kind: str, path: Path) -> float:
    """Write the network of a timm ``local-dir`` in another format; :data:`FORMATS` names them.

    ``onnx``
        For ONNX Runtime, float32, any batch size.
    ``pt2``
        A program of ``torch.export``, for PyTorch without timm and this package; any batch size.
    ``pth``
        The state dict alone, for ``torch.load(..., weights_only=True)``.

    The file appears only when what was read back gives the network's logits, for other batches than the exporter saw.

    Returns
    -------
    Largest difference of a logit, on random images

    Raises
    ------
    LibranasError
        If a package or the folder is missing, or the logits differ.
    """
    folder, path = Path(folder), Path(path)
    write, packages = FORMATS[kind]
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError:
            raise LibranasError(
                f"Export as {kind} needs the package {package}.", "Install it: pip install 'libranas[onnx]'."
            ) from None
    model, size = load_folder(folder)
    with _appears(path) as new:
        read_back = write(model, new, size)
        difference = scale = 0.0
        for batch in (1, 3):
            images = torch.randn(batch, *size, generator=torch.Generator().manual_seed(batch))
            with torch.inference_mode():
                ours, theirs = model(images), read_back(images)
            difference = max(difference, (ours - theirs).abs().max().item())
            scale = max(scale, ours.abs().max().item())
        if not difference <= TOLERANCE * max(1.0, scale):
            raise LibranasError(
                f"The logits of {folder} as {kind} differ from PyTorch's by {difference:.3g}.",
                "Do not use this export; please report it.",
            )
    return difference


def load_folder(folder: Path) -> tuple[nn.Module, tuple[int, int, int]]:
    """The network of a timm ``local-dir``, in evaluation mode, and the size (C, H, W) of its images."""
    if not (Path(folder) / "config.json").is_file():
        raise LibranasError(f"{folder} is no exported network.", "Name a folder such as results/digits/export/winner.")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return model, tuple(model.pretrained_cfg["input_size"])


@contextmanager
def _appears(path: Path):
    new = path.with_name(f".{path.stem}.new{path.suffix}")  # exporters look at the suffix
    try:
        yield new
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def _write_onnx(model: nn.Module, path: Path, size: tuple) -> Callable:
    from timm.utils.onnx import onnx_export, onnx_forward

    onnx_export(model, str(path), batch_size=2, input_size=size, use_dynamo=True)
    return lambda images: torch.from_numpy(onnx_forward(str(path), images))


def _write_program(model: nn.Module, path: Path, size: tuple) -> Callable:
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (torch.zeros(2, *size),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return torch.export.load(path).module()


def _write_state(model: nn.Module, path: Path, size: tuple) -> Callable:
    torch.save(model.state_dict(), path)
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not _equal(model.state_dict(), loaded):
        raise LibranasError(f"The state dict in {path} does not load back bit-equal.", "Please report it.")
    return lambda images: torch.func.functional_call(model, loaded, (images,))


#: Kind of a file to what writes it and returns the network that was read back, and the packages that needs.
FORMATS = {
    "onnx": (_write_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "pt2": (_write_program, ()),
    "pth": (_write_state, ()),
}


def push(folder: Path, repository: str, private: bool = True) -> str:
    """Upload an exported folder to the Hugging Face hub (``USER/NAME``, made if it is not there); returns its address.

    Besides this, only the weights of a teacher (``libranas train``) come over the network. The account is that of
    ``hf auth login``.
    """
    from huggingface_hub import HfApi

    load_folder(folder)
    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Upload from libranas")
    except Exception as error:  # the client has many of its own
        raise LibranasError(
            f"{folder} was not uploaded to {repository}: {error}.",
            "Log in with `hf auth login`, and name a repository of yours: USER/NAME.",
        ) from error
    return f"https://huggingface.co/{repository}"


# The model card ---------------------------------------------------------------------------------------


def model_card(
    title: str,
    network: Mapping,
    accuracy: Mapping,
    data: Mapping,
    recipe: Mapping,
    facts: Mapping,
    proxies: Mapping[str, float] | None = None,
    licence: str | None = None,
) -> str:
    """The model card in Markdown, with the header that the Hugging Face hub reads.

    Parameters
    ----------
    network : what it is: parameters, MACs, architecture
    accuracy : test accuracy with its interval, images, seeds
    data : name, classes, images of each split
    recipe : every hyperparameter
    facts : of :func:`libranas.provenance.facts`
    proxies : scores of the untrained network; None: it was not scored
    licence : of the weights; None: not stated
    """
    header = {
        "library_name": "timm",
        "tags": ["image-classification", "timm", "neural-architecture-search", "libranas"],
        **({"license": licence} if licence else {}),
    }
    hardware = ", ".join(facts["gpu"]) or f"{facts['cpu']}, {facts['cores']} cores"
    versions = ", ".join(f"{k} {facts['packages'][k]}" for k in ("torch", "timm") if k in facts["packages"])
    scores = "\n".join(["| proxy | score |", "|---|---|", *(f"| {k} | {v:.6g} |" for k, v in (proxies or {}).items())])
    return f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---
# {title}

Trained with libranas (zero-shot neural architecture search: L-SWAG and LIBRA-NAS, CVPR 2025).

```python
import timm
import libranas.nets  # registers its own architectures with timm

model = timm.create_model("local-dir:PATH-OF-THIS-FOLDER", pretrained=True).eval()
```

## Accuracy

{_listing(accuracy)}

## Network

{_listing(network)}

## Data

{_listing(data)}

## Scores of the untrained network

{scores if proxies else "It was not scored."}

## Recipe

```yaml
{yaml.safe_dump(dict(recipe), sort_keys=False, default_flow_style=None).strip()}
```

## Conditions

{hardware}; Python {facts["python"]}, {versions}; libranas {facts["libranas"]}, commit {facts["commit"] or "unknown"}; \
{facts["time"]}.

## Licence

{licence or "Not stated: it depends on the images, which the licence of libranas (Apache-2.0) does not cover."}
"""


def _listing(facts: Mapping) -> str:
    """A point a fact; structures as JSON."""
    values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}
    return "\n".join(f"* {name}: {value}" for name, value in values.items())
