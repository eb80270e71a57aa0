"""Which files are images: by what they are called, or by how they begin."""

import re
from collections.abc import Callable
from pathlib import PurePosixPath

#: Kind of image to its suffixes and its first bytes. Pillow may open these, never all that it knows: its EPS reader,
#: for one, starts a program on the file.
_KINDS = {
    "JPEG": (".jpg .jpeg .jpe .jfif", rb"\xff\xd8\xff"),
    "PNG": (".png .apng", rb"\x89PNG\r\n\x1a\n"),
    "BMP": (".bmp", rb"BM.{12}[\x0c\x10(48@l|]\0\0\0"),
    "WEBP": (".webp", rb"RIFF.{4}WEBP"),
    "GIF": (".gif", rb"GIF8[79]a"),
    "TIFF": (".tif .tiff", rb"II[*+]\0|MM\0[*+]"),
    "PPM": (".ppm .pgm .pbm .pnm", rb"P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s+\d+\s"),
    "AVIF": (".avif", rb".{4}ftyp(?:.{4})*?avi[fs]"),
    "JPEG2000": (".jp2 .j2k", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
}
IMAGE_FORMATS = tuple(_KINDS)
#: In the order of the kinds.
IMAGE_SUFFIXES = tuple(suffix for suffixes, _ in _KINDS.values() for suffix in suffixes.split())
_BEGINNING = re.compile(b"|".join(b"(?P<%s>%s)" % (k.encode(), first) for k, (_, first) in _KINDS.items()), re.DOTALL)


def is_image(name: str, read: Callable) -> bool:
    """Say whether a file is an image. One that is called so and cannot be decoded is a broken image, not another file.

    Parameters
    ----------
    read : ``read(size)`` returns the first bytes of the file; it is called where the name has no suffix of images
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    try:
        found = _BEGINNING.match(read(512))
    except OSError:  # a link, or unreadable
        return False
    # A TIFF with a suffix of its own is the raw file of a camera, of which Pillow would read a small preview.
    return bool(found) and (found.lastgroup != "TIFF" or not suffix)
