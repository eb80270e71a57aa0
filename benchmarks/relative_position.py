"""Four exact forms of relative positions on keys and values, in whole AutoFormer networks, forward and backward.

    python benchmarks/relative_position.py [--device cpu|cuda] [--preset small digits-autoformer] [--compile]

``factorised``
    The shipped form: a product with the rows of each table, then a gather; attention summed by row of the table.
``dense``
    A vector for each pair of tokens, made by a product with one-hot rows, and two products more of attention's size.
``separable``
    Attention summed over the rows and over the columns of the grid, and a vector for each pair of rows and of columns.
``one-hot``
    Ones and zeros beside keys and values for the row and column of a token, and plain attention, fused if it can be; it
    ships too (``Attention.one_hot_positions``).

The same network without relative positions is the yardstick. Logits of all must agree (float32), else nothing is
timed. All are timed in one process, in turns; a ratio is that of two times of the same round, the median counts. In
bfloat16 on a GPU. Writes ``benchmarks/relative_position/DEVICE.json``.
"""

import argparse
import functools
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from libranas.core.files import read_json, write_json
from libranas.core.provenance import facts
from libranas.latency.measure import in_rounds
from libranas.networks import build
from libranas.networks.autoformer import Attention
from libranas.networks.relative_position import RelativePosition
from libranas.spaces import make_space

#: Preset to image size and channels.
PRESETS = {"small": (224, 3), "image32-patch4": (32, 3), "digits-autoformer": (8, 1)}
OUTPUT = Path(__file__).with_name("relative_position")
CLASSES = 10


class Dense(RelativePosition):
    """A table of all pairs: one vector for each."""

    def pairs(self, index_2NN: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """One vector for each pair of tokens, (N, N, d)."""
        tables = self.vertical_Td, self.horizontal_Td
        one_hot = nn.functional.one_hot
        return sum(
            one_hot(index_NN, len(t)).to(like.dtype) @ t.to(like.dtype)
            for index_NN, t in zip(index_2NN, tables, strict=True)
        )

    def key_logits(self, q_BHNd, index_2NN):
        return torch.einsum("bhnd,nmd->bhnm", q_BHNd, self.pairs(index_2NN, q_BHNd))

    def mixed_values(self, attn_BHNN, index_2NN):
        return torch.einsum("bhnm,nmd->bhnd", attn_BHNN, self.pairs(index_2NN, attn_BHNN))


class Separable(RelativePosition):
    """Rows and columns of the grid apart; the class token, which is first, has row 0 of both tables.

    Legend: R rows and C columns of the grid, r and c those of the other token.
    """

    def parts(self, index_2NN: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Vectors of pairs of rows (R, r, d) and of columns (C, c, d), and the class token's (d)."""
        return self.between(index_2NN, round((index_2NN.shape[1] - 1) ** 0.5), like)

    def key_logits(self, q_BHNd, index_2NN):
        vertical_RRd, horizontal_CCd, token_d = self.parts(index_2NN, q_BHNd)
        B, H, N, d = q_BHNd.shape
        side = len(vertical_RRd)
        q_BHRCd = q_BHNd[:, :, 1:].reshape(B, H, side, side, d)
        rows = torch.einsum("bhxyd,xrd->bhxyr", q_BHRCd, vertical_RRd)
        columns = torch.einsum("bhxyd,ycd->bhxyc", q_BHRCd, horizontal_CCd)
        patches = (rows[..., :, None] + columns[..., None, :]).reshape(B, H, N - 1, N - 1)
        token_BHN1 = q_BHNd @ token_d[:, None]
        patches = torch.cat([token_BHN1[:, :, 1:], patches], -1)
        return torch.cat([token_BHN1[:, :, :1].expand(B, H, 1, N), patches], -2)

    def mixed_values(self, attn_BHNN, index_2NN):
        vertical_RRd, horizontal_CCd, token_d = self.parts(index_2NN, attn_BHNN)
        B, H, N, _ = attn_BHNN.shape
        side = len(vertical_RRd)
        pairs = attn_BHNN[:, :, 1:, 1:].reshape(B, H, side, side, side, side)
        patches = torch.einsum("bhxyr,xrd->bhxyd", pairs.sum(-1), vertical_RRd)
        patches = (patches + torch.einsum("bhxyc,ycd->bhxyd", pairs.sum(-2), horizontal_CCd)).reshape(B, H, N - 1, -1)
        patches = patches + attn_BHNN[:, :, 1:, :1] * token_d
        return torch.cat([attn_BHNN[:, :, :1].sum(-1, keepdim=True) * token_d, patches], -2)


FORMS = {"factorised": RelativePosition, "dense": Dense, "separable": Separable, "one-hot": RelativePosition}


def networks(preset: str, device: str) -> dict[str, nn.Module]:
    """The middle member of a preset's space without relative positions (``none``), and in each form."""
    size, channels = PRESETS[preset]
    space = make_space({"family": "autoformer", "preset": preset}, size, channels, CLASSES)

    def middle(choices):
        return sorted(choices)[len(choices) // 2]

    depth = middle(space.depth)
    arch = space.arch(middle(space.embed_dim), [middle(space.num_heads)] * depth, [middle(space.mlp_ratio)] * depth)
    found = {"none": build(replace(space, relative_position=False), arch, 0, fused=True).to(device)}
    for name, form in FORMS.items():
        found[name] = build(space, arch, 0, fused=True).to(device)
        for module in found[name].modules():
            if isinstance(module, Attention):
                module.rel_pos_keys.__class__ = module.rel_pos_values.__class__ = form
                module.one_hot_positions = name == "one-hot"
    return found


def step(net: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> None:
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        loss = net(images).float().square().mean()
    loss.backward()
    net.zero_grad()


def measure(preset: str, device: str, batch: int, rounds: int, compiled: bool) -> dict:
    nets = networks(preset, device)
    size, channels = PRESETS[preset]
    images = torch.randn(batch, channels, size, size, device=device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.inference_mode():
        logits = {name: net.eval()(images[:4]) for name, net in nets.items()}
    for name in FORMS:
        torch.testing.assert_close(logits[name], logits["factorised"], rtol=1e-4, atol=1e-4)
    runs = {name: functools.partial(step, net.train(), images, dtype) for name, net in nets.items()}
    if compiled:
        for net in nets.values():
            net.compile()
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times = dict(zip(runs, in_rounds(list(runs.values()), 3, rounds, wait=wait), strict=True))
    ratios = {
        name: statistics.quantiles([t / none for t, none in zip(times[name], times["none"], strict=True)], n=4)
        for name in FORMS
    }
    tokens = nets["factorised"].blocks[0].attn.index_2NN.shape[1]
    for name, (low, middle, high) in ratios.items():
        print(f"{preset}, {tokens} tokens: {name} {middle:.3f} ({low:.3f} to {high:.3f}) of no positions", flush=True)
    seconds = {name: statistics.median(t) for name, t in times.items()}
    return {"tokens": tokens, "batch": batch, "seconds": seconds, "ratio_quartiles": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--preset", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--batch", type=int, help="images; default 256 on a GPU, 16 at 224 px on a CPU, else 64")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = OUTPUT / f"{options.device}.json"
    result = read_json(path) if path.exists() else {}
    for preset in options.preset:
        batch = options.batch or (256 if options.device == "cuda" else 16 if PRESETS[preset][0] == 224 else 64)
        found = measure(preset, options.device, batch, options.rounds, options.compile)
        name = f"{preset}, compiled" if options.compile else preset
        result[name] = {**found, "rounds": options.rounds, "facts": facts()}
        write_json(path, result)


if __name__ == "__main__":
    main()
