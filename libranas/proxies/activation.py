"""Proxies made from the signs of ReLU and GELU layers on real images; a forward pass, no labels."""

import numpy as np
import torch

from libranas.proxies.base import DATA, Activation, Options, Proxy

NO_ACTIVATION = "the network has no ReLU or GELU module"


def _nwot(activation: Activation, _):
    """K_ij = number of units on which samples i and j agree; exact up to 2^24 units a layer."""
    sign_SV = activation.bits_SV.float() * 2 - 1
    agreement_SS = (sign_SV.shape[1] + (sign_SV @ sign_SV.T).double()) / 2
    return {"kernel": agreement_SS}


def _combine_nwot(places, _):
    kernel_SS = sum(place["kernel"] for place in places)
    # Equal codes of two samples make the kernel singular: log det is -inf, not the rounding noise that an
    # LU factorisation returns. Kernels are integer, so the rank is a safe test.
    if torch.linalg.matrix_rank(kernel_SS, hermitian=True) < len(kernel_SS):
        return float("-inf"), {}
    return torch.linalg.slogdet(kernel_SS).logabsdet.item(), {}


def _words(activation: Activation, options: Options):
    return {"patterns": activation.patterns(options.psi_samples)}


def _all_words(activation: Activation, _):
    return {"patterns": activation.patterns()}


def _combine_swap(places, _):
    union_MM = window_unions([place["patterns"] for place in places])
    return float(union_MM[0, -1]), {"words": [len(place["patterns"]) for place in places]}


def _combine_psi(places, _):
    patterns = [place["patterns"] for place in places]
    union_MM = window_unions(patterns)
    return float(union_MM[0, -1]), {"words": [len(p) for p in patterns], "union": union_MM}


def window_unions(patterns: list[torch.Tensor]) -> np.ndarray:
    """Sizes of the unions of pattern sets over every window of layers.

    Parameters
    ----------
    patterns : list of M tensors
        The distinct patterns of each layer.

    Returns
    -------
    float array, shape (M, M)
        Entry (i, j), i <= j: number of distinct patterns in layers i..j; NaN below the diagonal.

    Notes
    -----
    One sort for all windows: order the (pattern, layer) pairs by pattern, then layer. A window counts each
    of its pairs, less one for every two consecutive layers of the same pattern that both lie inside it.
    """
    M = len(patterns)
    layer = torch.cat([torch.full((len(p),), m) for m, p in enumerate(patterns)])
    _, word = torch.unique(torch.cat([p.cpu() for p in patterns]), dim=0, return_inverse=True)
    order = torch.argsort(word * M + layer)
    word, layer = word[order], layer[order]
    repeated = word[1:] == word[:-1]
    again_MM = torch.zeros(M, M, dtype=torch.long)
    again_MM.index_put_(
        (layer[:-1][repeated], layer[1:][repeated]),
        torch.ones(int(repeated.sum()), dtype=torch.long),
        accumulate=True,
    )
    union_MM = np.full((M, M), np.nan)
    for i in range(M):
        for j in range(i, M):
            pairs = sum(len(p) for p in patterns[i : j + 1])
            union_MM[i, j] = pairs - again_MM[i : j + 1, i : j + 1].sum().item()
    return union_MM


NWOT = Proxy(
    name="nwot",
    version=1,
    title="log det of the kernel of agreeing activation signs between samples",
    source="Mellor et al., Neural architecture search without training (ICML 2021), Eq. 2",
    run=DATA,
    need="activation",
    reduce=_nwot,
    combine=_combine_nwot,
    undefined_for=NO_ACTIVATION,
)

SWAP = Proxy(
    name="swap",
    version=1,
    title="number of distinct sample-wise activation patterns over all layers",
    source="Peng et al., SWAP-NAS (ICLR 2024), Definition 3; GELU as in its transformer version",
    run=DATA,
    need="activation",
    reduce=_all_words,
    combine=_combine_swap,
    components={"words": ("activation",)},
    undefined_for=NO_ACTIVATION,
)

LSWAG_PSI = Proxy(
    name="lswag_psi",
    version=1,
    title="expressivity: number of distinct sample-wise activation patterns, union over the layers",
    source="Casarin et al., L-SWAG (CVPR 2025), Definitions 1 and 2, Eq. 7; all layers",
    run=DATA,
    need="activation",
    reduce=_words,
    combine=_combine_psi,
    components={"words": ("activation",), "union": ("activation", "activation")},
    undefined_for=NO_ACTIVATION,
)

LSWAG = Proxy(
    name="lswag",
    version=1,
    title="Lambda x Psi",
    source="Casarin et al., L-SWAG (CVPR 2025), Eq. 1; all layers",
    run=DATA,
    parts=("lswag_lambda", "lswag_psi"),
    combine=lambda parts, _: (parts["lswag_lambda"].value * parts["lswag_psi"].value, {}),
    undefined_for=NO_ACTIVATION,
)

PROXIES = (NWOT, SWAP, LSWAG_PSI, LSWAG)
