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
from libranas.core.files import disk_error
from libranas.export.comparison import NotExported, difference, reason, record, record_of


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
    fresh: bool = True,
) -> None:
    """Write `model` to `folder` as a timm ``local-dir``: config.json, model.safetensors, README.md.

    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads it, after ``import libranas.nets``. The folder
    appears only when what was loaded back has the same weights to the bit and computes the same; else NotExported
    names what differs, and no older export is left.

    Parameters
    ----------
    model : one that ``timm.create_model`` made; it comes to the CPU, in evaluation mode
    image_size : pixels a side
    classes : names of the classes, in the order of the logits
    mean, std : statistics the images were normalised with, by channel
    card : text of the model card
    extra : texts of further files, by name
    crop_pct, interpolation : how test images were cropped (share of the resized image) and resized
    fresh : load it in a process of its own. False is enough where only this package and timm made the network.
    """
    folder, size = Path(folder), (len(mean), image_size, image_size)
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    model = model.cpu().to(memory_format=torch.contiguous_format).eval()
    if not hasattr(model, "pretrained_cfg"):
        shutil.rmtree(folder, ignore_errors=True)
        raise NotExported(f"{type(model).__name__} is not made by timm.", "Use its weights with your own code.")
    try:
        ours = record(model, size)
        if getattr(model, "num_classes", None) != (outputs := len(ours["logits"][0])):
            model.num_classes = outputs  # of a head that was put in afterwards
        save_for_hf(
            model,
            str(new),
            model_config={"label_names": list(classes)},
            safe_serialization=True,
            data_config={
                "input_size": size,
                "mean": tuple(mean),
                "std": tuple(std),
                "crop_pct": crop_pct,
                "interpolation": interpolation,
            },
        )
        for name, text in {"README.md": card, **(extra or {})}.items():
            (new / name).write_text(text, encoding="utf-8")
        problem = difference(ours, record_of(new, fresh))
    except OSError as error:
        raise disk_error(error, folder) from error
    except Exception as error:  # timm and the network have many of their own
        problem = reason(error)
    if problem:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)  # an older export is not of these weights
    if problem:
        raise NotExported(
            f"{type(model).__name__} cannot be exported for timm: {problem}.",
            "timm builds a network from its name and the arguments of timm.create_model: give a change as an argument, "
            "as a plain value (act_layer='relu'), where there is one. Otherwise use the weights with your own code.",
        )
    new.rename(folder)


def load_folder(folder: Path) -> tuple[nn.Module, tuple[int, int, int]]:
    """Load the network of a timm ``local-dir``, in evaluation mode; returns it and the size (C, H, W) of its images."""
    if not (Path(folder) / "config.json").is_file():
        raise LibranasError(f"{folder} is no exported network.", "Name a folder such as results/digits/export/winner.")
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except Exception as error:  # timm has many of its own
        raise LibranasError(
            f"timm cannot load the network in {folder}: {type(error).__name__}: {error}.",
            "Export it anew; a network registered with timm by another package needs that package.",
        ) from error
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
