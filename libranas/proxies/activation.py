"""Proxies made from signs on real images: of ReLU and GELU layers (a forward pass, no labels), and of the
outputs of all layers (T-CET, which weights them with the layers' saliency).

Legend: S samples, V units of a layer, M activation layers.
"""

import math

import numpy as np
import torch

from libranas.proxies.base import DATA, Activation, Gradient, Options, Proxy, Saliency, Undefined
from libranas.proxies.common import log_determinant, numbers

NO_ACTIVATION = "the network has no ReLU or GELU module"


# -- kernels of agreeing samples -----------------------------------------------------------------------------


def _agreement(activation: Activation, _):
    return {"kernel": activation.agreement_SS, "units": activation.bits_SV.shape[1]}


def _combine_nwot(places, _):
    return log_determinant(sum(place["kernel"] for place in places)).item(), {}


def _combine_regions(places, _):
    """Two samples lie in the same linear region if they agree on every unit."""
    kernel_SS = sum(place["kernel"] for place in places)
    same_SS = kernel_SS == sum(place["units"] for place in places)
    again_S = same_SS.tril(-1).any(1)  # an earlier sample lies in the same region
    return float(len(again_S) - again_S.sum().item()), {}


NWOT = Proxy(
    name="nwot",
    version=1,
    title="log det of the kernel of agreeing activation signs between samples",
    source="Mellor et al., Neural architecture search without training (ICML 2021), Eq. 2",
    run=DATA,
    captures={"activation": _agreement},
    combine=_combine_nwot,
    undefined_for=NO_ACTIVATION,
)

LINEAR_REGIONS = Proxy(
    name="linear_regions",
    version=1,
    title="number of distinct activation codes of samples, over all units of all layers",
    source="Chen et al., TE-NAS (ICLR 2021), R; on the batch at its own size, where all codes may differ",
    run=DATA,
    captures={"activation": _agreement},
    combine=_combine_regions,
    undefined_for=NO_ACTIVATION,
)


# -- sample-wise patterns of units ---------------------------------------------------------------------------


def _swap(activation: Activation, _):
    if activation.chosen_SV is not activation.bits_SV:  # the options of Psi do not concern SWAP
        activation = Activation(activation.name, activation.bits_SV, activation.bits_SV)
    return {"patterns": activation.patterns()}


def _psi(activation: Activation, options: Options):
    return {"patterns": activation.patterns(options.psi_samples), "units": activation.chosen_SV.shape[1]}


def _combine_swap(places, _):
    patterns = [place["patterns"] for place in places]
    return float(_distinct(torch.cat(patterns))), {"words": [len(p) for p in patterns]}


def _combine_psi(places, options: Options):
    patterns = [place["patterns"] for place in places]
    union_MM = window_unions(patterns)
    words = [len(p) for p in patterns]
    value = {
        "union": lambda: float(union_MM[0, -1]),
        "sum": lambda: float(sum(words)),
        "log_sum": lambda: sum(math.log(n) for n in words),
    }[options.psi_merge]()
    return value, {"words": words, "units": [place["units"] for place in places], "union": union_MM}


def _distinct(patterns: torch.Tensor) -> int:
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
    One table for all windows: the layer in which each pattern was last seen. A window counts all patterns of
    its layers, less those that were last seen inside it.
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


SWAP = Proxy(
    name="swap",
    version=1,
    title="number of distinct sample-wise activation patterns over all layers",
    source="Peng et al., SWAP-NAS (ICLR 2024), Definition 3; GELU as in its transformer version",
    run=DATA,
    captures={"activation": _swap},
    combine=_combine_swap,
    components={"words": ("activation",)},
    undefined_for=NO_ACTIVATION,
)


def _combine_reg_swap(parts, options: Options):
    if options.reg_swap is None:
        raise Undefined("give the option reg_swap=(mu, sigma): the size to favour and the width, in thousands")
    mu, sigma = options.reg_swap
    thousands = parts["params"].value / 1000
    return parts["swap"].value * math.exp(-((thousands - mu) ** 2) / sigma), {}


