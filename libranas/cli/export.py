"""``libranas onnx``: exported networks in other formats."""

import argparse
from pathlib import Path


def add(commands) -> None:
    onnx = commands.add_parser("onnx", help="an exported network as ONNX", description=_onnx.__doc__)
    onnx.set_defaults(run=_onnx)
    onnx.add_argument("folder", type=Path, metavar="FOLDER", help="such as results/digits/export/winner")
    onnx.add_argument("--output", type=Path, metavar="FILE.onnx", help="default: model.onnx in the folder")


def _onnx(arguments: argparse.Namespace) -> None:
    """Write an exported network (timm local-dir) as ONNX, with a free batch size, and compare what ONNX Runtime and
    PyTorch make of random images. Needs `pip install libranas[onnx]`."""
    from libranas.export import export_onnx

    path = arguments.output or arguments.folder / "model.onnx"
    difference = export_onnx(arguments.folder, path)
    print(f"{path}: logits differ from PyTorch's by at most {difference:.1e}.")
