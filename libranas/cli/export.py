"""``libranas export``: exported networks in other formats, and to the hub."""

import argparse
from pathlib import Path

KINDS = ("onnx", "pt2", "pth")


def add(commands) -> None:
    parser = commands.add_parser("export", description=_export.__doc__)
    parser.set_defaults(run=_export)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="such as results/digits/export/winner")
    parser.add_argument(
        "--to",
        action="append",
        choices=KINDS,
        default=[],
        help="onnx: for ONNX Runtime, needs `pip install libranas[onnx]`; pt2: a program of torch.export; pth: a plain "
        "state dict; may be repeated",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: model.onnx, ... in the folder")
    parser.add_argument("--push", metavar="USER/NAME", help="upload the folder to the Hugging Face hub, privately")


def _export(arguments: argparse.Namespace) -> None:
    """Write an exported network (timm local-dir) in other formats, each with a free batch size, and compare what comes
    of random images with PyTorch."""
    from libranas.core.errors import LibranasError
    from libranas.export.formats import export_as
    from libranas.export.timm import push

    if not arguments.to and not arguments.push:
        raise LibranasError("Nothing to do.", f"Name a format (--to {', --to '.join(KINDS)}) or --push USER/NAME.")
    if arguments.output and len(arguments.to) != 1:
        raise LibranasError("--output names one file.", "Name one format with --to.")
    for kind in arguments.to:
        path = arguments.output or arguments.folder / f"model.{kind}"
        difference = export_as(arguments.folder, kind, path)
        print(f"{path}: logits differ from PyTorch's by at most {difference:.1e}.")
    if arguments.push:
        print(push(arguments.folder, arguments.push))
