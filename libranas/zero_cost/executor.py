"""AutoFormer networks run forwards and backwards by hand: without autograd, without modules and their hooks.

L-SWAG of a network of 13 thin blocks takes seven tenths of the time (benchmarks/README.md): what a processor spends
besides arithmetic is most of the time for narrow networks. The gradient of a loss is made at the output of every layer,
as the statistics of gradients need it, and at the images; no gradient of a weight is. Autograd is the reference.

Legend: B images, N tokens, P patches, H heads, X images x heads, d head width, D embedding width, I in, O out of a
layer, K classes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from libranas.networks.autoformer import MLP, Attention, AutoFormerViT, Block, PatchEmbedding
from libranas.networks.operations import DropPath
from libranas.networks.relative_position import RelativePosition
from libranas.zero_cost.hooks import Recorder

#: The modules of a network by name, and of each block.
_NETWORK = {"": AutoFormerViT, "patch_embed": PatchEmbedding, "patch_embed.proj": nn.Conv2d, "blocks": nn.Sequential}
_NETWORK |= {"norm": nn.LayerNorm, "head": nn.Linear}
_BLOCK = {"": Block, ".norm1": nn.LayerNorm, ".attn": Attention, ".attn.qkv": nn.Linear, ".attn.proj": nn.Linear}
_BLOCK |= {".drop_path1": DropPath, ".norm2": nn.LayerNorm, ".mlp": MLP, ".mlp.fc1": nn.Linear, ".mlp.act": nn.GELU}
_BLOCK |= {".mlp.fc2": nn.Linear, ".drop_path2": DropPath}
_RELATIVE = {".attn.rel_pos_keys": RelativePosition, ".attn.rel_pos_values": RelativePosition}
#: Their code, which somebody may replace.
_CODE = [
    (kind, name, code)
    for kind in {*_NETWORK.values(), *_BLOCK.values(), *_RELATIVE.values()}
    for name, code in vars(kind).items()
    if name == "forward" or (callable(code) and kind.__module__.startswith("libranas."))
]
_HOOKS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")


def follows(model: nn.Module) -> bool:
    """Return whether :class:`Executor` computes what `model` does.

    Not networks with a convolutional stem, gated MLPs, norms of queries or scales of branches, and none that its user
    has changed or hooked.
    """
    if type(model) is not AutoFormerViT or model.grad_checkpointing or hasattr(model, "features"):
        return False
    modules = dict(model.named_modules(remove_duplicate=False))
    kinds = dict(_NETWORK)
    for i in range(len(model.blocks)):
        parts = _BLOCK | _RELATIVE if f"blocks.{i}.attn.rel_pos_keys" in modules else _BLOCK
        kinds |= {f"blocks.{i}{name}": kind for name, kind in parts.items()}
    tensors = [id(p) for module in modules.values() for p in module._parameters.values() if p is not None]
    return (
        {name: type(module) for name, module in modules.items()} == kinds
        and len(set(map(id, modules.values()))) == len(modules)
        and len(set(tensors)) == len(tensors)
        and all(vars(kind).get(name) is code for kind, name, code in _CODE)
        and not any(getattr(nn.modules.module, f"_global_{hooks}") for hooks in _HOOKS)
        and all(map(_unchanged, modules.values()))
        and _cuts_patches(model.patch_embed)
    )


def _unchanged(module: nn.Module) -> bool:
    """Return whether a module has no hooks, no code of its own and the usual settings."""
    hooked = any(getattr(module, f"_{hooks}") for hooks in _HOOKS)
    if hooked or any(hasattr(type(module), name) for name in vars(module)):
        return False
    if isinstance(module, nn.LayerNorm):
        return module.weight is not None and module.bias is not None
    return getattr(module, "approximate", "none") == "none"  # a GELU


def _cuts_patches(stem: PatchEmbedding) -> bool:
    conv = stem.proj
    cuts = conv.kernel_size == conv.stride == tuple(stem.patch_size)
    return cuts and (conv.padding, conv.dilation, conv.groups) == ((0, 0), (1, 1), 1)


class Executor:
    """One run of a network that :func:`follows`.

    Parameters
    ----------
    tensors : its parameters and buffers by name
    recorder : Recorder
        Its callbacks are called and ``order`` is filled, as its hooks would do.
    """

    def __init__(self, model: AutoFormerViT, tensors: dict[str, torch.Tensor], recorder: Recorder):
        self.tensors, self.recorder = tensors, recorder
        self.stem, self.patch, self.grid = model.patch_embed, model.patch_embed.patch_size, model.patch_embed.grid_size
        self.token = model.global_pool == "token"
        self.embed = Linear(self, "patch_embed.proj", tokens=False)
        self.blocks = [BlockRun(self, f"blocks.{i}", block) for i, block in enumerate(model.blocks)]
        self.norm = Norm(self, "norm", model.norm)
        self.head = Linear(self, "head", tokens=False)

    def forward(self, x_BCHW: torch.Tensor, keep: bool = True) -> torch.Tensor:
        """Return the logits (B, K); `keep` what a run backwards needs."""
        self.stem.check(x_BCHW)
        (rows, columns), (height, width) = self.grid, self.patch
        self.size = x_BCHW.shape
        x_BCHW = x_BCHW[:, :, : rows * height, : columns * width]
        patches = x_BCHW.unflatten(3, (columns, width)).unflatten(2, (rows, height)).permute(0, 2, 4, 1, 3, 5)
        x_BPD = self.embed.forward(patches.reshape(len(x_BCHW), rows * columns, -1))
        x_BND = torch.cat([self.tensors["cls_token"].expand(len(x_BPD), -1, -1), x_BPD], 1)
        if (positions := self.tensors.get("pos_embed")) is not None:
            x_BND = x_BND + positions
        for i, block in enumerate(self.blocks):
            x_BND = block.forward(x_BND)
            if not keep:
                self.blocks[i] = block = None
        x_BND = self.norm.forward(x_BND)
        self.tokens = x_BND.shape[1]
        return self.head.forward(x_BND[:, 0] if self.token else x_BND[:, 1:].mean(1))

    def backward(self, g_BK: torch.Tensor) -> None:
        """Send the gradient of a loss at the logits back, and call the recorder's callbacks; the last use of a run."""
        g_BND = self._through(g_BK, heard=True)
        self.embed.hear(g_BND[:, 1:])

    def at_images(self, g_BK: torch.Tensor) -> torch.Tensor:
        """Return the gradient at the images, (B, C, H, W), without calling the recorder."""
        (rows, columns), (height, width) = self.grid, self.patch
        g_BPI = self.embed.backward(self._through(g_BK, heard=False)[:, 1:], heard=False)
        g = g_BPI.reshape(len(g_BPI), rows, columns, -1, height, width).permute(0, 3, 1, 4, 2, 5)
        g_BCHW = g.reshape(len(g), -1, rows * height, columns * width)
        right, bottom = self.size[3] - columns * width, self.size[2] - rows * height
        return F.pad(g_BCHW, (0, right, 0, bottom)) if right or bottom else g_BCHW

    def _through(self, g_BK: torch.Tensor, heard: bool) -> torch.Tensor:
        """Return the gradient at what the first block sees."""
        g_BD = self.head.backward(g_BK, heard)
        g_BND = g_BD.new_zeros(len(g_BD), self.tokens, g_BD.shape[1])
        if self.token:
            g_BND[:, 0] = g_BD
        else:
            g_BND[:, 1:] = g_BD[:, None] / (self.tokens - 1)
        g_BND = self.norm.backward(g_BND)
        for i in reversed(range(len(self.blocks))):
            g_BND = self.blocks[i].backward(g_BND, heard)
            if heard:
                del self.blocks[i]  # what it holds is free
        return g_BND


