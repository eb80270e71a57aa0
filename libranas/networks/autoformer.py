"""AutoFormer vision transformers as plain timm models.

A port of AutoFormer's network (Chen et al., ICCV 2021; microsoft/Cream) onto timm's VisionTransformer:
per-block heads and MLP ratios through timm's ``block_fn``, a head width that does not depend on the
embedding width, two-dimensional relative positions on keys and values, average pooling of the patch
tokens after the last LayerNorm. Registered with timm as ``libranas_autoformer``, so
``timm.create_model``, ``features_only``, ``save_for_hf`` and ``local-dir:`` loading work.

Where this differs from the authors' code: the class token starts at timm's N(0, 1e-6) instead of
N(0, 0.02), and drop-path rates run over the network's own depth.

Legend: B images, N tokens, H heads, d head width, T relative positions, D embedding width.
"""

from functools import partial
from typing import Literal

import torch
from timm.layers import Attention, maybe_add_mask, resolve_self_attn_mask, to_2tuple
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from libranas.core.arch import Arch
from libranas.spaces import AutoFormerSpace

__all__ = ["AutoFormerViT", "model_args"]

#: Standard deviation that timm and AutoFormer give the weights of linear layers.
TIMM_STD = 0.02


class RelativePosition(nn.Module):
    """Tables of vertical and horizontal offsets, added together (Shaw et al., 2018, in two dimensions).

    Row 0 belongs to every pair that involves a prefix token (class token, registers); row ``1 + max + clamp(offset)``
    to the rest.
    """

    def __init__(self, head_dim: int, max_offset: int, device=None, dtype=None):
        super().__init__()
        rows = 2 * max_offset + 2
        self.vertical_Td = nn.Parameter(torch.empty(rows, head_dim, device=device, dtype=dtype))
        self.horizontal_Td = nn.Parameter(torch.empty(rows, head_dim, device=device, dtype=dtype))
        for table in (self.vertical_Td, self.horizontal_Td):
            nn.init.trunc_normal_(table, std=0.02)

    def key_logits(self, q_BHNd: torch.Tensor, index_2NN: torch.Tensor) -> torch.Tensor:
        """q . (table[offset]) for all pairs: product with the T rows first, then a gather; shape BHNN."""
        B, H, N, _ = q_BHNd.shape
        return sum(
            (q_BHNd @ table_Td.T).gather(-1, index_NN.expand(B, H, N, N))
            for table_Td, index_NN in zip((self.vertical_Td, self.horizontal_Td), index_2NN, strict=True)
        )

    def mixed_values(self, attn_BHNN: torch.Tensor, index_2NN: torch.Tensor) -> torch.Tensor:
        """sum_m attn[n, m] table[offset(n, m)]: attention summed a row of the table first; shape BHNd."""
        B, H, N, _ = attn_BHNN.shape
        out = 0
        for table_Td, index_NN in zip((self.vertical_Td, self.horizontal_Td), index_2NN, strict=True):
            binned_BHNT = attn_BHNN.new_zeros(B, H, N, len(table_Td))
            binned_BHNT = binned_BHNT.scatter_add(-1, index_NN.expand(B, H, N, N), attn_BHNN)
            out = out + binned_BHNT @ table_Td
        return out


