"""Pooling-based vision transformers (Heo et al., ICCV 2021): timm's network.

Initial weights have timm's distribution. Added: another input size, and gradient checkpointing per stage. Drop-path
rates reach their maximum in the last block; in the code of Auto-Prox, which trained the same network for ViT-Bench-101,
one step below.
"""

import torch
from timm.layers import resample_abs_pos_embed_nhwc, to_2tuple
from timm.models import checkpoint
from timm.models.pit import PoolingVisionTransformer
from torch import nn

from libranas.core.arch import Arch
from libranas.networks.initial_weights import Draw, initialise, usual
from libranas.networks.operations import transformer_cfg
from libranas.spaces.pit import STAGES, PiTSpace


class PiT(PoolingVisionTransformer):
    """A network of the space. `base_dim` is the width of one head in every stage, `depth` and `heads` have one entry a
    stage; the rest is as for timm's PoolingVisionTransformer."""

    def __init__(self, base_dim: int, depth: list[int], heads: list[int], mlp_ratio: float, **kwargs):
        self.grad_checkpointing = False
        super().__init__(base_dims=[base_dim] * STAGES, depth=depth, heads=heads, mlp_ratio=mlp_ratio, **kwargs)
        initialise(self, self._initial)

    @staticmethod
    def _initial(module: nn.Module, key: str) -> Draw | None:
        return Draw("normal", 0.02) if key in ("pos_embed", "cls_token") else usual(module, key)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Take images of another size: the positions are resampled."""
        embed, conv = self.patch_embed, self.patch_embed.conv
        size, stride, patch = to_2tuple(img_size), conv.stride, conv.kernel_size
        embed.img_size = size
        embed.grid_size = tuple((n - p) // s + 1 for n, p, s in zip(size, patch, stride, strict=True))
        embed.height, embed.width = embed.grid_size
        positions_1HWC = self.pos_embed.detach().permute(0, 2, 3, 1)
        resampled = resample_abs_pos_embed_nhwc(positions_1HWC, list(embed.grid_size)).permute(0, 3, 1, 2)
        self.pos_embed = nn.Parameter(resampled.contiguous(), self.pos_embed.requires_grad)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """The class token after the last norm, (B, 1, D)."""
        x = self.pos_drop(self.patch_embed(x) + self.pos_embed)
        tokens = self.cls_token.expand(x.shape[0], -1, -1)
        for stage in self.transformers:
            again = self.grad_checkpointing and self.training and not torch.jit.is_scripting()
            x, tokens = checkpoint(stage, (x, tokens)) if again else stage((x, tokens))
        return self.norm(tokens)


#: The network class, and what timm is told of an untrained network.
NETWORK = PiT
TIMM_CFG = transformer_cfg("patch_embed.conv", crop_pct=0.9)
TIMM_FEATURES = {"out_indices": 3, "feature_cls": "getter"}


def model_args(space: PiTSpace, arch: Arch) -> dict:
    """Arguments of :data:`NETWORK` for `arch`; JSON-ready."""
    return {
        "base_dim": arch["base_dim"],
        "depth": list(arch["depth"]),
        "heads": list(arch["num_heads"]),
        "mlp_ratio": arch["mlp_ratio"],
        "img_size": space.image_size,
        "patch_size": space.patch_size,
        "stride": space.stride,
        "in_chans": space.channels,
        "num_classes": space.classes,
    }
