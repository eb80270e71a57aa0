"""The AutoFormer search space (Chen et al., ICCV 2021): vision transformers with per-block heads and MLP ratios.

A network has one embedding width and one depth. A space may offer more genes of the whole network
(:data:`NETWORK_GENES`); published spaces fix them. Published and ready-made spaces are in :data:`PRESETS`; where
sources disagree, the preset says which reading it takes.

Legend for the closed forms: D embedding width, d head width, Q width of the queries (d * heads), F hidden width of the
MLP, N tokens (patches + class token), T = 2 * max_relative_position + 2 relative positions.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import product
from typing import Literal

import numpy as np

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.typed import Key, setting
from libranas.spaces.base import Space
from libranas.spaces.published_genes import published_genes
from libranas.spaces.registry import SpaceFamily

_TINY = {"embed_dim": [192, 216, 240], "depth": [12, 13, 14], "num_heads": [3, 4], "mlp_ratio": [3.0, 3.5, 4.0]}
_SMALL = {"embed_dim": [320, 384, 448], "depth": [12, 13, 14], "num_heads": [5, 6, 7], "mlp_ratio": [3.0, 3.5, 4.0]}
_BASE = {"embed_dim": [528, 576, 624], "depth": [14, 15, 16], "num_heads": [9, 10], "mlp_ratio": [3.0, 3.5, 4.0]}
_SMALL_IMAGES = {"embed_dim": [128, 160, 192], "depth": [6, 7, 8], "num_heads": [2, 3, 4], "mlp_ratio": [2.0, 3.0, 4.0]}
_WIDE = {
    "mlp_ratio": [0.5, 1.0, 2.0, 3.0, 4.0],
    "head_dim": "auto",
    "pool": ["avg", "token"],
    "stem": ["linear", "conv"],
    "position": ["absolute", "both"],
    "max_relative_position": 7,
    "init_std": "auto",
}
_WIDE_IMAGES = _WIDE | {"embed_dim": [64, 96, 128, 192, 256], "depth": [*range(2, 13)], "num_heads": [1, 2, 4, 8]}

#: Settings by name. Published, for 224 px and patches of 16:
#:
#: * ``tiny`` has MLP ratio 3, which the published AutoFormer-T uses (NNI has it too); ``tiny-paper``, the paper and the
#:   authors' supernet-T file, has not.
#: * ``base`` is the authors' supernet-B file, which AutoFormer, TF-TAS and AZ-NAS searched; ``base-paper`` has the
#:   paper's 8 heads as well.
#: * ``vit-bench-101`` is Auto-Prox's reading (Wei et al., 2024): no relative positions, heads share the width.
#:
#: Ours, narrow variation as published: ``imageS-patchP`` for images of S pixels (heads 64 wide, fewer and narrower
#: blocks), ``digits-autoformer`` for 8 px on a laptop. Ours, wide variation: ``digits``, ``image32``, ``image64``,
#: ``small-224``.
PRESETS = {
    "tiny": _TINY,
    "tiny-paper": _TINY | {"mlp_ratio": [3.5, 4.0]},
    "small": _SMALL,
    "base": _BASE,
    "base-paper": _BASE | {"num_heads": [8, 9, 10]},
    "vit-bench-101": _TINY | {"mlp_ratio": [3.5, 4.0], "relative_position": False, "head_dim": "auto"},
    **{
        f"image{size}-patch{patch}": _SMALL_IMAGES
        | {"patch_size": patch, "max_relative_position": min(14, size // patch - 1)}
        for size in (32, 64)
        for patch in (2, 4, 8)
    },
    "digits-autoformer": {
        "embed_dim": [32, 48, 64],
        "depth": [3, 4, 5],
        "num_heads": [2, 3, 4],
        "mlp_ratio": [2.0, 3.0, 4.0],
        "head_dim": 16,
        "patch_size": 2,
        "max_relative_position": 3,
        "init_std": 0.1,  # about 1 / sqrt(width) of such narrow networks
    },
    "digits": {
        "embed_dim": [16, 32, 48, 64, 96],
        "depth": [1, 2, 3, 4, 5, 6],
        "num_heads": [1, 2, 4],
        "mlp_ratio": [0.5, 1.0, 2.0, 3.0, 4.0],
        "head_dim": "auto",
        "patch_size": [1, 2, 4],
        "pool": ["avg", "token"],
        "position": "absolute",
        "init_std": "auto",
    },
    "image32": _WIDE_IMAGES | {"patch_size": [2, 4, 8]},
    "image64": _WIDE_IMAGES | {"patch_size": [4, 8, 16]},
    "small-224": _WIDE
    | {"embed_dim": [192, 256, 320, 384, 448], "depth": [*range(6, 17)], "num_heads": [2, 4, 8]}
    | {"patch_size": [14, 16, 28, 32]},
}

Pool, Stem, Mlp = Literal["avg", "token"], Literal["linear", "conv"], Literal["gelu", "swiglu"]
Position = Literal["absolute", "relative", "both", "sincos"]
#: Genes of the whole network, besides its width and depth, and what published networks have. They are genes of an
#: architecture only where the space offers more than one choice.
NETWORK_GENES = {
    "patch_size": 16,
    "pool": "avg",
    "stem": "linear",
    "position": None,
    "mlp": "gelu",
    "qk_norm": False,
    "layer_scale": False,
}


def mlp_width(dim: int, ratio: float, mlp: str) -> int:
    """Return the hidden width of an MLP: ``int(dim * ratio)``, of a gated one two thirds of that, rounded.

    The gated one has three matrices instead of two, so both have about as many parameters."""
    hidden = int(dim * ratio)
    return round(2 * hidden / 3) if mlp == "swiglu" else hidden


def conv_stem(patch_size: int, dim: int) -> tuple[list[tuple[int, int]], int]:
    """Return the 3x3 convolutions of a convolutional stem (channels and stride of each), and the pixels a side of its
    last convolution, a projection to `dim` (Xiao et al., NeurIPS 2021).

    Each halving of the patch is a stride of 2; the channels double up to `dim`. An odd patch has one convolution
    without a stride. What is left of the patch is that of the projection: 1 for powers of two, 7 for 14 and 28."""
    halvings = (patch_size & -patch_size).bit_length() - 1
    strides = [2] * halvings or [1]
    channels = [max(1, dim >> later) for later in reversed(range(len(strides)))]
    return list(zip(channels, strides, strict=True)), patch_size >> halvings


@dataclass(frozen=True)
class AutoFormerSpace(Space):
    """Choices of an AutoFormer space, and the task, which fixes the rest of the network.

    Parameters
    ----------
    head_dim : int or "auto"
        64 in the published spaces; auto as in plain vision transformers.
    patch_size, pool, stem, position, mlp, qk_norm, layer_scale
        One value for all networks, or several choices. Patches must divide `image_size`.
    relative_position : bool
        Two-dimensional (Shaw et al., 2018), as in every published AutoFormer command; larger offsets are clamped. True
        is short for the position ``both``, False for ``absolute``; `position` counts more.
    init_std : float or "auto"
        See :class:`libranas.networks.autoformer.AutoFormerViT`; auto: 1 / sqrt(embed_dim) of each network.

    Raises
    ------
    LibranasError
        If the choices do not make networks for these images.
    """

    embed_dim: tuple[int, ...] = setting("Widths, one for the network; needed without a preset, as the next three.")
    depth: tuple[int, ...] = setting("Numbers of blocks.")
    num_heads: tuple[int, ...] = setting("Attention heads of each block.")
    mlp_ratio: tuple[float, ...] = setting("Width of the MLP over that of its block, for each block.")
    head_dim: int | Literal["auto"] = setting("Width of an attention head; auto: embed_dim / num_heads.", 64)
    image_size: int = 224
    patch_size: int | tuple[int, ...] = setting("Pixels a side of a patch, or choices, one for the network.", 16)
    channels: int = 3
    classes: int = 1000
    relative_position: bool = setting("Short for the position both (true) or absolute (false).", True)
    max_relative_position: int = setting("Largest offset that has a position of its own.", 14)
    init_std: float | Literal["auto"] = setting(
        "Standard deviation of initial linear weights; narrow networks need more. auto: 1 / sqrt(embed_dim).",
        0.02,
        below=3e38,
    )
    pool: Pool | tuple[Pool, ...] = setting(
        "What the classifier sees, or choices: the mean of the patch tokens, or the class token.", "avg"
    )
    stem: Stem | tuple[Stem, ...] = setting(
        "How patches become tokens, or choices: a linear projection, or convolutions of 3 x 3 with stride 2.", "linear"
    )
    position: Position | tuple[Position, ...] | None = setting(
        "Positions, or choices: absolute (learned), relative (on keys and values), both, sincos (absolute and fixed); "
        "default: as relative_position says.",
        None,
    )
    mlp: Mlp | tuple[Mlp, ...] = setting(
        "MLP, or choices: with GELU, or gated by SiLU and two thirds as wide, with about as many parameters.", "gelu"
    )
    qk_norm: bool | tuple[bool, ...] = setting("LayerNorm of the queries and keys of each head, or choices.", False)
    layer_scale: bool | tuple[bool, ...] = setting("Learned scales of the residual branches, or choices.", False)

    family = "autoformer"
    #: Probabilities of AutoFormer's evolution: a redrawn gene of the network (width, depth), a redrawn block gene.
    P_GLOBAL = 0.4
    P_BLOCK = 0.2

    def __post_init__(self):
        for gene in ("embed_dim", "depth", "num_heads", "mlp_ratio"):
            object.__setattr__(self, gene, tuple(sorted(set(getattr(self, gene)))))
        for gene in NETWORK_GENES:
            value = getattr(self, gene)
            if isinstance(value, tuple | list):
                choices = tuple(sorted(set(value)))
                object.__setattr__(self, gene, choices if len(choices) > 1 else choices[0])
        if self.position:
            object.__setattr__(self, "relative_position", bool({"relative", "both"} & set(self.choices("position"))))
            if self.position in ("absolute", "both"):  # one space, one notation
                object.__setattr__(self, "position", None)
        for patch in self.choices("patch_size"):
            if self.image_size % patch:
                raise LibranasError(
                    f"space.patch_size {patch} does not divide data.image_size {self.image_size}.",
                    "Choose patch sizes that divide the image size.",
                )
        for width, ratio in product(self.embed_dim, self.mlp_ratio):
            if width * ratio < 1:
                raise LibranasError(
                    f"space.mlp_ratio {ratio}: an MLP of blocks {width} wide has no unit then.",
                    "Choose larger ratios or widths; published ratios are 2 to 4.",
                )
        for width, heads in product(self.embed_dim, self.num_heads):
            if self.head_dim == "auto" and width % heads:
                raise LibranasError(
                    f"space.num_heads {heads} does not divide space.embed_dim {width}, but space.head_dim is auto.",
                    "Choose heads that divide every width, or give head_dim a number.",
                )
        if "sincos" in self.choices("position") and (odd := [width for width in self.embed_dim if width % 4]):
            raise LibranasError(
                f"space.embed_dim {odd[0]} is no multiple of 4, but space.position sincos needs one.",
                "Choose other widths, or learned positions.",
            )

    def __repr__(self):
        """Name the fields; a gene that is as published is left out, since keys of older scores hang on this text."""
        usual = [gene for gene, value in NETWORK_GENES.items() if getattr(self, gene) == value and gene != "patch_size"]
        names = [field.name for field in fields(self) if field.name not in usual]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def choices(self, gene: str) -> tuple:
        """Return the choices of a gene of :data:`NETWORK_GENES`."""
        value = getattr(self, gene)
        if value is None:
            return ("both",) if self.relative_position else ("absolute",)
        return value if isinstance(value, tuple) else (value,)

    @property
    def free(self) -> dict[str, tuple]:
        """The genes of :data:`NETWORK_GENES` that the space does not fix, and their choices."""
        return {gene: value for gene in NETWORK_GENES if isinstance(value := getattr(self, gene), tuple)}

    def network_genes(self, arch: Arch) -> dict:
        """Return the values of :data:`NETWORK_GENES` for a member, those that the space fixes too."""
        return {gene: arch.genes[gene] if gene in arch.genes else self.choices(gene)[0] for gene in NETWORK_GENES}

    def arch(self, embed_dim: int, num_heads, mlp_ratio, **genes) -> Arch:
        """Return the member with these genes (lists with one entry a block).

        `genes`: one value for each gene of :attr:`free`. KeyError if one is missing, ValueError if it is no choice."""
        return Arch(
            self.family,
            {
                "embed_dim": int(embed_dim),
                "depth": len(num_heads),
                "num_heads": tuple(int(h) for h in num_heads),
                "mlp_ratio": tuple(float(r) for r in mlp_ratio),
            }
            | {gene: choices[choices.index(genes[gene])] for gene, choices in self.free.items()},
        )

    def canonical(self, arch: Arch) -> Arch:
        return self.arch(**{gene: value for gene, value in arch.genes.items() if gene != "depth"})

    def sample(self, rng: np.random.Generator) -> Arch:
        depth = int(rng.choice(self.depth))
        return self.arch(
            rng.choice(self.embed_dim),
            rng.choice(self.num_heads, size=depth),
            rng.choice(self.mlp_ratio, size=depth),
            **{gene: choices[rng.integers(len(choices))] for gene, choices in self.free.items()},
        )

    def mutate(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """Mutate as AutoFormer does. A deeper child keeps its parent's blocks and gets random ones on top."""
        depth, width = arch["depth"], arch["embed_dim"]
        if rng.random() < self.P_GLOBAL:
            depth = int(rng.choice(self.depth))
        if rng.random() < self.P_GLOBAL:
            width = rng.choice(self.embed_dim)

        def genes(parent, choices):
            redrawn = rng.choice(choices, size=depth)
            keep = rng.random(depth) >= self.P_BLOCK
            return [parent[i] if i < len(parent) and keep[i] else redrawn[i] for i in range(depth)]

        heads, ratios = genes(arch["num_heads"], self.num_heads), genes(arch["mlp_ratio"], self.mlp_ratio)
        others = {
            gene: choices[rng.integers(len(choices))] if rng.random() < self.P_GLOBAL else arch[gene]
            for gene, choices in self.free.items()
        }
        return self.arch(width, heads, ratios, **others)

    def cross(self, a: Arch, b: Arch, rng: np.random.Generator) -> Arch:
        """Cross uniformly. Parents may differ in depth: blocks that only one has come from that one."""
        first, second = (a, b) if rng.random() < 0.5 else (b, a)
        depth = first["depth"]
        pick = [i >= second["depth"] or rng.random() < 0.5 for i in range(depth)]

        def genes(name):
            return [(first if p else second)[name][i] for i, p in enumerate(pick)]

        whole = {gene: (first if rng.random() < 0.5 else second)[gene] for gene in ("embed_dim", *self.free)}
        return self.arch(num_heads=genes("num_heads"), mlp_ratio=genes("mlp_ratio"), **whole)

    def contains(self, arch: Arch) -> bool:
        return arch.family == self.family and not self.misfit(arch)

    def misfit(self, arch: Arch) -> str:
        names = {"embed_dim", "depth", "num_heads", "mlp_ratio", *self.free}
        for gene in sorted(names ^ arch.genes.keys()):
            return f"it has no {gene}" if gene in names else f"{gene} is no gene of this space"
        depth = arch["depth"]
        for gene in ("num_heads", "mlp_ratio"):
            if not isinstance(arch[gene], tuple) or len(arch[gene]) != depth:
                found = len(arch[gene]) if isinstance(arch[gene], tuple) else "no list of"
                return f"depth is {depth}, but {gene} has {found} entries"
        for gene in sorted(names):
            choices = getattr(self, gene)
            for value in arch[gene] if gene in ("num_heads", "mlp_ratio") else (arch[gene],):
                if value not in choices:
                    return f"{gene} {value} is none of {', '.join(map(str, choices))}"
        return ""

    def read(self, text: str) -> Arch:
        """Read canonical JSON, or a network as others publish it, in JSON or YAML: the section ``RETRAIN`` of
        AutoFormer, TF-TAS and AZ-NAS (alone or in its file), an entry of PreNAS, an entry of ViT-Bench-101.

        It may state genes that the space fixes; the size of patches is then that of the space, whatever it states."""
        genes = published_genes(text)
        for gene in NETWORK_GENES.keys() & genes.keys() - self.free.keys():
            if gene == "patch_size" or genes[gene] in self.choices(gene):
                del genes[gene]
        width = genes["embed_dim"]
        if isinstance(width, list) and len(width) == genes["depth"] and len(set(width)) == 1:  # PreNAS repeats it
            genes["embed_dim"] = width[0]
        return Arch(genes.pop("family", self.family), genes)

    def features(self, arch: Arch) -> dict[str, float]:
        """Return depth and width; of heads and MLP ratio the mean and spread over the blocks, and where along the depth
        they are large (slope over the block index). Of the genes of :attr:`free`: the base-2 logarithm of the patch
        size and the number of tokens, a mark (0 or 1) for each further choice of the others."""
        out = {"embed_dim": float(arch["embed_dim"]), "depth": float(arch["depth"])}
        position = np.linspace(-1, 1, arch["depth"])
        for gene in ("num_heads", "mlp_ratio"):
            x = np.array(arch[gene], dtype=np.float64)
            out |= {f"{gene}_mean": x.mean(), f"{gene}_std": x.std(), f"{gene}_slope": (x * position).mean()}
        for gene, choices in self.free.items():
            if gene == "patch_size":
                out |= {"patch_size_log2": math.log2(arch[gene]), "tokens": float(self.tokens(arch))}
            else:
                out |= {f"{gene}_{choice}".lower(): float(arch[gene] == choice) for choice in choices[1:]}
        return out

    def size(self) -> int:
        per_block = len(self.num_heads) * len(self.mlp_ratio)
        networks = math.prod(map(len, self.free.values()))
        return networks * len(self.embed_dim) * sum(per_block**d for d in self.depth)

    def extremes(self) -> tuple[Arch, ...]:
        """Return the smallest and the largest member for each choice of the genes of :attr:`free`."""
        # Heads that share the width are wider, and so are their tables of relative positions, the fewer they are.
        few, many = (max, min) if self.head_dim == "auto" else (min, max)

        def uniform(pick, heads, genes):
            depth = pick(self.depth)
            blocks = [heads(self.num_heads)] * depth, [pick(self.mlp_ratio)] * depth
            return self.arch(pick(self.embed_dim), *blocks, **dict(zip(self.free, genes, strict=True)))

        combinations = product(*self.free.values())
        return tuple(uniform(*way, genes) for genes in combinations for way in ((min, few), (max, many)))

    def head_width(self, arch: Arch, heads: int) -> int:
        """Return the width of each head of a block with this many heads."""
        return arch["embed_dim"] // heads if self.head_dim == "auto" else self.head_dim

    def tokens(self, arch: Arch) -> int:
        """Return the number of tokens of one image: patches and the class token."""
        return (self.image_size // self.network_genes(arch)["patch_size"]) ** 2 + 1

    def _embedding(self, arch: Arch, genes: dict) -> tuple[int, int]:
        """Return parameters and MACs of the patch embedding."""
        D, patch, side, inputs = arch["embed_dim"], genes["patch_size"], self.image_size, self.channels
        params = macs = 0
        if genes["stem"] == "conv":
            convolutions, patch = conv_stem(patch, D)
            for outputs, stride in convolutions:
                side //= stride
                params += 9 * inputs * outputs + 2 * outputs  # convolution without bias, norm
                macs += side**2 * 9 * inputs * outputs
                inputs = outputs
        weights = inputs * patch**2 * D
        return params + weights + D, macs + (side // patch) ** 2 * weights

    def _blocks(self, arch: Arch, genes: dict) -> Iterator[tuple[int, int, int, int]]:
        """Yield of each block: head width, width of the queries, outputs and inputs of the MLP's two layers."""
        for heads, ratio in zip(arch["num_heads"], arch["mlp_ratio"], strict=True):
            d, F = self.head_width(arch, heads), mlp_width(arch["embed_dim"], ratio, genes["mlp"])
            yield d, d * heads, 2 * F if genes["mlp"] == "swiglu" else F, F

    def _table_rows(self, genes: dict) -> int:
        """Return the rows of one relative-position table: offsets -max..max, and one for the class token; 0 without."""
        return 2 * self.max_relative_position + 2 if genes["position"] in ("relative", "both") else 0

    def params(self, arch: Arch) -> int:
        genes = self.network_genes(arch)
        D, T = arch["embed_dim"], self._table_rows(genes)
        total, _ = self._embedding(arch, genes)
        total += D  # class token
        total += self.tokens(arch) * D * (genes["position"] in ("absolute", "both"))
        for d, Q, first, second in self._blocks(arch, genes):
            total += 4 * D  # two LayerNorms
            total += D * 3 * Q + 3 * Q + Q * D + D  # qkv, proj
            total += D * first + first + second * D + D  # fc1, fc2
            total += 4 * T * d
            total += 4 * d * genes["qk_norm"] + 2 * D * genes["layer_scale"]
        return total + 2 * D + D * self.classes + self.classes  # final LayerNorm, head

    def macs(self, arch: Arch) -> int:
        """Count relative positions as they are executed here (products with the T table rows, then gathers): 4NTQ per
        block, not the 2N^2 Q of a dense table."""
        genes = self.network_genes(arch)
        D, N, T = arch["embed_dim"], self.tokens(arch), self._table_rows(genes)
        _, total = self._embedding(arch, genes)
        for _, Q, first, second in self._blocks(arch, genes):
            total += N * (4 * D * Q + D * (first + second)) + 2 * N * N * Q
            total += 4 * N * T * Q
        return total + D * self.classes


def make(preset: str | None = None, **settings) -> AutoFormerSpace:
    """Make a space of a preset, of choices, or of a preset with changed choices."""
    values = PRESETS.get(preset, {}) | settings
    if "relative_position" in settings and "position" not in settings:
        values.pop("position", None)
    if missing := [gene for gene in ("embed_dim", "depth", "num_heads", "mlp_ratio") if gene not in values]:
        raise LibranasError(
            f"space: no choices for {', '.join(missing)}.",
            f"Name a preset ({', '.join(PRESETS)}) under space.preset or list the choices.",
        )
    return AutoFormerSpace(**values)


FAMILY = SpaceFamily(
    AutoFormerSpace,
    network="libranas.networks.autoformer",
    make=make,
    settings={
        "preset": Key(
            str, None, {"description": "Choices by name; keys below replace single ones.", "choices": PRESETS}
        )
    },
    image_size=224,
    weight_sharing=True,
    latency_parts="libranas.latency.parts:AutoFormerParts",
)