class AutoFormerAttention(Attention):
    """timm's attention with its own head width and optional relative positions.

    Block hands no more than the width and the number of heads to its attention class, so
    :func:`attention_class` makes a subclass that carries the rest as class attributes.
    """

    head_width: int | None
    grid: tuple[int, int]
    prefix: int
    max_offset: int | None

    def __init__(self, dim: int, num_heads: int, device=None, dtype=None, **kwargs):
        super().__init__(dim, num_heads=num_heads, attn_head_dim=self.head_width, device=device, dtype=dtype, **kwargs)
        self.rel_pos_keys = self.rel_pos_values = None
        if self.max_offset is not None:
            make = partial(RelativePosition, self.head_dim, self.max_offset, device=device, dtype=dtype)
            self.rel_pos_keys, self.rel_pos_values = make(), make()
            # Not persistent: it follows from the grid. On the meta device too, it must hold real numbers.
            self.register_buffer("index_2NN", offset_index(self.grid, self.max_offset, self.prefix), persistent=False)

    def forward(self, x, attn_mask=None, is_causal=False):
        if self.rel_pos_keys is None:
            return super().forward(x, attn_mask=attn_mask, is_causal=is_causal)
        B, N, _ = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q_BHNd, k_BHNd, v_BHNd = qkv.unbind(0)
        q_BHNd, k_BHNd = self.q_norm(q_BHNd) * self.scale, self.k_norm(k_BHNd)
        attn_BHNN = q_BHNd @ k_BHNd.transpose(-2, -1) + self.rel_pos_keys.key_logits(q_BHNd, self.index_2NN)
        attn_BHNN = maybe_add_mask(attn_BHNN, resolve_self_attn_mask(N, attn_BHNN, attn_mask, is_causal))
        attn_BHNN = self.attn_drop(attn_BHNN.softmax(dim=-1))
        out_BHNd = attn_BHNN @ v_BHNd + self.rel_pos_values.mixed_values(attn_BHNN, self.index_2NN)
        return self.proj_drop(self.proj(self.norm(out_BHNd.transpose(1, 2).reshape(B, N, self.attn_dim))))


def offset_index(grid: tuple[int, int], max_offset: int, prefix: int = 1) -> torch.Tensor:
    """Row of the vertical and horizontal table for each pair of tokens, the `prefix` tokens first; (2, N, N)."""
    with torch.device("cpu"):
        rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
        index = []
        for position in (rows.flatten(), columns.flatten()):
            offset = (position[None, :] - position[:, None]).clamp(-max_offset, max_offset) + max_offset + 1
            index.append(nn.functional.pad(offset, (prefix, 0, prefix, 0)))
        return torch.stack(index)


def attention_class(
    head_width: int | None, grid: tuple[int, int], prefix: int, max_offset: int | None
) -> type[AutoFormerAttention]:
    """The attention class of a network with `prefix` tokens before the patches; `max_offset` None means no relative
    positions."""
    attributes = {"head_width": head_width, "grid": grid, "prefix": prefix, "max_offset": max_offset}
    return type("AutoFormerAttention", (AutoFormerAttention,), attributes)


