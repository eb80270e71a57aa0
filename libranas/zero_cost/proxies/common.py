"""What proxies of several families share.

Legend: R rows, C columns, S samples.
"""

import torch


def correlation(rows_RC: torch.Tensor) -> torch.Tensor:
    """Correlation coefficients between rows, (R, R) in float64; NaN in the row and column of a constant one."""
    rows_RC = rows_RC.double()
    # Compared, not computed: the deviations of a constant row from its mean are rounding noise.
    constant_R = (rows_RC == rows_RC[:, :1]).all(1)
    rows_RC = rows_RC - rows_RC.mean(1, keepdim=True)
    norm_R = torch.linalg.vector_norm(rows_RC, dim=1).masked_fill(constant_R, float("nan"))
    rows_RC = rows_RC / norm_R[:, None]
    return (rows_RC @ rows_RC.T).clamp(-1, 1)


def log_determinant(kernel_SS: torch.Tensor) -> torch.Tensor:
    """log \\|det\\| of kernels (..., S, S) of counts; -inf where one is singular.

    Equal codes of two samples, or fewer units than samples, make a kernel singular; an LU factorisation then
    returns rounding noise. The kernels are integer, so the numerical rank is a safe test.
    """
    singular = torch.linalg.matrix_rank(kernel_SS, hermitian=True) < kernel_SS.shape[-1]
    return torch.linalg.slogdet(kernel_SS).logabsdet.masked_fill(singular, float("-inf"))


def numbers(places: list[dict], key: str) -> list[float]:
    """One entry of the dicts of all places, as floats; waits for the device only here."""
    return [float(place[key]) for place in places]


def sum_over_layers(places: list[dict], _) -> tuple[float, dict]:
    """Combine numbers ``per_layer``: the sum, and the numbers as a component."""
    per_layer = numbers(places, "per_layer")
    return sum(per_layer), {"per_layer": per_layer}
