"""The known data sets, by name."""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from libranas.core.errors import LibranasError
from libranas.data.adapters.cifar import cifar
from libranas.data.adapters.digits import digits
from libranas.data.adapters.folder import folder
from libranas.data.adapters.hugging_face import hugging_face
from libranas.data.adapters.imagenet import imagenet
from libranas.data.adapters.pets import pets
from libranas.data.adapters.spherical_cifar100 import spherical_cifar100
from libranas.data.adapters.svhn import svhn
from libranas.data.adapters.webdataset import webdataset
from libranas.data.source import Source

#: Adapter name to context manager ``adapter(path) -> Source``; readers are valid while it is open.
ADAPTERS = {
    "digits": digits,
    "folder": folder,
    "cifar10": functools.partial(cifar, "cifar10"),
    "cifar100": functools.partial(cifar, "cifar100"),
    "spherical_cifar100": spherical_cifar100,
    "svhn": svhn,
    "pets": pets,
    "imagenet": imagenet,
    "webdataset": webdataset,
    "hugging_face": hugging_face,
}


@contextmanager
def opened(kind: str, path: Path | None, called: str) -> Iterator[Source]:
    """A source where there is no configuration: what its errors say of ``data.path`` is said of what it is `called`."""
    try:
        with ADAPTERS[kind](path) as source:
            yield source
    except LibranasError as error:
        what = error.what.replace(f" (data.adapter is '{kind}')", "").replace("data.path", called)
        raise LibranasError(what, re.sub("`data.path`( in the config)?", f"`{called}`", error.todo)) from error
