"""The layer window of L-SWAG: where along the depth gradients are measured. Label-free, from stored scores.

Eq. 6 of L-SWAG (arXiv 2505.07300): mean log sigma of the gradient over many random networks, in bins of
relative depth; the window [l_lo, l_hi] is the beginning and end of a spike and is fixed before scoring.
The paper marks the spike by eye; :func:`choose_window` does it by a rule that needs no accuracy.

A window is a range of depth *bins*, so that it applies to networks of any depth and to both kinds of
place: weight layers (Lambda) and activation layers (Psi), whose depth is that of the last weight layer
executed before them. Applying one needs only the stored components, neither a network nor data.

Shape suffixes: A architectures, S seeds, L weight layers, M activation layers, B depth bins.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import pandas as pd

from libranas import scores as store
from libranas.core.errors import LibranasError
from libranas.core.scorecard import Axis
from libranas.scores import ProxyTable, Scores

#: Components that this module looks at.
COMPONENTS = ("lambda", "log_sigma", "union")
RULES = ("spike", "valley", "all", "fixed")
PSI_RANGES = ("window", "from_first", "all")
#: Ends of a network that :func:`curve` can leave out, as positions among its weight layers.
ENDS = {"first": slice(0, 1), "last": slice(-1, None)}


def depth_bin(depth: Sequence[float], bins: int) -> np.ndarray:
    """Bin 0 .. bins-1 of relative depths l / L in [0, 1), equal to ``bins * l // L`` in integers."""
    return np.floor(np.asarray(depth, "f8") * bins + 1e-9).astype(np.int64)  # 1e-9: 100 * (29 / 100) < 29


@dataclass(frozen=True)
class LayerWindow:
    """Depth bins `lo` to `hi`, both included, of `bins` equal ones."""

    lo: int
    hi: int
    bins: int

    def mask(self, depth: Sequence[float]) -> np.ndarray:
        """Which of the places at relative `depth` lie in the window: bool, same length."""
        bin_ = depth_bin(depth, self.bins)
        return (self.lo <= bin_) & (bin_ <= self.hi)


@dataclass(frozen=True)
class WindowChoice:
    """A window and how it was read off the curve; ``peak`` is the bin of its extreme.

    A bin is part of the spike if it is beyond ``threshold = median +- 1 MAD`` of the curve (above for
    ``spike``, below for ``valley``; None for rules that use no threshold) and connected to the peak.
    """

    window: LayerWindow
    rule: str
    peak: int | None
    median: float
    mad: float
    threshold: float | None

    def to_dict(self) -> dict:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict) -> "WindowChoice":
        """Inverse of :meth:`to_dict`; other keys of the record are left alone."""
        known = {field.name: record[field.name] for field in fields(cls)}
        return cls(**{**known, "window": LayerWindow(**record["window"])})


def curve(
    scores: Scores | Iterable[Scores], bins: int = 10, exclude: Sequence[str] = ("first", "last")
) -> pd.DataFrame:
    """Mean log standard deviation of the gradient by depth (Eq. 6).

    Each network's mean over the seeds and the layers of a bin comes first, then mean and population
    standard deviation over the networks, so that a deep network counts as much as a shallow one.

    Parameters
    ----------
    exclude : any of ``"first"`` and ``"last"``
        Weight layers left out of the curve (not of the window). In vision transformers the head's gradient
        is many times that of all other layers: with it the spike is always the last bin, behind every
        activation layer, and says nothing about the body of the network. The patch embedding (stem) is
        left out for the same reason at the other end.

    Returns
    -------
    DataFrame with one row a bin: ``bin``, ``mean``, ``std``, ``n`` (networks with a layer in that bin; NaN
    where there is none). ``attrs["nonfinite"]`` counts entries of log sigma (layer and seed) that were
    left out because they are not finite.
    """
    unknown = sorted(set(exclude) - ENDS.keys())
    if unknown:
        raise LibranasError(f"Cannot exclude layers {unknown} from the curve.", f"Known: {', '.join(ENDS)}.")
    means, nonfinite = [], 0
    for part in store.many(scores):
        log_sigma_ASL = _table(part, "lswag_lambda").components["log_sigma"].values
        mean_AB = np.full((len(part.archs), bins), np.nan)
        for axis, rows in _by_axis(part, "layer"):
            kept_L = np.ones(len(axis.names), bool)
            for end in exclude:
                kept_L[ENDS[end]] = False
            bin_L = depth_bin(axis.depth, bins)
            log_sigma_aSL = log_sigma_ASL[rows, :, : len(axis.names)]
            nonfinite += int((~np.isfinite(log_sigma_aSL[:, :, kept_L])).sum())
            for b in np.unique(bin_L[kept_L]):
                of_bin = log_sigma_aSL[:, :, kept_L & (bin_L == b)].reshape(len(rows), -1)
                mean_AB[rows, b] = store.finite_mean(of_bin, 1)
        means.append(mean_AB)
    mean_AB = np.concatenate(means)
    mean_B = store.finite_mean(mean_AB, 0)
    std_B = np.sqrt(store.finite_mean((mean_AB - mean_B) ** 2, 0))
    n_B = np.isfinite(mean_AB).sum(0)
    out = pd.DataFrame({"bin": np.arange(bins), "mean": mean_B, "std": std_B, "n": n_B})
    out.attrs["nonfinite"] = nonfinite
    return out


