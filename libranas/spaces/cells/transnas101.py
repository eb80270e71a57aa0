"""The search spaces of TransNAS-Bench-101 (Duan et al., CVPR 2021): cells (micro), or where to widen and halve (macro).

A network (:mod:`libranas.networks.transnas101`) has modules of two blocks. The code of a module says what its first
block does: 1 keeps width and resolution, 2 doubles the channels, 3 halves the resolution, 4 does both.

* **Micro**: the modules are 4, 1, 4, 1, 4 and the blocks are cells; 4^6 = 4,096 members.
* **Macro**: 4 to 6 modules of residual blocks, of which 1 to 4 halve the resolution and 1 to 3 double the channels:
  3,256 members.
"""

import ast
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from math import prod
from typing import Literal

import numpy as np

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.typed import Key, setting
from libranas.spaces.cells.base import EDGES, CellSpace, ConvolutionalSpace, Size, conv, conv_norm, halved, linear, norm
from libranas.spaces.registry import SpaceFamily

#: Tasks and how many numbers the network puts out (a pixel for the last three); None: the classes of the data.
TASKS = {
    "class_object": None,
    "class_scene": None,
    "room_layout": 9,
    "jigsaw": 1000,
    "segmentsemantic": 17,
    "normal": 3,
    "autoencoder": 3,
}
#: Tasks whose output is an image: a decoder in the place of a linear layer.
IMAGE_TASKS = ("segmentsemantic", "normal", "autoencoder")
#: Pieces that the task jigsaw cuts an image into; every one goes through the network.
PIECES = 9
#: Blocks a module.
BLOCKS = 2


def widens(code: int) -> bool:
    return code % 2 == 0


def halves(code: int) -> bool:
    return code > 2


@dataclass(frozen=True)
class Layer:
    """A layer of a decoder: a 3x3 convolution or, where `up`, a transposed one that doubles the resolution; then,
    unless it is the `last`, batch normalisation and a leaky ReLU of slope 0.2."""

    inputs: int
    outputs: int
    up: bool = False
    last: bool = False


