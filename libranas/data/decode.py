"""Decode image files to pixels of one size."""

import functools
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from libranas.data.formats import IMAGE_FORMATS
from libranas.data.source import Item

_PNG = b"\x89PNG\r\n\x1a\n"
#: What turns an image upright, by its EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Images decoded before they are written; bounds the memory (256 images of 224 x 224 x 3: 39 MB).
DECODE_BATCH = 256


def open_image(data: bytes | np.ndarray, channels: int) -> Image.Image:
    """Open an image file's bytes (or its pixels, uint8) as a grey or RGB image of 8 bits a channel.

    The whole file is decoded and turned as its EXIF orientation says; other metadata, and damage to them, do not
    matter. Of an animation the first frame is taken; transparency is discarded, as torchvision does. ValueError, or
    what Pillow raises, if it is not an image, is cut off, or has more pixels than Pillow's ``MAX_IMAGE_PIXELS``.
    """
    if isinstance(data, np.ndarray):
        image = Image.fromarray(data)
    else:
        if not data:
            raise ValueError("the file is empty")
        try:
            image = _loaded(data)
        except Exception:
            if not data.startswith(_PNG):
                raise
            image = _loaded(_without_metadata(data))
    # Pillow would clip deeper pixels to 255 instead of scaling them.
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if image.mode in ("I", "F") and not deep:
        raise ValueError(f"pixels of type '{image.mode}' have no known range; save it with 8 or 16 bits")
    if turn := _TURNS.get(_orientation(image)):
        image = image.transpose(turn)
    if deep:
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB" if channels == 3 else "L")


def _loaded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise ValueError(f"{image.width} x {image.height} pixels, allowed are {Image.MAX_IMAGE_PIXELS}")
    image.load()
    return image


def _without_metadata(png: bytes) -> bytes:
    """Return a PNG file with the chunks that its pixels need, and the EXIF data if they are sound.

    Pillow refuses a file for a damaged comment, or for one above a megabyte.
    """
    kept, start = [_PNG], len(_PNG)
    while start < len(png):
        kind, end = png[start + 4 : start + 8], start + 12 + int.from_bytes(png[start : start + 4])
        checksum = zlib.crc32(png[start + 4 : end - 4]).to_bytes(4)
        if kind[:1].isupper() or (kind == b"eXIf" and png[end - 4 : end] == checksum):
            kept.append(png[start:end])
        start = end
    return b"".join(kept)


def _orientation(image: Image.Image):
    """Return how the EXIF data say that an image lies; None where they are damaged."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # nearly anything, by the damage
        return None


def decode(data: bytes | np.ndarray, size: int, channels: int) -> np.ndarray:
    """Decode an image as :func:`open_image` does, to uint8 (S, S, C): scaled (bicubic, antialiased) so that the shorter
    side is `size`, and cut to the centre square."""
    image = open_image(data, channels)
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(size, size, channels)


def _try_decode(size: int, channels: int, item: Item) -> tuple[Item, np.ndarray | str]:
    """Decode an image; instead of one that cannot be, return the reason (without a machine's paths or addresses)."""
    try:
        return item, decode(item.load(), size, channels)
    except UnidentifiedImageError:
        return item, f"not an image file (or not of type {', '.join(IMAGE_FORMATS)})"
    except (OSError, ValueError) as error:
        return item, getattr(error, "strerror", None) or str(error)
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        return item, f"{type(error).__name__}: {error}"


def decoded(items: Sequence[Item], size: int, channels: int, workers: int) -> Iterator[tuple]:
    """Decode each item to its image or the reason why not, in order, DECODE_BATCH at a time in memory."""
    task = functools.partial(_try_decode, size, channels)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(items), DECODE_BATCH):
            yield from pool.map(task, items[start : start + DECODE_BATCH])