class Linear:
    """A linear layer; `tokens`: whether the positions of its output are tokens (as a recorder's `on_signal` asks)."""

    def __init__(self, run: Executor, name: str, tokens: bool = True):
        self.recorder, self.name, self.tokens = run.recorder, name, tokens
        self.weight, self.bias = run.tensors[f"{name}.weight"], run.tensors.get(f"{name}.bias")
        self.weight_OI = self.weight.flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.recorder.order.append(("layer", self.name))
        y = F.linear(x, self.weight_OI, self.bias)
        if self.recorder.on_output is not None:
            self.recorder.on_output(self.name, y)
        self.x, self.y = x, y if self.recorder.on_signal is not None else None
        return y

    def backward(self, g: torch.Tensor, heard: bool) -> torch.Tensor:
        if heard:
            self.hear(g)
        return g @ self.weight_OI

    def hear(self, g: torch.Tensor) -> None:
        """Call the recorder with the gradient at the output; then input and output are free."""
        recorder = self.recorder
        if recorder.on_signal is not None:
            product = self.y * g
            recorder.on_signal(
                self.name,
                product if product.dim() > 2 else product[:, None],
                self.weight_OI.shape[1],
                self.tokens,
            )
        if recorder.on_products is not None:
            a_UGKI, d_UGKO = (x.reshape(recorder.units, 1, -1, x.shape[-1]) for x in (self.x, g))
            recorder.on_products(self.name, self.weight, a_UGKI, d_UGKO)
        self.x = self.y = None


class Norm:
    """A LayerNorm."""

    def __init__(self, run: Executor, name: str, module: nn.LayerNorm):
        self.weight, self.bias = run.tensors[f"{name}.weight"], run.tensors[f"{name}.bias"]
        self.shape, self.eps = list(module.normalized_shape), module.eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, self.mean, self.rstd = torch.native_layer_norm(x, self.shape, self.weight, self.bias, self.eps)
        self.x = x
        return y

    def backward(self, g: torch.Tensor) -> torch.Tensor:
        backward: Callable = torch.ops.aten.native_layer_norm_backward
        stored = self.x, self.shape, self.mean, self.rstd, self.weight, self.bias
        return backward(g, *stored, [True, False, False])[0]