def choose_window(curve: pd.DataFrame, rule: str = "spike", fixed: tuple[int, int] | None = None) -> WindowChoice:
    """Read the layer window off a curve made by :func:`curve`.

    Parameters
    ----------
    rule : ``"spike"`` (the run of bins around the highest that stay above median + 1 MAD), ``"valley"``
        (its mirror image around the lowest: large 1/sigma), ``"all"``, or ``"fixed"``
    fixed : first and last bin, for the rule ``"fixed"``

    Raises
    ------
    LibranasError
        If the rule or the fixed bins are not possible, or the curve has no finite value.
    """
    mean_B, last = curve["mean"].to_numpy("f8"), len(curve) - 1
    if rule not in RULES:
        raise LibranasError(f"Unknown rule {rule!r} for the layer window.", f"Known: {', '.join(RULES)}.")
    if not np.isfinite(mean_B).any():
        raise LibranasError(
            "The curve of gradient statistics has no finite value, so no layer window can be read from it.",
            "Look at the proxy lswag_lambda in the report: its failures carry the reason.",
        )
    median = float(np.nanmedian(mean_B))
    mad = float(np.nanmedian(np.abs(mean_B - median)))
    if rule in ("all", "fixed"):
        lo, hi = (0, last) if rule == "all" else (fixed or (0, -1))
        if not 0 <= lo <= hi <= last:
            raise LibranasError(
                f"The fixed layer window {fixed} is not possible.",
                f"Expected [first, last] bin with 0 <= first <= last <= {last}.",
            )
        return WindowChoice(LayerWindow(int(lo), int(hi), len(curve)), rule, None, median, mad, None)
    sign = 1 if rule == "spike" else -1
    peak = int(np.nanargmax(sign * mean_B))
    threshold = median + sign * mad
    inside_B = sign * mean_B > sign * threshold  # False where a bin is empty
    lo = hi = peak
    while lo > 0 and inside_B[lo - 1]:
        lo -= 1
    while hi < last and inside_B[hi + 1]:
        hi += 1
    return WindowChoice(LayerWindow(lo, hi, len(curve)), rule, peak, median, mad, threshold)


def apply_window(scores: Scores, window: LayerWindow, psi_range: str = "window") -> Scores:
    """`scores` with ``lswag_lambda``, ``lswag_psi`` and their product ``lswag`` restricted to `window`.

    Lambda is the sum over the weight layers in the window (Eq. 1); a layer without any surviving weight
    (NaN) adds nothing. Psi is the number of distinct patterns over the union of the activation layers in
    the window. A value stays NaN, with the reason, where the network's own value is not finite or no layer
    is left. A Lambda that is not positive turns the product's ranking round: that becomes a warning.

    Parameters
    ----------
    psi_range : which activation layers Psi counts. ``"window"``: those in the window; of a network that has
        none there, from the first to the window's end, with a warning. ``"from_first"``: from the first to
        the window's end, as Eq. 7 is printed. ``"all"``.
    """
    windowed, from_first, reversed_ = _windowed(scores, window, psi_range)
    warnings = _warnings(from_first, reversed_, len(scores.archs))
    return replace(windowed, warnings=tuple(sorted({*scores.warnings, *warnings})))


