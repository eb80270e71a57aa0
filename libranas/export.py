"""Exports a trained network in timm's own format and proves that it comes back bit-equal; from there to ONNX."""

import importlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf
from torch import nn

import libranas.nets  # noqa: F401 - registers the architectures with timm
from libranas.errors import LibranasError

#: Largest difference of a logit, in units of the largest one, between ONNX Runtime and PyTorch that an export may have.
ONNX_TOLERANCE = 1e-3


def export_timm(
    model: nn.Module,
    folder: Path,
    image_size: int,
    classes: list[str],
    mean,
    std,
    card: str,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Write `model` to `folder` as a timm ``local-dir``: config.json, model.safetensors, README.md.

    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads it, after ``import libranas.nets``. The folder
    appears only when its weights were loaded back and found bit-equal; else LibranasError.

    Parameters
    ----------
    image_size : pixels a side
    classes : names of the classes, in the order of the logits
    mean, std : statistics the images were normalised with, by channel
    card : text of the model card
    extra : texts of further files, by name
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
            "input_size": (model.in_chans, image_size, image_size),
            "mean": tuple(mean),
            "std": tuple(std),
        },
    )
    for name, text in {"README.md": card, **(extra or {})}.items():
        (new / name).write_text(text, encoding="utf-8")
    loaded = timm.create_model(f"local-dir:{new}", pretrained=True).eval()
    ours, theirs = model.state_dict(), loaded.state_dict()
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[k], theirs[k]) for k in ours):
        raise LibranasError(
            f"The network exported to {new} does not load back bit-equal.",
            "Do not use this export; please report it.",
        )
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def export_onnx(folder: Path, path: Path) -> float:
    """Write the network of a timm ``local-dir`` to `path` as ONNX, with a free batch size, in float32.

    The file appears only if ONNX Runtime computes the network's logits from it, for another batch than the exporter
    saw.

    Returns
    -------
    Largest difference of a logit between ONNX Runtime and PyTorch, on random images

    Raises
    ------
    LibranasError
        If a package or the folder is missing, or the logits differ.
    """
    folder, path = Path(folder), Path(path)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise LibranasError(
                f"ONNX export needs the package {package}.", "Install it: pip install 'libranas[onnx]'."
            ) from None
    if not (folder / "config.json").is_file():
        raise LibranasError(f"{folder} is no exported network.", "Name a folder such as results/digits/export/winner.")
    from timm.utils.onnx import onnx_export, onnx_forward

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    size = tuple(model.pretrained_cfg["input_size"])
    new = path.with_name(f".{path.name}.new")
    try:
        onnx_export(model, str(new), batch_size=2, input_size=size, use_dynamo=True)
        images = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            ours = model(images)
        theirs = torch.from_numpy(onnx_forward(str(new), images))
        difference = (ours - theirs).abs().max().item()
        if not difference <= ONNX_TOLERANCE * ours.abs().max().item():
            raise LibranasError(
                f"ONNX Runtime's logits for {folder} differ from PyTorch's by {difference:.3g}.",
                "Do not use this export; please report it.",
            )
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    return difference


def model_card(title: str, arch: dict, facts: dict) -> str:
    """A short model card in Markdown: how to load the network, its architecture and conditions."""
    return f"""# {title}

Found by libranas (zero-shot neural architecture search: L-SWAG and LIBRA-NAS, CVPR 2025).

```python
import timm
import libranas.nets  # registers the architecture with timm

model = timm.create_model("local-dir:PATH-OF-THIS-FOLDER", pretrained=True).eval()
```

Architecture:

```json
{json.dumps(arch, indent=2)}
```

Conditions:

```json
{json.dumps(facts, indent=2)}
```
"""
