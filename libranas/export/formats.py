"""Write an exported network as ONNX, torch.export or a state dict; each is loaded back and compared."""

import importlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from libranas.core.errors import LibranasError
from libranas.core.files import atomic_path
from libranas.export.comparison import TOLERANCE, NotExported, reason
from libranas.export.timm import load_folder

log = logging.getLogger("libranas")


def export_as(folder: Path, kind: str, path: Path) -> float:
    """Write the network of a timm ``local-dir`` in another format: :func:`write_as` of what is loaded."""
    for package in FORMATS[kind][1]:
        try:
            importlib.import_module(package)
        except ImportError:
            raise LibranasError(
                f"Export as {kind} needs the package {package}.", "Install it: pip install 'libranas[onnx]'."
            ) from None
    return write_as(*load_folder(Path(folder)), kind, Path(path))


def write_as(model: nn.Module, size: tuple[int, int, int], kind: str, path: Path) -> float:
    """Write a network, which is in evaluation mode, in a format; :data:`FORMATS` names them.

    ``onnx``
        For ONNX Runtime, float32, any batch size.
    ``pt2``
        A program of ``torch.export``, for PyTorch without timm and this package; any batch size.
    ``pth``
        The state dict alone, for ``torch.load(..., weights_only=True)``.

    The file appears only when what was read back gives the network's logits, for other batches than the exporter saw.

    Parameters
    ----------
    size : C, H, W of its images

    Returns
    -------
    Largest difference of a logit, on random images

    Raises
    ------
    NotExported
        If the format has no such network, or the logits differ.
    """
    with atomic_path(path) as new:
        try:
            read_back = FORMATS[kind][0](model, new, size)
            difference = scale = 0.0
            for batch in (1, 3):
                images = torch.randn(batch, *size, generator=torch.Generator().manual_seed(batch))
                with torch.inference_mode():
                    ours, theirs = model(images), read_back(images)
                difference = max(difference, (ours - theirs).abs().max().item())
                scale = max(scale, ours.abs().max().item())
        except (OSError, LibranasError):
            raise
        except Exception as error:  # the exporters have many of their own
            others = " or ".join(f"--to {other}" for other in FORMATS if other != kind)
            raise NotExported(
                f"{type(model).__name__} cannot be written as {kind}: {reason(error)}.",
                f"Use another format: {others}.",
            ) from error
        if not difference <= TOLERANCE * max(1.0, scale):
            raise NotExported(
                f"The logits of {path} as {kind} differ from PyTorch's by {difference:.3g}.",
                "Do not use this export; please report it.",
            )
    return difference


def write_program(model: nn.Module, size: tuple[int, int, int], path: Path) -> bool:
    """Write a network that timm does not load as ``pt2``; False, with a warning, if that is not possible either."""
    try:
        write_as(model, size, "pt2", path)
    except NotExported as error:
        log.warning("%s Its weights alone are kept.", error.what)
        return False
    return True


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
    if not all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items()):
        raise LibranasError(f"The state dict in {path} does not load back bit-equal.", "Please report it.")
    return lambda images: torch.func.functional_call(model, loaded, (images,))


#: Kind of a file to what writes it and returns the network that was read back, and the packages that needs.
FORMATS = {
    "onnx": (_write_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "pt2": (_write_program, ()),
    "pth": (_write_state, ()),
}
