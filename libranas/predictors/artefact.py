"""Fitted predictors as files: the stage libra writes one, the search reads it.

The first line of a file is JSON, the rest a pickle of plain objects: of this package, arrays, trees, and no others.
"""

import hashlib
import io
import json
import pickle
from importlib.metadata import version
from pathlib import Path

from libranas.core.errors import LibranasError
from libranas.core.files import atomic_path
from libranas.predictors.base import Predictor
from libranas.predictors.registry import COMBINERS

FORMAT, VERSION = "libranas predictor", 1
#: Other versions of these may read a file differently, or not at all.
LIBRARIES = ("numpy", "scikit-learn", "lightgbm")
#: What a pickle of arrays and trees names outside of this package.
FOREIGN = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("sklearn.tree._tree", "Tree"),
}
AGAIN = "Delete it and run the workflow again: the stage libra writes it in seconds to minutes."


def write(path: str | Path, predictor: Predictor) -> None:
    """Write a fitted predictor atomically. A fit that is repeated makes an equal file."""
    content = pickle.dumps(predictor, protocol=5)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "libraries": {name: version(name) for name in LIBRARIES},
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    with atomic_path(path) as temporary:
        temporary.write_bytes(json.dumps(header).encode() + b"\n" + content)


def read(path: str | Path) -> Predictor:
    """Read what :func:`write` wrote: a predictor that gives the same values to the bit.

    Raises
    ------
    LibranasError
        If the file is missing, damaged, of another format or version, or was written with other versions of the
        libraries.
    """
    try:
        first, _, content = Path(path).read_bytes().partition(b"\n")
    except FileNotFoundError:
        raise LibranasError(f"{path} does not exist.", "Run the workflow stage libra, which makes it.") from None
    try:
        header = json.loads(first)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise LibranasError(f"{path} is not a file of a fitted predictor.", AGAIN)
    if header.get("version") != VERSION:
        raise LibranasError(
            f"{path} has version {header.get('version')} of its format; this libranas reads version {VERSION}.",
            f"Read it with the libranas that wrote it. Or: {AGAIN}",
        )
    if header.get("sha256") != hashlib.sha256(content).hexdigest():
        raise LibranasError(f"{path} is damaged: its content does not match its checksum.", AGAIN)
    for name, known in header["libraries"].items():
        if known != version(name):
            raise LibranasError(f"{path} was written with {name} {known}; {name} {version(name)} is installed.", AGAIN)
    return _Unpickler(io.BytesIO(content)).load()


class _Unpickler(pickle.Unpickler):
    """Makes objects of known types only; a file that names any other one is an error."""

    def find_class(self, module: str, name: str):
        package = module.partition(".")[0]
        others = {combiner.fit.__module__.partition(".")[0] for combiner in COMBINERS.values()} - {"libranas"}
        if (module, name) in FOREIGN:
            return super().find_class(module, name)
        if module.startswith("libranas.predictors.") or package in others:
            found = super().find_class(module, name)
            if isinstance(found, type):  # a function could do anything
                return found
        raise LibranasError(f"A file of a fitted predictor names {module}.{name}, which predictors do not use.", AGAIN)
