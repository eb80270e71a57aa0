"""Exports a trained network in timm's own format and proves that it comes back bit-equal."""

import json
import shutil
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf
from torch import nn

from libranas.errors import LibranasError


def export_timm(model: nn.Module, folder: Path, image_size: int, classes: list[str], mean, std, card: str) -> None:
    """Write `model` to `folder` as a timm ``local-dir``: config.json, model.safetensors, README.md.

    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads it, after ``import libranas.nets``. The folder
    appears only when its weights were loaded back and found bit-equal; else LibranasError.

    Parameters
    ----------
    image_size : pixels a side
    classes : names of the classes, in the order of the logits
    mean, std : statistics the images were normalised with, by channel
    card : text of the model card
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
    (new / "README.md").write_text(card, encoding="utf-8")
    loaded = timm.create_model(f"local-dir:{new}", pretrained=True).eval()
    ours, theirs = model.state_dict(), loaded.state_dict()
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[k], theirs[k]) for k in ours):
        raise LibranasError(
            f"The network exported to {new} does not load back bit-equal.",
            "Do not use this export; please report it.",
        )
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


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
