"""The AutoFormer search space (Chen et al., ICCV 2021): vision transformers with per-block heads and MLP ratios.

A network has one embedding width and one depth. Published and ready-made spaces are in :data:`PRESETS`; where sources
disagree, the preset says which reading it takes.

Legend for the closed forms: D embedding width, Q width of the queries (head_dim * heads), F = int(D * mlp_ratio),
N tokens (patches + class token), T = 2 * max_relative_position + 2 relative positions.
"""

from dataclasses import dataclass
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

#: Settings by name. Published, for 224 px and patches of 16:
#:
#: * ``tiny`` has MLP ratio 3, which the published AutoFormer-T uses (NNI has it too); ``tiny-paper``, the paper and the
#:   authors' supernet-T file, has not.
#: * ``base`` is the authors' supernet-B file, which AutoFormer, TF-TAS and AZ-NAS searched; ``base-paper`` has the
#:   paper's 8 heads as well.
#: * ``vit-bench-101`` is Auto-Prox's reading (Wei et al., 2024): no relative positions, heads share the width.
#:
#: Ours: ``imageS-patchP`` for images of S pixels (heads 64 wide as published, fewer and narrower blocks), ``digits``
#: for 8 px on a laptop.
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
    "digits": {
        "embed_dim": [32, 48, 64],
        "depth": [3, 4, 5],
        "num_heads": [2, 3, 4],
        "mlp_ratio": [2.0, 3.0, 4.0],
        "head_dim": 16,
        "patch_size": 2,
        "max_relative_position": 3,
        "init_std": 0.1,  # about 1 / sqrt(width) of such narrow networks
    },
}