def _windowed(scores: Scores, window: LayerWindow, psi_range: str) -> tuple[Scores, int, int]:
    """`scores` in the window; networks whose Psi counts from the first layer, and those with a Lambda not positive."""
    if psi_range not in PSI_RANGES:
        raise LibranasError(f"Unknown range {psi_range!r} for Psi.", f"Known: {', '.join(PSI_RANGES)}.")
    lambda_, psi = _table(scores, "lswag_lambda"), _table(scores, "lswag_psi")
    lambda_AS, psi_AS = np.full((2, *lambda_.value_AS.shape), np.nan)
    for axis, rows in _by_axis(scores, "layer"):
        terms_aSl = lambda_.components["lambda"].values[rows][:, :, np.flatnonzero(window.mask(axis.depth))]
        lambda_AS[rows] = np.where(np.isnan(terms_aSl).all(2), np.nan, np.nansum(terms_aSl, 2))
    lo = window.lo if psi_range == "window" else 0
    hi = window.bins - 1 if psi_range == "all" else window.hi
    from_first = 0
    for axis, rows in _by_axis(scores, "activation"):
        bin_M = depth_bin(axis.depth, window.bins)
        inside = np.flatnonzero((lo <= bin_M) & (bin_M <= hi))
        if not len(inside):
            inside = np.flatnonzero(bin_M <= hi)
            from_first += len(rows) if len(inside) else 0
        if len(inside):  # depth does not decrease along the axis: inside is one run
            psi_AS[rows] = psi.components["union"].values[rows][:, :, inside[0], inside[-1]]
    lambda_ = _replaced(lambda_, lambda_AS, f"no usable weight layer in the layer window {window}")
    psi = _replaced(psi, psi_AS, f"no activation layer up to the end of the layer window {window}")
    product = scores.proxies.get("lswag", replace(lambda_, components={}, equation="Lambda x Psi (Eq. 1)"))
    product = replace(
        product,
        value_AS=lambda_.value_AS * psi.value_AS,
        reason_AS=np.where(lambda_.reason_AS != "", lambda_.reason_AS, psi.reason_AS),
    )
    reversed_ = int((lambda_.value_AS <= 0).any(1).sum())
    new = {"lswag": product, "lswag_lambda": lambda_, "lswag_psi": psi}
    windowed = replace(
        scores,
        proxies=dict(sorted({**scores.proxies, **new}.items())),
        provenance={**scores.provenance, "layer_window": {**asdict(window), "psi_range": psi_range}},
    )
    return windowed, from_first, reversed_


def _warnings(from_first: int, reversed_: int, total: int) -> list[str]:
    warnings = []
    if from_first:
        warnings.append(
            f"Psi is counted from the first activation layer to the end of the layer window for {from_first} "
            f"of {total} networks: they have no activation layer inside it."
        )
    if reversed_:
        warnings.append(
            f"Lambda is not positive for {reversed_} of {total} networks: there L-SWAG = Lambda x Psi falls "
            "as Psi grows, so its ranking is not to be trusted (gradient scale, or too few layers)."
        )
    return warnings


def table(scores: Scores | Iterable[Scores], window: LayerWindow, psi_range: str = "window") -> pd.DataFrame:
    """:func:`libranas.scores.frame` with the three L-SWAG columns restricted to `window`.

    ``attrs["warnings"]`` are those of :func:`apply_window`.
    """
    warnings, counts = set(), np.zeros(3, int)

    def windowed() -> Iterator[Scores]:
        nonlocal counts
        for part in store.many(scores):
            inside, *unusual = _windowed(part, window, psi_range)
            warnings.update(part.warnings)
            counts += [*unusual, len(part.archs)]
            yield inside

    out = store.frame(windowed())
    out.attrs["warnings"] = sorted({*warnings, *_warnings(*map(int, counts))})
    return out


def parts(scores: Scores | Iterable[Scores], window: LayerWindow, psi_range: str = "window") -> pd.DataFrame:
    """:func:`libranas.scores.frame`, of all layers, and beside it ``lswag_lambda_window`` and ``lswag_window``: what
    L-SWAG is made from, one by one (the paper's Table 3)."""
    inside = table(scores, window, psi_range)[["lswag_lambda", "lswag"]]
    return store.frame(scores).join(inside.add_suffix("_window"))


def _table(scores: Scores, proxy: str) -> ProxyTable:
    if proxy not in scores.proxies:
        raise LibranasError(
            f"The layer window needs the proxy {proxy}, but the scores hold {', '.join(scores.proxies)}.",
            f"Add {proxy} to the proxies in the config and run again.",
        )
    return scores.proxies[proxy]


def _by_axis(scores: Scores, name: str) -> Iterator[tuple[Axis, np.ndarray]]:
    """Each distinct table of places with the rows of the architectures that have it."""
    rows: dict[Axis, list[int]] = {}
    for a, axis in enumerate(scores.axes.get(name, ())):
        rows.setdefault(axis, []).append(a)
    return ((axis, np.array(found)) for axis, found in rows.items())


def _replaced(old: ProxyTable, value_AS: np.ndarray, reason: str) -> ProxyTable:
    """`old` with new values; where it had failed it still has, and a new failure gets `reason`."""
    failed_AS = ~np.isfinite(old.value_AS)
    value_AS = np.where(failed_AS, old.value_AS, value_AS)
    reason_AS = np.where(np.isfinite(value_AS), "", reason).astype(object)
    return replace(old, value_AS=value_AS, reason_AS=np.where(failed_AS, old.reason_AS, reason_AS))
