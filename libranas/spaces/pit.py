"""The search space of pooling-based vision transformers (Heo et al., ICCV 2021) of ViT-Bench-101.

The network has overlapping patches, three stages of equal transformer blocks, a depthwise convolution with stride 2
between two stages, and a class token. The choices are those of TF-TAS (Zhou et al., CVPR 2022) and Auto-Prox (Wei et
al., AAAI 2024). Stage i is ``base_dim * heads_i`` wide.

Legend for the closed forms: D width of a stage, F = int(D * mlp_ratio), N tokens of a stage (pixels and class token).
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

import numpy as np

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.typed import setting
from libranas.spaces.base import Space
from libranas.spaces.published_genes import published_genes
from libranas.spaces.registry import SpaceFamily

STAGES = 3
GENES = ("base_dim", "mlp_ratio", "depth", "num_heads")


@dataclass(frozen=True)
class PiTSpace(Space):
    """Choices of a PiT space, and the task, which fixes the rest of the network. The defaults are published.

    The heads of a stage are a multiple of those of the one before, as the depthwise convolution between them needs.
    """

    base_dim: tuple[int, ...] = setting(
        "Widths of an attention head, one for the network; the default is published.", default=(16, 24, 32, 40)
    )
    mlp_ratio: tuple[float, ...] = setting(
        "MLP ratios, one for the network; the default is published.", default=(2.0, 4.0, 6.0, 8.0)
    )
    stage_depth: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = setting(
        "Blocks of each of the three stages; the default is published.", default=((1, 2, 3), (4, 6, 8), (2, 4, 6))
    )
    num_heads: tuple[int, ...] = setting("Attention heads of each stage; the default is published.", default=(2, 4, 8))
    image_size: int = 224
    patch_size: int = setting("Pixels a side of a patch.", 16)
    stride: int | None = setting("Pixels between two patches; default half a patch.", default=None)
    channels: int = 3
    classes: int = 1000

    family = "pit"
    #: Probability that a mutation redraws a gene.
    P_GENE = 0.3

    def __post_init__(self):
        for gene in ("base_dim", "mlp_ratio", "num_heads"):
            object.__setattr__(self, gene, tuple(sorted(set(getattr(self, gene)))))
        object.__setattr__(self, "stage_depth", tuple(tuple(sorted(set(depths))) for depths in self.stage_depth))
        if self.stride is None:
            object.__setattr__(self, "stride", max(1, self.patch_size // 2))
        if self.image_size < self.patch_size:
            raise LibranasError(
                f"space.patch_size {self.patch_size} is larger than data.image_size {self.image_size}.",
                "Choose smaller patches or larger images.",
            )

    @cached_property
    def heads(self) -> tuple[tuple[int, ...], ...]:
        """All choices of heads; every stage has a multiple of the one before."""
        return tuple(
            heads
            for heads in product(self.num_heads, repeat=STAGES)
            if all(later % earlier == 0 for earlier, later in pairwise(heads))
        )

    def arch(self, base_dim: int, mlp_ratio: float, depth, num_heads) -> Arch:
        """Return the member with these genes (depth and heads: one entry a stage)."""
        return Arch(
            self.family,
            {
                "base_dim": int(base_dim),
                "mlp_ratio": float(mlp_ratio),
                "depth": tuple(int(d) for d in depth),
                "num_heads": tuple(int(h) for h in num_heads),
            },
        )

    def sample(self, rng: np.random.Generator) -> Arch:
        """Draw each choice uniformly; of the heads, all stages at once."""
        depth = [rng.choice(choices) for choices in self.stage_depth]
        heads = self.heads[rng.integers(len(self.heads))]
        return self.arch(rng.choice(self.base_dim), rng.choice(self.mlp_ratio), depth, heads)

    def _mixed(self, a: Arch, b: Arch, take: np.ndarray) -> Arch:
        """Take genes of `b` where `take` says so, else of `a`: width, ratio, the depth of each stage, all heads."""

        def flat(arch: Arch) -> tuple:
            return arch["base_dim"], arch["mlp_ratio"], *arch["depth"], arch["num_heads"]

        width, ratio, *depth, heads = (y if t else x for x, y, t in zip(flat(a), flat(b), take, strict=True))
        return self.arch(width, ratio, depth, heads)

    def mutate(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """Redraw each gene with probability ``P_GENE``; the heads of all stages are one gene."""
        return self._mixed(arch, self.sample(rng), rng.random(3 + STAGES) < self.P_GENE)

    def cross(self, a: Arch, b: Arch, rng: np.random.Generator) -> Arch:
        """Cross uniformly; the heads of all stages are one gene."""
        return self._mixed(a, b, rng.random(3 + STAGES) < 0.5)

    def contains(self, arch: Arch) -> bool:
        return arch.family == self.family and not self.misfit(arch)

    def misfit(self, arch: Arch) -> str:
        for gene in sorted(set(GENES) ^ arch.genes.keys()):
            return f"it has no {gene}" if gene in GENES else f"{gene} is no gene of this space"
        depth = arch["depth"]
        if not isinstance(depth, tuple) or len(depth) != STAGES:
            return f"depth is {depth}, not a number for each of {STAGES} stages"
        choices = {"base_dim": self.base_dim, "mlp_ratio": self.mlp_ratio, "num_heads": self.heads}
        found = [(gene, arch[gene], known) for gene, known in choices.items()]
        found += [(f"depth of stage {k}", d, self.stage_depth[k]) for k, d in enumerate(depth)]
        for gene, value, known in found:
            if value not in known:
                return f"{gene} {value} is none of {', '.join(map(str, known))}"
        return ""

    def read(self, text: str) -> Arch:
        """Read an entry of ViT-Bench-101, the section ``RETRAIN`` of TF-TAS's files (which hold one width a stage, and
        lists of one number), or canonical JSON."""
        genes = published_genes(text)
        genes.pop("patch_size", None)  # in TF-TAS's files
        for gene in ("base_dim", "mlp_ratio"):
            if isinstance(genes[gene], list):
                (genes[gene],) = set(genes[gene])
        return Arch(genes.pop("family", self.family), genes)

    def features(self, arch: Arch) -> dict[str, float]:
        """Return the genes, and the width of each stage."""
        out = {"base_dim": float(arch["base_dim"]), "mlp_ratio": float(arch["mlp_ratio"])}
        out["depth"] = float(sum(arch["depth"]))
        for stage in range(STAGES):
            out[f"depth_{stage}"] = float(arch["depth"][stage])
            out[f"num_heads_{stage}"] = float(arch["num_heads"][stage])
            out[f"width_{stage}"] = float(arch["base_dim"] * arch["num_heads"][stage])
        return out

    def size(self) -> int:
        return len(self.base_dim) * len(self.mlp_ratio) * len(self.heads) * int(np.prod([*map(len, self.stage_depth)]))

    def extremes(self) -> tuple[Arch, Arch]:
        def uniform(pick):
            depth = [pick(choices) for choices in self.stage_depth]
            return self.arch(pick(self.base_dim), pick(self.mlp_ratio), depth, [pick(self.num_heads)] * STAGES)

        return uniform(min), uniform(max)

    @property
    def grids(self) -> tuple[int, ...]:
        """Pixels a side of the feature map of each stage."""
        sides = [(self.image_size - self.patch_size) // self.stride + 1]
        while len(sides) < STAGES:
            sides.append((sides[-1] - 1) // 2 + 1)  # kernel 3, stride 2, a pixel of padding
        return tuple(sides)

    def _stages(self, arch: Arch) -> list[tuple[int, int, int, int]]:
        """Return for each stage: side of its feature map, width, hidden width of the MLP, blocks."""
        widths = [arch["base_dim"] * heads for heads in arch["num_heads"]]
        return [
            (side, D, int(D * arch["mlp_ratio"]), blocks)
            for side, D, blocks in zip(self.grids, widths, arch["depth"], strict=True)
        ]

    def params(self, arch: Arch) -> int:
        stages = self._stages(arch)
        (side, D, *_), (*_, last, _, _) = stages[0], stages[-1]
        total = self.channels * self.patch_size**2 * D + D  # patch embedding
        total += D * side**2 + D  # positions, class token
        for _, D, F, blocks in stages:
            # two LayerNorms, qkv, proj, fc1, fc2
            total += blocks * (4 * D + D * 3 * D + 3 * D + D * D + D + D * F + F + F * D + D)
        for (_, before, *_), (_, after, *_) in pairwise(stages):
            total += 9 * after + after + before * after + after  # depthwise convolution, class token's linear layer
        return total + 2 * last + last * self.classes + self.classes  # final LayerNorm, head

    def macs(self, arch: Arch) -> int:
        stages = self._stages(arch)
        (side, D, *_), (*_, last, _, _) = stages[0], stages[-1]
        total = side**2 * self.channels * self.patch_size**2 * D
        for side, D, F, blocks in stages:
            N = side**2 + 1
            total += blocks * (N * (4 * D * D + 2 * D * F) + 2 * N * N * D)
        for (_, before, *_), (side, after, *_) in pairwise(stages):
            total += side**2 * 9 * after + before * after
        return total + last * self.classes


FAMILY = SpaceFamily(
    PiTSpace,
    network="libranas.networks.pit",
    image_size=224,
    latency_parts="libranas.latency.parts:PiTParts",
)