@dataclass(frozen=True)
class AutoFormerSpace(Space):
    """Choices of an AutoFormer space, and the task, which fixes the rest of the network.

    Parameters
    ----------
    head_dim : int or "auto"
        64 in the published spaces; auto as in plain vision transformers.
    patch_size : int
        Must divide `image_size`.
    relative_position : bool
        Two-dimensional (Shaw et al., 2018), as in every published AutoFormer command; larger offsets are clamped.
    init_std : float
        See :class:`libranas.networks.autoformer.AutoFormerViT`.
    """

    embed_dim: tuple[int, ...] = setting("Widths, one for the network; needed without a preset, as the next three.")
    depth: tuple[int, ...] = setting("Numbers of blocks.")
    num_heads: tuple[int, ...] = setting("Attention heads of each block.")
    mlp_ratio: tuple[float, ...] = setting("Width of the MLP over that of its block, for each block.")
    head_dim: int | Literal["auto"] = setting("Width of an attention head; auto: embed_dim / num_heads.", 64)
    image_size: int = 224
    patch_size: int = setting("Pixels a side of a patch.", 16)
    channels: int = 3
    classes: int = 1000
    relative_position: bool = setting("Relative positions on keys and values.", True)
    max_relative_position: int = setting("Largest offset that has a position of its own.", 14)
    init_std: float = setting(
        "Standard deviation of initial linear weights; narrow networks need more.", 0.02, below=3e38
    )

    family = "autoformer"
    #: Probabilities of AutoFormer's evolution: a redrawn embedding width or depth, a redrawn block gene.
    P_GLOBAL = 0.4
    P_BLOCK = 0.2

    def __post_init__(self):
        for gene in ("embed_dim", "depth", "num_heads", "mlp_ratio"):
            object.__setattr__(self, gene, tuple(sorted(set(getattr(self, gene)))))
        if self.image_size % self.patch_size:
            raise LibranasError(
                f"space.patch_size {self.patch_size} does not divide data.image_size {self.image_size}.",
                "Choose a patch size that divides the image size.",
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

    def arch(self, embed_dim: int, num_heads, mlp_ratio) -> Arch:
        """Return the member with these genes (lists with one entry a block)."""
        return Arch(
            self.family,
            {
                "embed_dim": int(embed_dim),
                "depth": len(num_heads),
                "num_heads": tuple(int(h) for h in num_heads),
                "mlp_ratio": tuple(float(r) for r in mlp_ratio),
            },
        )

    def canonical(self, arch: Arch) -> Arch:
        return self.arch(arch["embed_dim"], arch["num_heads"], arch["mlp_ratio"])

    def sample(self, rng: np.random.Generator) -> Arch:
        depth = int(rng.choice(self.depth))
        return self.arch(
            rng.choice(self.embed_dim),
            rng.choice(self.num_heads, size=depth),
            rng.choice(self.mlp_ratio, size=depth),
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

        return self.arch(width, genes(arch["num_heads"], self.num_heads), genes(arch["mlp_ratio"], self.mlp_ratio))

    def cross(self, a: Arch, b: Arch, rng: np.random.Generator) -> Arch:
        """Cross uniformly. Parents may differ in depth: blocks that only one has come from that one."""
        first, second = (a, b) if rng.random() < 0.5 else (b, a)
        depth = first["depth"]
        pick = [i >= second["depth"] or rng.random() < 0.5 for i in range(depth)]

        def genes(name):
            return [(first if p else second)[name][i] for i, p in enumerate(pick)]

        width = (first if rng.random() < 0.5 else second)["embed_dim"]
        return self.arch(width, genes("num_heads"), genes("mlp_ratio"))

    def contains(self, arch: Arch) -> bool:
        try:
            depth = arch["depth"]
            return (
                arch.family == self.family
                and set(arch.genes) == {"embed_dim", "depth", "num_heads", "mlp_ratio"}
                and depth in self.depth
                and len(arch["num_heads"]) == len(arch["mlp_ratio"]) == depth
                and arch["embed_dim"] in self.embed_dim
                and set(arch["num_heads"]) <= set(self.num_heads)
                and set(arch["mlp_ratio"]) <= set(self.mlp_ratio)
            )
        except (KeyError, TypeError):
            return False

    def read(self, text: str) -> Arch:
        """Read canonical JSON, or a network as others publish it, in JSON or YAML: the section ``RETRAIN`` of
        AutoFormer, TF-TAS and AZ-NAS (alone or in its file), an entry of PreNAS, an entry of ViT-Bench-101."""
        genes = published_genes(text)
        width = genes["embed_dim"]
        if isinstance(width, list) and len(width) == genes["depth"] and len(set(width)) == 1:  # PreNAS repeats it
            genes["embed_dim"] = width[0]
        return Arch(genes.pop("family", self.family), genes)

    def features(self, arch: Arch) -> dict[str, float]:
        """Return depth and width; of heads and MLP ratio the mean and spread over the blocks, and where along the depth
        they are large (slope over the block index)."""
        out = {"embed_dim": float(arch["embed_dim"]), "depth": float(arch["depth"])}
        position = np.linspace(-1, 1, arch["depth"])
        for gene in ("num_heads", "mlp_ratio"):
            x = np.array(arch[gene], dtype=np.float64)
            out |= {f"{gene}_mean": x.mean(), f"{gene}_std": x.std(), f"{gene}_slope": (x * position).mean()}
        return out

    def size(self) -> int:
        per_block = len(self.num_heads) * len(self.mlp_ratio)
        return len(self.embed_dim) * sum(per_block**d for d in self.depth)

    def extremes(self) -> tuple[Arch, Arch]:
        # Heads that share the width are wider, and so are their tables of relative positions, the fewer they are.
        few, many = (max, min) if self.head_dim == "auto" else (min, max)

        def uniform(pick, heads):
            depth = pick(self.depth)
            return self.arch(pick(self.embed_dim), [heads(self.num_heads)] * depth, [pick(self.mlp_ratio)] * depth)

        return uniform(min, few), uniform(max, many)

    def head_width(self, arch: Arch, heads: int) -> int:
        """Return the width of each head of a block with this many heads."""
        return arch["embed_dim"] // heads if self.head_dim == "auto" else self.head_dim

    @property
    def tokens(self) -> int:
        """Tokens of one image: patches and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def relative_positions(self) -> int:
        """Rows of one relative-position table: offsets -max..max, and one for the class token; 0 without tables."""
        return 2 * self.max_relative_position + 2 if self.relative_position else 0

    def params(self, arch: Arch) -> int:
        D, N = arch["embed_dim"], self.tokens
        total = self.channels * self.patch_size**2 * D + D  # patch embedding
        total += D + N * D  # class token, absolute positions
        for heads, ratio in zip(arch["num_heads"], arch["mlp_ratio"], strict=True):
            d = self.head_width(arch, heads)
            Q, F = d * heads, int(D * ratio)
            total += 4 * D  # two LayerNorms
            total += D * 3 * Q + 3 * Q + Q * D + D  # qkv, proj
            total += D * F + F + F * D + D  # fc1, fc2
            total += 4 * self.relative_positions * d
        return total + 2 * D + D * self.classes + self.classes  # final LayerNorm, head

    def macs(self, arch: Arch) -> int:
        """Count relative positions as they are executed here (products with the T table rows, then gathers): 4NTQ per
        block, not the 2N^2 Q of a dense table."""
        D, N = arch["embed_dim"], self.tokens
        total = (N - 1) * self.channels * self.patch_size**2 * D
        for heads, ratio in zip(arch["num_heads"], arch["mlp_ratio"], strict=True):
            Q, F = self.head_width(arch, heads) * heads, int(D * ratio)
            total += N * (4 * D * Q + 2 * D * F) + 2 * N * N * Q
            total += 4 * N * self.relative_positions * Q
        return total + D * self.classes


def make(preset: str | None = None, **settings) -> AutoFormerSpace:
    """Make a space of a preset, of choices, or of a preset with changed choices."""
    values = PRESETS.get(preset, {}) | settings
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
