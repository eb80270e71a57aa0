"""AutoFormer vision transformers (Chen et al., ICCV 2021; microsoft/Cream), with the interface of a timm model.

Each block has its own number of heads and MLP ratio. In published networks the head width does not depend on the
embedding width, keys and values have two-dimensional relative positions, and the patch tokens are averaged after the
last LayerNorm; other stems, positions, poolings and blocks are options. Names of parameters and initial weights are
those of timm's VisionTransformer. This module does not import timm, which takes longer than scoring a small network.
Differences from the authors' code: the class token starts at N(0, 1e-6) instead of N(0, 0.02), and drop-path rates run
over the network's own depth.

Legend: B images, N tokens, H heads, d head width, D embedding width.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from libranas.core.arch import Arch
from libranas.networks.initial_weights import Draw, initialise, usual
from libranas.networks.operations import DropPath, transformer_cfg
from libranas.networks.relative_position import RelativePosition, attend_one_hot, offset_index
from libranas.spaces import AutoFormerSpace
from libranas.spaces.autoformer import NETWORK_GENES, Mlp, Pool, Position, Stem, conv_stem, mlp_width

#: Standard deviation of the initial weights of linear layers in timm and AutoFormer.
USUAL_STD = 0.02
#: Initial values of the learned scales of the residual branches, as in timm.
LAYER_SCALE = 1e-5


def pair(size: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else tuple(size)


def sincos_positions(grid: tuple[int, int], dim: int) -> torch.Tensor:
    """Fixed positions (1, 1 + patches, D), zeros for the class token (Vaswani et al., 2017; in two dimensions as of
    Chen et al., MoCo v3, 2021): sine and cosine of the row, then of the column, each with D / 4 frequencies."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    frequency_F = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles_NF = [place.flatten()[:, None] * frequency_F for place in (rows, columns)]
    table_ND = torch.cat([wave(angle_NF) for angle_NF in angles_NF for wave in (torch.sin, torch.cos)], dim=1)
    return nn.functional.pad(table_ND.float(), (0, 0, 1, 0))[None]


class Attention(nn.Module):
    """Self-attention with heads of any width and optional relative positions.

    Parameters
    ----------
    dim : embedding width D
    head_dim : width d of a head; "auto": D divided by `num_heads`
    index_2NN : rows of the tables of relative positions (:func:`offset_index`); None: no relative positions
    columns : of the grid of patches
    max_offset : largest offset of the relative positions, in patches
    qk_norm : LayerNorm of the queries and keys of each head

    Attributes
    ----------
    fused_attn : use PyTorch's fused attention where there are no relative positions
    one_hot_positions : compute relative positions as wider heads (:func:`attend_one_hot`): equal, and meant for a GPU
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | Literal["auto"],
        index_2NN: torch.Tensor | None,
        columns: int,
        max_offset: int,
        qk_norm: bool,
    ):
        super().__init__()
        if head_dim == "auto" and dim % num_heads:
            raise ValueError(f"embed_dim {dim} cannot be shared out among {num_heads} heads; give head_dim a number")
        self.num_heads, self.head_dim = num_heads, dim // num_heads if head_dim == "auto" else head_dim
        self.scale, self.max_offset, self.columns = self.head_dim**-0.5, max_offset, columns
        self.fused_attn, self.one_hot_positions = True, False
        self.qkv = nn.Linear(dim, 3 * num_heads * self.head_dim)
        self.q_norm = nn.LayerNorm(self.head_dim) if qk_norm else None
        self.k_norm = nn.LayerNorm(self.head_dim) if qk_norm else None
        self.proj = nn.Linear(num_heads * self.head_dim, dim)
        self.rel_pos_keys = self.rel_pos_values = None
        if index_2NN is not None:
            self.rel_pos_keys = RelativePosition(self.head_dim, max_offset)
            self.rel_pos_values = RelativePosition(self.head_dim, max_offset)
            # A copy, since a network may be cut into pieces. Not persistent: it follows from the grid.
            self.register_buffer("index_2NN", index_2NN.clone(), persistent=False)

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        B, N, _ = x_BND.shape
        qkv = self.qkv(x_BND).reshape(B, N, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q_BHNd, k_BHNd, v_BHNd = qkv.unbind(0)
        if self.q_norm is not None:
            q_BHNd, k_BHNd = self.q_norm(q_BHNd), self.k_norm(k_BHNd)
        if self.fused_attn and self.rel_pos_keys is None:
            out_BHNd = F.scaled_dot_product_attention(q_BHNd, k_BHNd, v_BHNd)
        elif self.one_hot_positions and self.rel_pos_keys is not None:
            tables = self.rel_pos_keys, self.rel_pos_values
            out_BHNd = attend_one_hot(q_BHNd * self.scale, k_BHNd, v_BHNd, *tables, self.index_2NN, self.columns)
        else:
            q_BHNd = q_BHNd * self.scale
            logits_BHNN = q_BHNd @ k_BHNd.transpose(-2, -1)
            if self.rel_pos_keys is not None:
                logits_BHNN = logits_BHNN + self.rel_pos_keys.key_logits(q_BHNd, self.index_2NN)
            attn_BHNN = logits_BHNN.softmax(dim=-1)
            out_BHNd = attn_BHNN @ v_BHNd
            if self.rel_pos_values is not None:
                out_BHNd = out_BHNd + self.rel_pos_values.mixed_values(attn_BHNN, self.index_2NN)
        return self.proj(out_BHNd.transpose(1, 2).reshape(B, N, -1))


class MLP(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x_BND)))


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer, 2020): half of the first layer's outputs, through SiLU, times the other half; then linear."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, 2 * hidden), nn.SiLU(), nn.Linear(hidden, dim)

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        gate_BNF, value_BNF = self.fc1(x_BND).chunk(2, dim=-1)
        return self.fc2(self.act(gate_BNF) * value_BNF)


class LayerScale(nn.Module):
    """Learned scales of the channels of a residual branch (Touvron et al., ICCV 2021)."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(dim))

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        return x_BND * self.gamma