REG_SWAP = Proxy(
    name="reg_swap",
    version=1,
    title="SWAP * exp(-(params/1000 - mu)^2 / sigma)",
    source="Peng et al., SWAP-NAS (ICLR 2024), regularised; sigma is not squared",
    run=DATA,
    parts=("swap", "params"),
    combine=_combine_reg_swap,
    undefined_for="the option reg_swap is not given",
)

LSWAG_PSI = Proxy(
    name="lswag_psi",
    version=1,
    title="expressivity: number of distinct sample-wise activation patterns, union over the layers",
    source="Casarin et al., L-SWAG (CVPR 2025), Definitions 1 and 2, Eq. 7; all layers",
    run=DATA,
    captures={"activation": _psi},
    combine=_combine_psi,
    components={"words": ("activation",), "units": ("activation",), "union": ("activation", "activation")},
    undefined_for=NO_ACTIVATION,
)


def _combine_lswag(parts, options: Options):
    lambda_, psi = parts["lswag_lambda"].value, parts["lswag_psi"].value
    if options.lswag_form == "log":
        return lambda_ + (math.log(psi) if psi > 0 else -math.inf), {}
    if lambda_ <= 0:
        raise Undefined(f"Lambda is not positive ({lambda_:.3g}), so the product with Psi would fall as Psi grows")
    if options.lswag_form == "per_layer":  # of the layers that are looked at
        lambda_ /= np.isfinite(parts["lswag_lambda"].components["lambda"]).sum().item()
    return lambda_ * psi, {}


LSWAG = Proxy(
    name="lswag",
    version=2,
    title="Lambda x Psi",
    source="Casarin et al., L-SWAG (CVPR 2025), Eq. 1; all layers",
    run=DATA,
    parts=("lswag_lambda", "lswag_psi"),
    combine=_combine_lswag,
    undefined_for=NO_ACTIVATION,
)


# -- T-CET ---------------------------------------------------------------------------------------------------


def _output(activation: Activation, _):
    return {"kernel": activation.agreement_SS}


def _signal_to_noise(captured: Gradient | Saliency, _):
    """Sum of the saliencies of a layer's weights over their standard deviation (ddof 1)."""
    saliency_OI = captured.saliency_OI.abs()
    count = saliency_OI.numel()
    total = saliency_OI.sum(dtype=torch.float64)
    mean = total / count
    std = torch.linalg.vector_norm(saliency_OI - mean, dtype=torch.float64) / math.sqrt(max(1, count - 1))
    # Equal saliencies have no noise; what is left of them is rounding.
    rounding = 4 * torch.finfo(saliency_OI.dtype).eps * mean
    return {"snr": torch.where(std <= rounding, total, total / std)}


def _combine_tcet(places, _):
    nu = log_determinant(torch.stack([place["kernel"] for place in places])).tolist()
    if all(n == -math.inf for n in nu):
        raise Undefined("the kernel of the output signs is singular in every layer: too few units for the samples")
    nu = [0.0 if n == -math.inf else n for n in nu]
    snr = numbers(places, "snr")
    per_layer = [n * (math.log(s) if s > 0 else s) for n, s in zip(nu, snr, strict=True)]
    return sum(per_layer), {"per_layer": per_layer, "nu": nu}


TCET = Proxy(
    name="tcet",
    version=1,
    title="sum over layers of log(SNR of |W * dL/dW|) * log det of the kernel of agreeing signs of their outputs",
    source="Xiang et al., Exploiting network compressibility and topology in zero-cost NAS (AutoML 2023); "
    "|W * dR/dW| of the synaptic pass with tcet_saliency='synflow'",
    run=DATA,
    captures=lambda options: {
        "output": _output,
        "gradient" if options.tcet_saliency == "snip" else "saliency": _signal_to_noise,
    },
    combine=_combine_tcet,
    components={"per_layer": ("layer",), "nu": ("layer",)},
)

PROXIES = (NWOT, LINEAR_REGIONS, SWAP, REG_SWAP, LSWAG_PSI, LSWAG, TCET)
