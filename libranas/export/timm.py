"""Export a trained network in timm's own format; it is loaded back and compared before it appears."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf
from torch import nn

import libranas.networks.timm_models  # noqa: F401 - registers the architectures with timm
from libranas.core.errors import LibranasError


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
    crop_pct, interpolation : how test images were cropped (share of the resized image) and resized
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
    if not equal_tensors(model.state_dict(), loaded.state_dict()):
        raise LibranasError(
            f"The network exported to {new} does not load back bit-equal.",
            "Do not use this export; please report it.",
        )
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def equal_tensors(ours: Mapping, theirs: Mapping) -> bool:
    """Return whether two state dicts are equal to the bit."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def load_folder(folder: Path) -> tuple[nn.Module, tuple[int, int, int]]:
    """Load the network of a timm ``local-dir``, in evaluation mode; returns it and the size (C, H, W) of its images."""
    if not (Path(folder) / "config.json").is_file():
        raise LibranasError(f"{folder} is no exported network.", "Name a folder such as results/digits/export/winner.")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return model, tuple(model.pretrained_cfg["input_size"])


def push(folder: Path, repository: str) -> str:
    """Upload an exported folder to a private repository (``USER/NAME``, made if it is missing); returns its address.

    Besides this, only the weights of a teacher (``libranas train``) come over the network. The account is that of
    ``hf auth login``.
    """
    from huggingface_hub import HfApi

    load_folder(folder)
    try:
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Upload from libranas")
    except Exception as error:  # the client has many of its own
        raise LibranasError(
            f"{folder} was not uploaded to {repository}: {error}.",
            "Log in with `hf auth login`, and name a repository of yours: USER/NAME.",
        ) from error
    return f"https://huggingface.co/{repository}"
