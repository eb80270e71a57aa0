"""Weight sharing: one AutoFormer supernet whose slices are the sub-networks (Chen et al., ICCV 2021).

A sub-network is the skeleton of a stand-alone network (on the meta device, without weights) run by
``torch.func.functional_call`` on slices of the supernet's parameters: of each the leading rows and columns, of ``qkv``
the leading rows of each of its three parts, so that heads stay heads.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.func import functional_call

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.progress import silent
from libranas.core.random import stream_seed
from libranas.networks import build
from libranas.spaces import Space
from libranas.training.checkpoints import Checkpoints
from libranas.training.evaluation import accuracy
from libranas.training.images import ImageSet
from libranas.training.in_memory import ShortTraining
from libranas.training.recipe import ShortRecipe


class Supernet:
    """The largest member of a space, and every other member as slices of it.

    LibranasError if networks differ in what is no slice: if the heads of a block share its width (fewer heads are wider
    ones then), in patches, stems, positions or MLPs; or if they have fixed positions.

    Parameters
    ----------
    seed : of the initial weights
    drop_path : stochastic depth of a sub-network's last block while the supernet is trained
    """

    def __init__(self, space: Space, seed: int, device="cpu", drop_path: float = 0.0):
        if space.head_dim == "auto":
            raise LibranasError(
                "A supernet needs attention heads of one width, but space.head_dim is auto.",
                "Give space.head_dim a number, or use benchmark.method train.",
            )
        kinds = {"patch_size", "stem", "position", "mlp"} & space.free.keys()
        if kinds or space.position == "sincos":
            gene = min(kinds, default="position")
            raise LibranasError(
                f"A supernet cannot share weights among the choices of space.{gene} ({getattr(space, gene)}).",
                f"Give space.{gene} one value{' other than sincos' * (not kinds)}, or use benchmark.method train.",
            )
        self.space = space
        self.largest = max(space.extremes(), key=space.params)
        self.drop_path = drop_path
        self.model = build(space, self.largest, seed, fused=True).to(device)
        self._buffers = dict(self.model.named_buffers())
        # Every step has another network: more of them would hardly be met again, and would split up the heap.
        self._skeleton = lru_cache(maxsize=1)(self._make_skeleton)

    def _make_skeleton(self, arch: Arch) -> nn.Module:
        with torch.device("meta"):
            return build(self.space, arch, 0, self.drop_path, fused=True)

    def slices(self, arch: Arch) -> dict[str, torch.Tensor]:
        """Return views of the supernet's parameters with the names and shapes of `arch`'s own."""
        own = dict(self.model.named_parameters())
        return {
            name: leading(own[name], parameter.shape, parts=3 if ".qkv." in name else 1)
            for name, parameter in self._skeleton(arch).named_parameters()
        }

    def forward(self, arch: Arch, inputs: torch.Tensor) -> torch.Tensor:
        """Compute logits of sub-network `arch` with inherited weights, in the mode of the supernet's model."""
        skeleton = self._skeleton(arch).train(self.model.training)
        buffers = {name: self._buffers[name] for name, _ in skeleton.named_buffers()}
        return functional_call(skeleton, (self.slices(arch), buffers), (inputs,))

    def extract(self, arch: Arch) -> nn.Module:
        """Return a stand-alone copy of sub-network `arch` with its inherited weights."""
        model = build(self.space, arch, seed=0)
        model.load_state_dict({name: view.detach().cpu().clone() for name, view in self.slices(arch).items()})
        return model.eval()


def leading(parameter: torch.Tensor, shape: torch.Size, parts: int) -> torch.Tensor:
    """Return the leading block of `shape`; the first axis holds `parts` equal parts."""
    index = [slice(0, shape[0] // parts), *(slice(0, n) for n in shape[1:])]
    return parameter.unflatten(0, (parts, -1))[:, *index].flatten(0, 1)


def train_supernet(
    space: Space,
    train: ImageSet,
    recipe: ShortRecipe,
    seed: int,
    folder: Path,
    key: str,
    device: str = "cpu",
    on_epoch: Callable[[dict], None] = lambda record: None,
    progress=silent,
) -> tuple[Supernet, list[dict]]:
    """Train a supernet by uniform sampling: one random sub-network a step (Guo et al., ECCV 2020; AutoFormer).

    Goes on from the last epoch that `folder` has a checkpoint of, if that was written with the same `key`. Returns the
    supernet and its history, a record an epoch.
    """
    supernet = Supernet(space, stream_seed(seed, "supernet", "init"), device, recipe.drop_path)

    def forward(step: int, inputs):
        return supernet.forward(space.sample(np.random.default_rng(stream_seed(seed, "supernet", step))), inputs)

    stream = stream_seed(seed, "supernet", "train")
    training = ShortTraining(supernet.model, recipe, train, stream, device, forward)
    history = training.fit(Checkpoints(folder), key, on_epoch, progress)
    return supernet, history


def inherit(supernet: Supernet, archs: Sequence[Arch], val: ImageSet, progress=silent) -> pd.DataFrame:
    """Measure each architecture's validation accuracy with the supernet's weights; columns ``id``, ``seed``,
    ``accuracy``."""
    supernet.model.eval()
    device = next(supernet.model.parameters()).device
    rows = [
        (arch.id, 0, accuracy(lambda x, a=arch: supernet.forward(a, x), val, device))
        for arch in progress(archs, len(archs), "evaluating the supernet")
    ]
    return pd.DataFrame(rows, columns=["id", "seed", "accuracy"])
