"""Activation patterns: how many are distinct, in any window of layers; and on how many units samples agree."""

from __future__ import annotations

import numpy as np

from libranas.core.lazy import torch
from libranas.zero_cost.captures import Activation

NO_ACTIVATION = "the network has no ReLU, GELU or SiLU module"


def agreement(activation: Activation, _) -> dict:
    """Reduce an activation layer to the kernel of agreeing signs between samples, and its number of units."""
    return {"kernel": activation.agreement_SS, "units": activation.bits_SV.shape[1]}


def distinct(patterns: torch.Tensor) -> int:
    """Number of distinct patterns among those of all layers."""
    if patterns.dim() > 1 or patterns.device.type != "cpu":
        return _numbered(patterns)[1]
    ordered = np.sort(patterns.numpy())  # several times faster than torch.sort, which also returns the order
    return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


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
    patterns : the distinct patterns of each of M layers

    Returns
    -------
    float array, shape (M, M)
        Entry (i, j), i <= j: number of distinct patterns in layers i..j; NaN below the diagonal.
    """
    M = len(patterns)
    number, count = _numbered(torch.cat(patterns))
    last = torch.zeros(count, dtype=torch.uint8 if M < 256 else torch.int32, device=number.device)  # 0: not yet
    again = []  # again[j][i]: patterns of layer j that were last seen in layer i - 1
    for j, here in enumerate(number.split([len(p) for p in patterns])):
        again.append(torch.bincount(last.index_select(0, here), minlength=M + 1))
        last.index_fill_(0, here, j + 1)
    again_MM = torch.stack(again)[:, 1:].cpu().numpy()
    # Entry (i, j): patterns of layer j that were last seen in layer i or later.
    inside_MM = np.cumsum(again_MM[:, ::-1], axis=1)[:, ::-1].T
    new_MM = np.array([len(p) for p in patterns]) - inside_MM
    # Below the diagonal are layers before the window, which it does not count.
    union_MM = np.cumsum(np.triu(new_MM), axis=1).astype(np.float64)
    union_MM[np.tril_indices(M, -1)] = np.nan
    return union_MM