class AutoFormerViT(VisionTransformer):
    """A vision transformer of the AutoFormer space; a timm model in every respect.

    Parameters
    ----------
    num_heads, mlp_ratio : list with one entry a block
    head_dim : int or "auto"
        Width of one head; auto: the embedding width is shared out among the heads of a block.
    relative_position : bool
    max_relative_position : int
        Offsets are clamped to this many patches.
    init_std : float
        Standard deviation of the initial weights of linear layers; published: 0.02. That suits widths of some
        hundreds; at widths of some tens such weights are far below 1 / sqrt(width) and training starts slowly.
    **kwargs
        As for timm's VisionTransformer, except what makes up the space: depth, blocks, attention and normalisation.

    Raises
    ------
    ValueError
        If `num_heads` and `mlp_ratio` differ in length; for attention pooling (``global_pool`` "map" and "prr"); with
        relative positions also for ``dynamic_img_size`` and ``patch_drop_rate``: attention has to know every place.
    """

    def __init__(
        self,
        num_heads: list[int],
        mlp_ratio: list[float],
        head_dim: int | Literal["auto"] = 64,
        relative_position: bool = True,
        max_relative_position: int = 14,
        init_std: float = TIMM_STD,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        **kwargs,
    ):
        if len(num_heads) != len(mlp_ratio):
            raise ValueError(f"{len(num_heads)} entries in num_heads but {len(mlp_ratio)} in mlp_ratio")
        if kwargs.get("global_pool") in ("map", "prr"):
            raise ValueError(
                f"global_pool {kwargs['global_pool']!r} is not supported: attention pooling has one number of heads, "
                "these networks one a block; choose avg, avgmax, max or token"
            )
        if relative_position and kwargs.get("dynamic_img_size"):
            raise ValueError(
                "dynamic_img_size is not supported with relative positions, whose offsets follow from the grid of "
                "patches; call set_input_size(img_size=...) for another size, or set relative_position=False"
            )
        if relative_position and kwargs.get("patch_drop_rate"):
            raise ValueError(
                "patch_drop_rate is not supported with relative positions, since each image would keep patches of "
                "other places; leave it at 0, or set relative_position=False"
            )
        # timm's exports give the size as a pair
        grid = tuple(n // p for n, p in zip(to_2tuple(img_size), to_2tuple(patch_size), strict=True))
        self.init_std = init_std  # before the parent's constructor, which initialises the weights
        width = None if head_dim == "auto" else head_dim
        # The factory sets these in general; a fixed network has no use for other values.
        kwargs = {"global_pool": "avg", "fc_norm": False, "class_token": True, "qkv_bias": True, **kwargs}
        prefix = int(kwargs["class_token"]) + kwargs.get("reg_tokens", 0)

        def block(depth, num_heads, mlp_ratio, **common):
            return Block(num_heads=num_heads[depth], mlp_ratio=mlp_ratio[depth], depth=depth, **common)

        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            depth=len(num_heads),
            num_heads=list(num_heads),
            mlp_ratio=list(mlp_ratio),
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
            block_fn=block,
            attn_layer=attention_class(width, grid, prefix, max_relative_position if relative_position else None),
            **kwargs,
        )

    def init_weights(self, *args, **kwargs):
        """As timm's, with linear weights scaled to `init_std`. A network without storage has nothing to initialise."""
        if next(self.parameters()).is_meta:
            return  # it would take five times as long as the rest, in every step of a supernet
        super().init_weights(*args, **kwargs)
        if self.init_std != TIMM_STD:
            with torch.no_grad():
                for module in self.modules():
                    if isinstance(module, nn.Linear):
                        module.weight.mul_(self.init_std / TIMM_STD)

    def set_input_size(self, img_size=None, patch_size=None):
        """As timm's; the relative-position tables stay, their index follows the new grid."""
        super().set_input_size(img_size=img_size, patch_size=patch_size)
        for block in self.blocks:
            if block.attn.rel_pos_keys is not None:
                index = offset_index(self.patch_embed.grid_size, block.attn.max_offset, self.num_prefix_tokens)
                block.attn.index_2NN = index.to(block.attn.index_2NN.device)


default_cfgs = generate_default_cfgs(
    {
        "libranas_autoformer.untrained": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": None,
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "fixed_input_size": True,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
    }
)


def model_args(space: AutoFormerSpace, arch: Arch) -> dict:
    """Arguments of ``timm.create_model("libranas_autoformer", ...)`` for `arch`; JSON-ready."""
    return {
        "embed_dim": arch["embed_dim"],
        "num_heads": list(arch["num_heads"]),
        "mlp_ratio": list(arch["mlp_ratio"]),
        "head_dim": space.head_dim,
        "relative_position": space.relative_position,
        "max_relative_position": space.max_relative_position,
        "init_std": space.init_std,
        "img_size": space.image_size,
        "patch_size": space.patch_size,
        "in_chans": space.channels,
        "num_classes": space.classes,
    }


@register_model
def libranas_autoformer(pretrained: bool = False, **kwargs) -> AutoFormerViT:
    """An AutoFormer network of any shape; see :class:`AutoFormerViT` for the arguments."""
    return build_model_with_cfg(
        AutoFormerViT,
        "libranas_autoformer",
        pretrained,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **kwargs,
    )