class Block(nn.Module):
    """Attention and MLP, each after a LayerNorm and beside a residual connection.

    What a network does not have is None, not an identity: some proxies look at the outputs of all modules."""

    def __init__(self, dim: int, mlp_ratio: float, drop_path: float, mlp: Mlp, layer_scale: bool, **attention):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, **attention)
        self.ls1 = LayerScale(dim) if layer_scale else None
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = {"gelu": MLP, "swiglu": GatedMLP}[mlp](dim, mlp_width(dim, mlp_ratio, mlp))
        self.ls2 = LayerScale(dim) if layer_scale else None
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        branch_BND = self.attn(self.norm1(x_BND))
        x_BND = x_BND + self.drop_path1(branch_BND if self.ls1 is None else self.ls1(branch_BND))
        branch_BND = self.mlp(self.norm2(x_BND))
        return x_BND + self.drop_path2(branch_BND if self.ls2 is None else self.ls2(branch_BND))


class PatchEmbedding(nn.Module):
    """The patches of an image of one size as tokens: a linear projection, or convolutions.

    The convolutional stem (Xiao et al., NeurIPS 2021) is :func:`libranas.spaces.autoformer.conv_stem`. Its norms take
    all channels and pixels of one image together, so that no image depends on another. `proj` is the first convolution
    in both cases: timm looks for that by its name."""

    def __init__(self, img_size, patch_size, channels: int, dim: int, stem: Stem):
        super().__init__()
        self.patch_size = pair(patch_size)
        self.rest = None
        if stem == "conv":
            if self.patch_size[0] != self.patch_size[1]:
                raise ValueError(f"a convolutional stem needs square patches, not {patch_size}")
            convolutions, last = conv_stem(self.patch_size[0], dim)
            layers = []
            for outputs, stride in convolutions:
                convolution = nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False)
                layers += [convolution, nn.GroupNorm(1, outputs), nn.ReLU()]
                channels = outputs
            self.proj, self.rest = layers[0], nn.Sequential(*layers[1:], nn.Conv2d(channels, dim, last, stride=last))
        else:
            self.proj = nn.Conv2d(channels, dim, self.patch_size, stride=self.patch_size)
        self.set_input_size(img_size)

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        self.img_size = pair(img_size)
        self.grid_size = tuple(n // p for n, p in zip(self.img_size, self.patch_size, strict=True))

    def check(self, x_BCHW: torch.Tensor) -> None:
        height, width = self.img_size
        torch._assert(x_BCHW.shape[2] == height, f"the images must be {height} pixels high; see set_input_size")
        torch._assert(x_BCHW.shape[3] == width, f"the images must be {width} pixels wide; see set_input_size")

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        self.check(x_BCHW)
        x_BDHW = self.proj(x_BCHW)
        if self.rest is not None:
            x_BDHW = self.rest(x_BDHW)
        return x_BDHW.flatten(2).transpose(1, 2)


class AutoFormerViT(nn.Module):
    """A vision transformer of the AutoFormer space, with the interface of a timm model.

    Parameters
    ----------
    num_heads, mlp_ratio : one entry per block
    head_dim : width of one head; "auto": the embedding width is shared out among the heads of a block
    relative_position : short for the position "both" (true) or "absolute" (false)
    max_relative_position : offsets are clamped to this many patches
    init_std : standard deviation of the initial weights of linear layers; published: 0.02. That suits widths of some
        hundreds; at widths of some tens such weights are far below 1 / sqrt(width) and training starts slowly.
    drop_path_rate : stochastic depth of the last block; it rises linearly from 0
    global_pool : what the classifier sees: the mean of the patch tokens, or the class token
    stem : a linear projection of the patches, or convolutions
    position : learned absolute, relative on keys and values, both, or fixed sines and cosines; None: as
        `relative_position` says
    mlp : of the blocks: with GELU, or gated by SiLU
    qk_norm : LayerNorm of the queries and keys of each head
    layer_scale : learned scales of the residual branches, at first 1e-5 (timm's default)

    Raises
    ------
    ValueError
        If `num_heads` and `mlp_ratio` differ in length, the heads cannot share the width, or the pooling is unknown.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: list[int],
        mlp_ratio: list[float],
        head_dim: int | Literal["auto"] = 64,
        relative_position: bool = True,
        max_relative_position: int = 14,
        init_std: float = USUAL_STD,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        global_pool: Pool = "avg",
        stem: Stem = "linear",
        position: Position | None = None,
        mlp: Mlp = "gelu",
        qk_norm: bool = False,
        layer_scale: bool = False,
    ):
        super().__init__()
        if global_pool not in ("avg", "token"):
            raise ValueError(f"global_pool {global_pool!r} is not supported: choose avg or token")
        if len(num_heads) != len(mlp_ratio):
            raise ValueError(f"{len(num_heads)} entries in num_heads but {len(mlp_ratio)} in mlp_ratio")
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.in_chans, self.global_pool = in_chans, global_pool
        self.init_std, self.grad_checkpointing = init_std, False
        position = position or ("both" if relative_position else "absolute")
        self.patch_embed = PatchEmbedding(img_size, patch_size, in_chans, embed_dim, stem)
        grid = self.patch_embed.grid_size
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.learned_positions = position in ("absolute", "both")
        if self.learned_positions:
            self.pos_embed = nn.Parameter(torch.empty(1, 1 + grid[0] * grid[1], embed_dim))
        else:  # not persistent: it follows from the grid
            fixed = sincos_positions(grid, embed_dim) if position == "sincos" else None
            self.register_buffer("pos_embed", fixed, persistent=False)
        relative = position in ("relative", "both")
        index_2NN = offset_index(grid, max_relative_position) if relative else None
        block = {"head_dim": head_dim, "index_2NN": index_2NN, "columns": grid[1], "max_offset": max_relative_position}
        block |= {"mlp": mlp, "qk_norm": qk_norm, "layer_scale": layer_scale}
        rates = torch.linspace(0, drop_path_rate, len(num_heads), device="cpu").tolist()
        self.blocks = nn.Sequential(
            *(
                Block(embed_dim, ratio, rate, num_heads=heads, **block)
                for heads, ratio, rate in zip(num_heads, mlp_ratio, rates, strict=True)
            )
        )
        self.feature_info = [
            {"module": f"blocks.{i}", "num_chs": embed_dim, "reduction": patch_size} for i in range(len(num_heads))
        ]
        self.norm = nn.LayerNorm(embed_dim)
        self.reset_classifier(num_classes)
        initialise(self, self._initial)

    def _initial(self, module: nn.Module, key: str) -> Draw | None:
        """Return the distribution that timm uses, for the weights of linear layers with `init_std`."""
        if isinstance(module, nn.Linear):
            return Draw("normal", self.init_std) if key == "weight" else Draw("constant", 0)
        if key in ("pos_embed", "vertical_Td", "horizontal_Td"):
            return Draw("normal", USUAL_STD)
        if key == "gamma":
            return Draw("constant", LAYER_SCALE)
        return Draw("normal", 1e-6) if key == "cls_token" else usual(module, key)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) of images (B, channels, height, width)."""
        return self.forward_head(self.forward_features(x_BCHW))

    def forward_features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Tokens after the last norm, the class token first: (B, N, D)."""
        return self.norm(self._through_blocks(x_BCHW)[-1])

    def forward_head(self, x_BND: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Logits of the mean of the patch tokens or of the class token; with `pre_logits` what they are made of."""
        pooled_BD = x_BND[:, 0] if self.global_pool == "token" else x_BND[:, 1:].mean(dim=1)
        return pooled_BD if pre_logits else self.head(pooled_BD)

    def _through_blocks(self, x_BCHW: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
        """The tokens after each of the first `count` blocks."""
        x_BND = self.patch_embed(x_BCHW)
        x_BND = torch.cat([self.cls_token.expand(x_BND.shape[0], -1, -1), x_BND], dim=1)
        if self.pos_embed is not None:
            x_BND = x_BND + self.pos_embed
        outputs = []
        for block in self.blocks[:count]:
            if self.grad_checkpointing:
                x_BND = torch.utils.checkpoint.checkpoint(block, x_BND, use_reentrant=False)
            else:
                x_BND = block(x_BND)
            outputs.append(x_BND)
        return outputs

    # What follows is timm's interface; the names are timm's.

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ):
        """The patch tokens after some blocks, as maps (B, D, rows, columns) or, with NLC, as tokens.

        `indices`: the blocks, or how many of the last ones; None: all. Returned after ``forward_features`` unless
        `intermediates_only`.
        """
        every = range(len(self.blocks))
        chosen = [every[i] for i in ([*every][-indices:] if isinstance(indices, int) else indices or every)]
        outputs = self._through_blocks(x, max(chosen) + 1 if stop_early or intermediates_only else None)
        patches = [(self.norm(outputs[i]) if norm else outputs[i])[:, 1:] for i in chosen]
        if output_fmt == "NCHW":
            grid = self.patch_embed.grid_size
            patches = [y_BND.transpose(1, 2).unflatten(2, grid).contiguous() for y_BND in patches]
        return patches if intermediates_only else (self.norm(outputs[-1]), patches)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """A new last layer; 0 classes: none."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.embed_dim, num_classes) if num_classes else nn.Identity()
        self.head.to(self.cls_token.device, self.cls_token.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict:
        """Parameters by depth, for a learning rate that decays with it."""
        return {
            "stem": r"^cls_token|pos_embed|patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Take images of another size: positions are resampled, relative positions follow the new grid."""
        from timm.layers import resample_abs_pos_embed
        from timm.models._input import update_model_input_size

        old = self.patch_embed.grid_size
        self.patch_embed.set_input_size(img_size)
        new = self.patch_embed.grid_size
        if new != old and self.learned_positions:
            resampled = resample_abs_pos_embed(self.pos_embed.detach(), list(new), list(old), num_prefix_tokens=1)
            self.pos_embed = nn.Parameter(resampled, self.pos_embed.requires_grad)
        elif new != old and self.pos_embed is not None:
            self.pos_embed = sincos_positions(new, self.embed_dim).to(self.pos_embed)
        for block in self.blocks:
            if block.attn.rel_pos_keys is not None:
                block.attn.index_2NN = offset_index(new, block.attn.max_offset).to(block.attn.index_2NN.device)
                block.attn.columns = new[1]
        update_model_input_size(self, self.patch_embed.img_size)


#: The network class, what timm is told of an untrained network, and how timm takes features out of it.
NETWORK = AutoFormerViT
TIMM_CFG = transformer_cfg("patch_embed.proj", crop_pct=0.875)
TIMM_FEATURES = {"out_indices": 3, "feature_cls": "getter"}


def model_args(space: AutoFormerSpace, arch: Arch) -> dict:
    """Arguments of :data:`NETWORK` for `arch`, JSON-ready; of newer ones those that are not as published."""
    genes = space.network_genes(arch)
    position, patch_size = genes.pop("position"), genes.pop("patch_size")
    genes["global_pool"] = genes.pop("pool")
    return {
        "embed_dim": arch["embed_dim"],
        "num_heads": list(arch["num_heads"]),
        "mlp_ratio": list(arch["mlp_ratio"]),
        "head_dim": space.head_dim,
        "relative_position": position in ("relative", "both"),
        "max_relative_position": space.max_relative_position,
        "init_std": arch["embed_dim"] ** -0.5 if space.init_std == "auto" else space.init_std,
        "img_size": space.image_size,
        "patch_size": patch_size,
        "in_chans": space.channels,
        "num_classes": space.classes,
        **({"position": position} if position in ("relative", "sincos") else {}),
        **{name: value for name, value in genes.items() if value != NETWORK_GENES.get(name, "avg")},
    }