def decoder(task: str, inputs: int, outputs: int, doublings: int) -> tuple[Layer, ...]:
    """Return the layers that turn features of `inputs` channels into an image, doubling the sides 3 to 6 times."""
    if task == "segmentsemantic":
        widths = [1024 // 2**i for i in range(6)]
        layers = [Layer(inputs, 1024)]
        layers += [Layer(a, b, up=i >= 6 - doublings) for i, (a, b) in enumerate(pairwise(widths))]
        return *layers, Layer(32, 32, up=True), Layer(32, outputs, last=True)
    widths = (inputs, 1024, 1024, 512, 512, 256, 128, 64, 64, 32, 32, 16, 32, 16, outputs)
    # layer n doubles the resolution if at least so many doublings are asked for
    needed = {2: 6, 4: 5, 6: 4, 8: 3, 10: 0, 12: 0}
    return tuple(
        Layer(a, b, up=doublings >= needed.get(n, 7), last=n == 13) for n, (a, b) in enumerate(pairwise(widths))
    )


@dataclass(frozen=True)
class _TransNAS(ConvolutionalSpace):
    """The task and the skeleton of both spaces.

    Parameters
    ----------
    image_size : int or (height, width)
        Of an image; for ``jigsaw`` of one of its nine pieces. Published: 256, pieces 64.
    classes : int
        The tables of NAS-Bench-Suite-Zero have 100 for class_object (75 in the benchmark's own training).
    published_init : bool
        Initial weights as in the benchmark's training instead of PyTorch's: convolutions outside of decoders from
        N(0, 2 / (outputs * kernel area)).
    """

    image_size: int | tuple[int, int] = 256
    channels: int = 3
    classes: int = 100
    task: str = setting(
        "Head or decoder of the network; networks are scored and trained as classifiers.",
        default="class_object",
        choices=TASKS,
    )
    width: int = setting("Channels of the first cells; the default is published.", default=64)
    published_init: bool = False

    family = "transnas101"
    #: How often the networks may halve the resolution behind the stem.
    most_halvings = 0

    @property
    def divisor(self) -> int:
        # halvings beyond a pixel change nothing, but a decoder doubles as often as the network halves
        return 4 * 2**self.most_halvings if self.task in IMAGE_TASKS else 1

    @property
    def outputs(self) -> int:
        """Numbers that the network puts out, a pixel where the output is an image."""
        return TASKS[self.task] or self.classes


# -- closed forms ----------------------------------------------------------------------------------------


def _stem(space: _TransNAS) -> tuple[Size, tuple[int, int]]:
    """Return the size of the published stem, two convolutions that halve the resolution; and the sides after it."""
    C, first = space.width, halved(space.sides)
    second = halved(first)
    return conv_norm(space.channels, C // 2, 3, prod(first)) + conv_norm(C // 2, C, 3, prod(second)), second


def _with_head(space: _TransNAS, body: Size, channels: int, pixels: int, halvings: int) -> Size:
    """Return the size of a network from that of what comes before the head, and its output."""
    if space.task in IMAGE_TASKS:
        for layer in decoder(space.task, channels, space.outputs, 2 + halvings):
            # a transposed convolution multiplies each pixel of its input
            body += conv(layer.inputs, layer.outputs, 3, pixels, bias=True)
            pixels *= 4 if layer.up else 1
            body += Size() if layer.last else norm(layer.outputs)
        return body
    pieces = PIECES if space.task == "jigsaw" else 1
    return Size(body.params, body.macs * pieces) + linear(pieces * channels, space.outputs)


# -- micro -----------------------------------------------------------------------------------------------


#: Skeletons of the micro space. ``published``: the benchmark's own. ``naslib``: what NASLib builds and
#: NAS-Bench-Suite-Zero trained for ninapro, svhn and scifar100: three modules, a stem of one convolution that keeps the
#: resolution, no scale and shift in the batch normalisation of identities that reduce, and NASLib's codes.
VARIANTS = ("published", "naslib")


@dataclass(frozen=True)
class TransNASMicroSpace(CellSpace, _TransNAS):
    """The 4,096 cells. In a block that doubles channels and halves resolution the operations at the cell's input do so,
    and ``skip_connect`` there is two 1x1 convolutions of every other pixel, with batch normalisation.

    :meth:`representative` follows what both kinds of cells compute
    (:func:`libranas.spaces.cells.base.representatives`): 1,376 different networks.
    """

    variant: str = setting("Skeleton of the micro networks.", default="published", choices=VARIANTS)

    title = "the micro space of TransNAS-Bench-101"
    OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
    WEIGHTED = frozenset({"nor_conv_1x1", "nor_conv_3x3"})
    WITH_REDUCTIONS = True
    SMALLEST, LARGEST = "none", "nor_conv_3x3"
    most_halvings = 3

    def __post_init__(self):
        super().__post_init__()
        if self.naslib and self.task not in ("class_object", "class_scene"):
            raise LibranasError(
                f"space.variant {self.variant} with space.task {self.task}.", "That variant classifies only."
            )

    @property
    def naslib(self) -> bool:
        return self.variant == "naslib"

    @property
    def modules(self) -> tuple[int, ...]:
        """The codes of the modules."""
        return (4, 1, 4) if self.naslib else (4, 1, 4, 1, 4)

    def read(self, text: str) -> Arch:
        """Read ``64-41414-1_02_333`` (digits 0 none, 1 skip, 2 conv 1x1, 3 conv 3x3 by target node), the six codes of
        the variant's tables, or canonical JSON."""
        text = text.strip()
        if names := re.fullmatch(r"64-41414-([0-3])_([0-3])([0-3])_([0-3])([0-3])([0-3])", text):
            return self.arch(self.OPERATIONS[int(digit)] for digit in names.groups())
        if text.startswith(("(", "[")):
            return self.from_codes(text) if self.naslib else self.from_codes(text, self.OPERATIONS, EDGES)
        return Arch.from_json(text)

    def notation(self) -> str:
        return "Expected a string such as 64-41414-1_02_333, or six codes such as (1, 0, 2, 3, 3, 3)."

    def format(self, arch: Arch) -> str:
        """Return the benchmark's string, ``64-41414-1_02_333``."""
        digits = "".join(str(self.OPERATIONS.index(op)) for op in arch["edges"])
        return f"64-41414-{digits[0]}_{digits[1:3]}_{digits[3:]}"

    def total(self, arch: Arch) -> Size:
        body, at_input, inside, *end = _micro_sizes(self)
        for operation, (source, _) in zip(arch["edges"], EDGES, strict=True):
            body += (inside if source else at_input)[operation]
        return _with_head(self, body, *end)


@lru_cache
def _micro_sizes(space: TransNASMicroSpace) -> tuple:
    """Return the size of the stem, and those of each operation on one edge of all cells, at a cell's input and inside;
    then channels and pixels after the last cell, and how often the resolution was halved behind the stem."""
    C, sides = space.width, space.sides
    if space.naslib:
        body = conv_norm(space.channels, C, 3, prod(sides))
    else:
        body, sides = _stem(space)
    at_input, inside = ({op: Size() for op in space.OPERATIONS} for _ in range(2))
    for code in space.modules:
        for first in (True, False):
            inputs = C
            if first and code == 4:
                sides, C = halved(sides), 2 * C
                # NASLib's has no scale and shift
                at_input["skip_connect"] += conv(inputs, C, 1, prod(sides)) + (Size() if space.naslib else norm(C))
            for operation, kernel in (("nor_conv_1x1", 1), ("nor_conv_3x3", 3)):
                at_input[operation] += conv_norm(inputs, C, kernel, prod(sides))
                inside[operation] += conv_norm(C, C, kernel, prod(sides))
    return body, at_input, inside, C, prod(sides), space.modules.count(4)


# -- macro -----------------------------------------------------------------------------------------------


@lru_cache
def _macro_members() -> dict[tuple[int, ...], int]:
    """Return the codes of every member, with its place."""
    codes = (c for length in (4, 5, 6) for c in product((1, 2, 3, 4), repeat=length))
    allowed = (c for c in codes if 1 <= sum(map(halves, c)) <= 4 and 1 <= sum(map(widens, c)) <= 3)
    return {c: i for i, c in enumerate(allowed)}


@dataclass(frozen=True)
class TransNASMacroSpace(_TransNAS):
    """The 3,256 sequences of modules; the parameters are those of both spaces, task and skeleton."""

    title = "the macro space of TransNAS-Bench-101"
    most_halvings = 4

    def arch(self, modules) -> Arch:
        """Return the member with these codes."""
        return Arch(self.family, {"modules": tuple(int(code) for code in modules)})

    def sample(self, rng: np.random.Generator) -> Arch:
        return self.arch(list(_macro_members())[rng.integers(self.size())])

    def mutate(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """Change, add or remove one module."""
        codes = arch["modules"]
        n, choices = len(codes), (1, 2, 3, 4)
        near = [codes[:i] + (c,) + codes[i + 1 :] for i in range(n) for c in choices]
        near += [codes[:i] + (c,) + codes[i:] for i in range(n + 1) for c in choices]
        near += [codes[:i] + codes[i + 1 :] for i in range(n)]
        near = sorted({c for c in near if c in _macro_members()} - {codes})
        return self.arch(near[rng.integers(len(near))])

    def cross(self, a: Arch, b: Arch, rng: np.random.Generator) -> Arch:
        """Take each module from either parent, the number of modules from one of them. A child outside of the space is
        drawn again; after 20 such draws the child is a parent."""
        first, second = (a["modules"], b["modules"]) if rng.random() < 0.5 else (b["modules"], a["modules"])
        for _ in range(20):
            take = rng.random(len(first)) < 0.5
            child = tuple(
                code if keep or i >= len(second) else second[i]
                for i, (code, keep) in enumerate(zip(first, take, strict=True))
            )
            if child in _macro_members():
                return self.arch(child)
        return self.arch(first)

    def contains(self, arch: Arch) -> bool:
        return arch.family == self.family and set(arch.genes) == {"modules"} and arch["modules"] in _macro_members()

    def read(self, text: str) -> Arch:
        """Read ``64-123414-basic``, a list of codes (zeros at its end are left out), or canonical JSON."""
        text = text.strip()
        if names := re.fullmatch(r"64-([1-4]+)-basic", text):
            return self.arch(names[1])
        if text.startswith(("(", "[")):
            codes = list(ast.literal_eval(text))
            while codes and codes[-1] == 0:
                codes.pop()
            return Arch(self.family, {"modules": codes})
        return Arch.from_json(text)

    def notation(self) -> str:
        return (
            "Expected a string such as 64-1234-basic, or codes such as (1, 2, 3, 4): 4 to 6 modules, 1 to 4 of them 3 "
            "or 4, 1 to 3 of them 2 or 4."
        )

    def format(self, arch: Arch) -> str:
        """Return the benchmark's string, ``64-1234-basic``."""
        return f"64-{''.join(map(str, arch['modules']))}-basic"

    def features(self, arch: Arch) -> dict[str, float]:
        """Count the modules and each code, and say the codes by place. Also the binary logarithm of how much wider and
        how much smaller the features are, at the end and on average over the modules."""
        codes = arch["modules"]
        out = {"modules": float(len(codes))} | {f"count_{c}": float(codes.count(c)) for c in (1, 2, 3, 4)}
        for place in range(6):
            out |= {f"module{place}_{c}": float(codes[place : place + 1] == (c,)) for c in (1, 2, 3, 4)}
        for name, property_ in (("wider", widens), ("smaller", halves)):
            along = np.cumsum([property_(c) for c in codes])
            out |= {f"{name}_end": float(along[-1]), f"{name}_mean": float(along.mean())}
        return out

    def size(self) -> int:
        return len(_macro_members())

    def extremes(self) -> tuple[Arch, ...]:
        """Return four members: none has both the fewest parameters and the fewest MACs, or both the most."""
        sizes = {codes: _macro_total(self, codes) for codes in _macro_members()}
        keys = (lambda codes: (sizes[codes].params, codes)), (lambda codes: (sizes[codes].macs, codes))
        return tuple(self.arch(best(sizes, key=key)) for key in keys for best in (min, max))

    def total(self, arch: Arch) -> Size:
        return _macro_total(self, arch["modules"])


@lru_cache(maxsize=10_000)
def _macro_total(space: TransNASMacroSpace, modules: tuple[int, ...]) -> Size:
    body, sides = _stem(space)
    C = space.width
    for code in modules:
        inputs = C
        C = 2 * C if widens(code) else C
        sides = halved(sides) if halves(code) else sides
        body += conv_norm(inputs, C, 3, prod(sides)) + conv_norm(C, C, 3, prod(sides)) * (1 + 2 * (BLOCKS - 1))
        if code != 1:
            body += conv_norm(inputs, C, 1, prod(sides))
    return _with_head(space, body, C, prod(sides), sum(map(halves, modules)))


def make(level: str = "micro", variant: str = "published", **settings) -> TransNASMicroSpace | TransNASMacroSpace:
    """Make the space of a level; `variant` is for micro alone."""
    if level == "macro":
        return TransNASMacroSpace(**settings)
    return TransNASMicroSpace(**settings, variant=variant)


FAMILY = SpaceFamily(
    TransNASMicroSpace,
    network="libranas.networks.transnas101",
    make=make,
    settings={"level": Key(Literal["micro", "macro"], "micro", {"description": "Cells, or the sequence of modules."})},
    image_size=256,
)