class BlockRun:
    """Attention and MLP, each after a LayerNorm and beside a residual connection."""

    def __init__(self, run: Executor, name: str, block: Block):
        self.recorder, self.name = run.recorder, name
        self.norm1, self.norm2 = Norm(run, f"{name}.norm1", block.norm1), Norm(run, f"{name}.norm2", block.norm2)
        self.attention = AttentionRun(run, f"{name}.attn", block.attn)
        self.fc1, self.fc2 = Linear(run, f"{name}.mlp.fc1"), Linear(run, f"{name}.mlp.fc2")

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        recorder, activation = self.recorder, f"{self.name}.mlp.act"
        x_BND = x_BND + self.attention.forward(self.norm1.forward(x_BND))
        recorder.order.append(("feature", f"{self.name}.after_attn"))
        self.inner = self.fc1.forward(self.norm2.forward(x_BND))
        recorder.order.append(("activation", activation))
        if recorder.on_activation is not None:
            recorder.on_activation(activation, self.inner)
        x_BND = x_BND + self.fc2.forward(F.gelu(self.inner))
        recorder.order.append(("feature", f"{self.name}.after_mlp"))
        return x_BND

    def backward(self, g_BND: torch.Tensor, heard: bool) -> torch.Tensor:
        g = torch.ops.aten.gelu_backward(self.fc2.backward(g_BND, heard), self.inner)
        g_BND = g_BND + self.norm2.backward(self.fc1.backward(g, heard))
        return g_BND + self.norm1.backward(self.attention.backward(g_BND, heard))


class AttentionRun:
    """Self-attention. Relative positions are vectors between all pairs of tokens, which queries and attention multiply:
    more products than the network makes (:class:`RelativePosition`), in fewer and larger steps."""

    def __init__(self, run: Executor, name: str, module: Attention):
        self.tensors, self.name = run.tensors, name
        self.heads, self.scale = module.num_heads, module.scale
        self.relative = module.rel_pos_keys is not None
        self.qkv, self.proj = Linear(run, f"{name}.qkv"), Linear(run, f"{name}.proj")

    def _vectors(self, table: str) -> torch.Tensor | None:
        """Return a table of relative positions for all pairs, (N, N, d).

        Made anew at every use, since it may be as large as all else that a block holds.
        """
        if not self.relative:
            return None
        vertical_NN, horizontal_NN = self.tensors[f"{self.name}.index_2NN"]
        vertical_Td = self.tensors[f"{self.name}.{table}.vertical_Td"]
        horizontal_Td = self.tensors[f"{self.name}.{table}.horizontal_Td"]
        return vertical_Td[vertical_NN] + horizontal_Td[horizontal_NN]

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        B, N, _ = x_BND.shape
        qkv = self.qkv.forward(x_BND).view(B, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        self.q_XNd, self.k_XNd, self.v_XNd = qkv.contiguous().flatten(1, 2)
        self.q_XNd *= self.scale
        self.attn_XNN = _product(self.q_XNd, self.k_XNd, self._vectors("rel_pos_keys"), turned=True).softmax(-1)
        out_XNd = _product(self.attn_XNN, self.v_XNd, self._vectors("rel_pos_values"))
        return self.proj.forward(out_XNd.view(B, self.heads, N, -1).transpose(1, 2).reshape(B, N, -1))

    def backward(self, g_BND: torch.Tensor, heard: bool) -> torch.Tensor:
        B, N, _ = g_BND.shape
        g = self.proj.backward(g_BND, heard).view(B, N, self.heads, -1)
        g_XNd = g.transpose(1, 2).reshape(B * self.heads, N, -1)
        g_XNN = _product(g_XNd, self.v_XNd, self._vectors("rel_pos_values"), turned=True)
        g_XNN = torch.ops.aten._softmax_backward_data(g_XNN, self.attn_XNN, -1, g_XNN.dtype)
        g_3XNd = torch.empty(3, *g_XNd.shape, dtype=g_XNd.dtype, device=g_XNd.device)
        torch.mul(_product(g_XNN, self.k_XNd, self._vectors("rel_pos_keys")), self.scale, out=g_3XNd[0])
        torch.bmm(g_XNN.mT, self.q_XNd, out=g_3XNd[1])
        torch.bmm(self.attn_XNN.mT, g_XNd, out=g_3XNd[2])
        g_BNO = g_3XNd.view(3, B, self.heads, N, -1).permute(1, 3, 0, 2, 4).reshape(B, N, -1)
        return self.qkv.backward(g_BNO, heard)


def _product(a_X: torch.Tensor, b_X: torch.Tensor, pairs_N: torch.Tensor | None, turned: bool = False) -> torch.Tensor:
    """Return ``a b`` (`turned`: ``a b^T``), plus the product of each token's row with the matrix of its pairs."""
    if turned:
        b_X, pairs_N = b_X.mT, None if pairs_N is None else pairs_N.mT
    if pairs_N is None:
        return torch.bmm(a_X, b_X)
    return torch.baddbmm(torch.bmm(a_X.transpose(0, 1), pairs_N).transpose(0, 1), a_X, b_X)
