"""Activation patterns: how many are distinct, in any window of layers; and on how many units samples agree."""

from __future__ import annotations

import numpy as np

from libranas.core.lazy import torch
from libranas.networks import device
from libranas.zero_cost.captures import Activation

NO_ACTIVATION = "the network has no ReLU, GELU or SiLU module"


def agreement(activation: Activation, _) -> dict:
    """Reduce an activation layer to the kernel of agreeing signs between samples, and its number of units."""
    return {"kernel": activation.agreement_SS, "units": activation.bits_SV.shape[1]}


def patterns(activation: Activation, samples: int | None = None) -> torch.Tensor:
    """Reduce an activation layer to its patterns: the distinct ones, but all on a GPU, where finding them waits."""
    return activation.words(samples) if device.is_asynchronous(activation.bits_SV) else activation.patterns(samples)


def distinct(patterns: list[torch.Tensor]) -> float:
    """Number of distinct patterns of all layers together."""
    if patterns[0].dim() > 1 or device.is_asynchronous(patterns[0]):
        return window_unions(patterns)[0, -1]
    ordered = np.sort(torch.cat(patterns).numpy())  # several times faster than torch.sort, which also returns the order
    return 1.0 + np.count_nonzero(ordered[1:] != ordered[:-1])


def sizes(patterns: list[torch.Tensor]) -> list[float]:
    """Numbers of distinct patterns of each layer."""
    if device.is_asynchronous(patterns[0]):
        return window_unions(patterns).diagonal().tolist()
    return [float(len(p)) for p in patterns]


def _numbered(patterns: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Patterns (of one or more words) numbered from 0 so that equal ones have the same number; how many."""
    columns = patterns.reshape(len(patterns), -1).unbind(1)
    found, number = torch.unique(columns[0], return_inverse=True)
    for column in columns[1:]:  # a pair of numbers is one number again
        words, word = torch.unique(column, return_inverse=True)
        found, number = torch.unique(number * len(words) + word, return_inverse=True)
    return number, len(found)


def window_unions(patterns: list[torch.Tensor]) -> np.ndarray:
    """Sizes of the unions of pattern sets over every window of layers.

    A window counts all patterns of its layers, less those that were last seen inside it.

    Parameters
    ----------
    patterns : what :func:`patterns` returns for each of M layers

    Returns
    -------
    float array, shape (M, M)
        Entry (i, j), i <= j: number of distinct patterns in layers i..j; NaN below the diagonal.
    """
    M = len(patterns)
    seen_MM = (_last_seen_sorted if device.is_asynchronous(patterns[0]) else _last_seen)(patterns).cpu().numpy()
    again_MM = seen_MM[:, 1:]
    # Entry (i, j): patterns of layer j that were last seen in layer i or later.
    inside_MM = np.cumsum(again_MM[:, ::-1], axis=1)[:, ::-1].T
    new_MM = seen_MM.sum(1) - inside_MM
    # Below the diagonal are layers before the window, which it does not count.
    union_MM = np.cumsum(np.triu(new_MM), axis=1).astype(np.float64)
    union_MM[np.tril_indices(M, -1)] = np.nan
    return union_MM


def _last_seen(patterns: list[torch.Tensor]) -> torch.Tensor:
    """Entry (j, i): how many distinct patterns of layer j were last seen in layer i - 1, for i = 0 never before."""
    M = len(patterns)
    number, count = _numbered(torch.cat(patterns))
    last = torch.zeros(count, dtype=torch.uint8 if M < 256 else torch.int32, device=number.device)  # 0: not yet
    seen = []
    for j, here in enumerate(number.split([len(p) for p in patterns])):
        seen.append(torch.bincount(last.index_select(0, here), minlength=M + 1))
        last.index_fill_(0, here, j + 1)
    return torch.stack(seen)


def _last_seen_sorted(patterns: list[torch.Tensor]) -> torch.Tensor:
    """The same of patterns that may be repeated in a layer, without waiting for a GPU: by one sort."""
    M, every = len(patterns), torch.cat(patterns)
    columns = every.reshape(len(every), -1).unbind(1)
    order = torch.arange(len(every), device=every.device)
    for column in reversed(columns):
        order = order[column[order].sort(stable=True).indices]
    lengths = torch.tensor([len(p) for p in patterns], device=every.device)
    layer = torch.arange(M, device=every.device).repeat_interleave(lengths, output_size=len(every))[order]
    same = torch.ones(len(every) - 1, dtype=torch.bool, device=every.device)
    for column in columns:
        same &= column[order][1:] == column[order][:-1]
    # Equal patterns stand together in the order of their layers, so that each is preceded by where it was last seen.
    last = torch.zeros_like(layer)
    last[1:] = torch.where(same, layer[:-1] + 1, 0)
    seen = torch.zeros(M * (M + 1), dtype=torch.int64, device=every.device)
    return seen.index_add_(0, layer * (M + 1) + last, (last != layer + 1).long()).view(M, M + 1)
