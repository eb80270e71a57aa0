"""Choose the layer window of L-SWAG (arXiv 2505.07300, Eq. 6) and apply it to stored scores. No accuracy is looked at.

Suffixes: A architectures, S seeds, L weight layers, B depth bins.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from libranas import scores as store
from libranas.core.errors import LibranasError
from libranas.core.scorecard import Axis
from libranas.core.stats import finite_mean
from libranas.scores import ProxyTable, Scores
from libranas.zero_cost import lswag
from libranas.zero_cost.lswag import LayerWindow, depth_bin

#: Components that this module looks at.
COMPONENTS = lswag.COMPONENTS
RULES = ("spike", "valley", "all", "fixed")
#: Ends of a network that :func:`curve` can leave out, as positions among its weight layers.
ENDS = {"first": slice(0, 1), "last": slice(-1, None)}


@dataclass(frozen=True)
class WindowChoice:
    """A window and how it was read off the curve; ``peak`` is the bin of its extreme.

    ``threshold`` is median +- 1 MAD of the curve (None for rules that use none).
    """

    window: LayerWindow
    rule: str
    peak: int | None
    median: float
    mad: float
    threshold: float | None


def curve(
    scores: Scores | Iterable[Scores], bins: int = 10, exclude: Sequence[str] = ("first", "last")
) -> pd.DataFrame:
    """Mean log standard deviation of the gradient by depth (Eq. 6).

    Means over the seeds and the layers of a bin come first, so that a deep network counts as much as a shallow one.

    Parameters
    ----------
    exclude : any of ``"first"`` and ``"last"``
        Weight layers left out of the curve (not of the window): in vision transformers the head's gradient is many
        times that of all other layers, and the spike would always be the last bin.

    Returns
    -------
    DataFrame with one row a bin: ``bin``, ``mean``, ``std`` (population), ``n`` (networks with a layer in that bin; NaN
    where there is none). ``attrs["nonfinite"]`` counts entries of log sigma that were left out as not finite.
    """
    unknown = sorted(set(exclude) - ENDS.keys())
    if unknown:
        raise LibranasError(f"Cannot exclude layers {unknown} from the curve.", f"Known: {', '.join(ENDS)}.")
    means, nonfinite = [], 0
    for part in store.many(scores):
        log_sigma_ASL = _table(part, "lswag_lambda").components["log_sigma"].values
        mean_AB = np.full((len(part.archs), bins), np.nan)
        for (axis,), rows in _by_axes(part, "layer"):
            kept_L = np.ones(len(axis.names), bool)
            for end in exclude:
                kept_L[ENDS[end]] = False
            bin_L = depth_bin(axis.depth, bins)
            log_sigma_aSL = log_sigma_ASL[rows, :, : len(axis.names)]
            nonfinite += int((~np.isfinite(log_sigma_aSL[:, :, kept_L])).sum())
            for b in np.unique(bin_L[kept_L]):
                of_bin = log_sigma_aSL[:, :, kept_L & (bin_L == b)].reshape(len(rows), -1)
                mean_AB[rows, b] = finite_mean(of_bin, 1)
        means.append(mean_AB)
    mean_AB = np.concatenate(means)
    mean_B = finite_mean(mean_AB, 0)
    std_B = np.sqrt(finite_mean((mean_AB - mean_B) ** 2, 0))
    n_B = np.isfinite(mean_AB).sum(0)
    out = pd.DataFrame({"bin": np.arange(bins), "mean": mean_B, "std": std_B, "n": n_B})
    out.attrs["nonfinite"] = nonfinite
    return out


def choose_window(curve: pd.DataFrame, rule: str = "spike", fixed: tuple[int, int] | None = None) -> WindowChoice:
    """Read the layer window off a curve made by :func:`curve`; the paper marks the spike by eye.

    Parameters
    ----------
    rule : ``"spike"`` (the run of bins around the highest that stay above median + 1 MAD), ``"valley"``
        (its mirror image around the lowest: large 1/sigma), ``"all"``, or ``"fixed"``
    fixed : first and last bin, for the rule ``"fixed"``

    LibranasError if the rule or the fixed bins are not possible, or the curve has no finite value.
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


def apply_window(scores: Scores, window: LayerWindow, psi_range: str = "window") -> tuple[Scores, np.ndarray]:
    """Restrict ``lswag_lambda``, ``lswag_psi`` and their product ``lswag`` to a layer window.

    The options that the scores were made with, which are in their provenance, apply as on the score cards. A value
    stays NaN, with the reason, where the network's own value is not finite or no layer is left.

    Parameters
    ----------
    psi_range : which activation layers Psi counts, see :meth:`libranas.zero_cost.lswag.LayerWindow.psi_mask`

    Returns
    -------
    The scores; and how many networks each of :data:`WARNINGS` concerns, an array of their length
    """
    tables = lambda_, psi = _table(scores, "lswag_lambda"), _table(scores, "lswag_psi")
    options = lswag.options_of(scores.provenance.get("conditions", {}))
    value_PAS, from_first = np.full((3, *lambda_.value_AS.shape), np.nan), 0
    for axes, rows in _by_axes(scores, "layer", "activation"):
        wholes = (_whole(table, axis, rows) for table, axis in zip(tables, axes, strict=True))
        value_PAS[:, rows], instead = lswag.in_window(*wholes, window, psi_range, options)
        from_first += len(rows) * instead
    lambda_ = _replaced(lambda_, value_PAS[0], f"no usable weight layer in the layer window {window}")
    psi = _replaced(psi, value_PAS[1], f"no activation layer up to the end of the layer window {window}")
    product = scores.proxies.get("lswag", replace(lambda_, components={}, equation="Lambda x Psi (Eq. 1)"))
    reason_AS = np.where(lambda_.reason_AS != "", lambda_.reason_AS, psi.reason_AS)
    undefined_AS = (reason_AS == "") & ~np.isfinite(value_PAS[2])
    product = replace(
        product, value_AS=value_PAS[2], reason_AS=np.where(undefined_AS, lswag.NOT_POSITIVE, reason_AS).astype(object)
    )
    new = {"lswag": product, "lswag_lambda": lambda_, "lswag_psi": psi}
    windowed = replace(
        scores,
        proxies=dict(sorted({**scores.proxies, **new}.items())),
        provenance={**scores.provenance, "layer_window": {**asdict(window), "psi_range": psi_range}},
    )
    return windowed, np.array([from_first, undefined_AS.any(1).sum()])


#: What :func:`apply_window` counts.
WARNINGS = (
    "Psi is counted from the first activation layer to the end of the layer window for {} of {} networks: they have "
    "no activation layer inside it.",
    "Lambda is not positive for {} of {} networks: there L-SWAG = Lambda x Psi would fall as Psi grows, so it is "
    "undefined (gradient scale, or too few layers).",
)


def table(scores: Scores | Iterable[Scores], window: LayerWindow, psi_range: str = "window") -> pd.DataFrame:
    """:func:`libranas.scores.frame` with the three L-SWAG columns restricted to `window`.

    ``attrs["warnings"]`` are those of the scores and the :data:`WARNINGS` that concern a network.
    """
    warnings, counts, total = set(), np.zeros(len(WARNINGS), int), 0

    def windowed() -> Iterator[Scores]:
        nonlocal counts, total
        for part in store.many(scores):
            inside, of_part = apply_window(part, window, psi_range)
            warnings.update(part.warnings)
            counts, total = counts + of_part, total + len(part.archs)
            yield inside

    out = store.frame(windowed())
    warnings |= {text.format(count, total) for text, count in zip(WARNINGS, counts, strict=True) if count}
    out.attrs["warnings"] = sorted(warnings)
    return out


def whole_and_windowed(
    scores: Scores | Iterable[Scores], window: LayerWindow, psi_range: str = "window"
) -> pd.DataFrame:
    """:func:`libranas.scores.frame` of all layers, and beside it ``lswag_lambda_window`` and ``lswag_window``: the
    factors of L-SWAG one by one (the paper's Table 3)."""
    inside = table(scores, window, psi_range)[["lswag_lambda", "lswag"]]
    return store.frame(scores).join(inside.add_suffix("_window"))


def _table(scores: Scores, proxy: str) -> ProxyTable:
    if proxy not in scores.proxies:
        raise LibranasError(
            f"The layer window needs the proxy {proxy}, but the scores hold {', '.join(scores.proxies)}.",
            f"Add {proxy} to the proxies in the config and run again.",
        )
    return scores.proxies[proxy]


def _by_axes(scores: Scores, *names: str) -> Iterator[tuple[tuple[Axis, ...], np.ndarray]]:
    """Each distinct set of places with the rows of the architectures that have it."""
    none = (Axis((), ()),) * len(scores.archs)
    rows: dict[tuple[Axis, ...], list[int]] = {}
    for a, axes in enumerate(zip(*(scores.axes.get(name, none) for name in names), strict=True)):
        rows.setdefault(axes, []).append(a)
    return ((axes, np.array(found)) for axes, found in rows.items())


def _whole(table: ProxyTable, axis: Axis, rows: np.ndarray) -> lswag.Whole:
    """Lambda or Psi of the architectures in `rows`, which have the places `axis`."""
    count, components = len(axis.names), {}
    for name in table.components.keys() & {*COMPONENTS}:
        component = table.components[name]
        components[name] = component.values[rows][(..., *[slice(count)] * len(component.axes))]
    return lswag.Whole(table.value_AS[rows], components, axis)


def _replaced(old: ProxyTable, value_AS: np.ndarray, reason: str) -> ProxyTable:
    """`old` with new values; where it had failed it still has, and a new failure gets `reason`."""
    reason_AS = np.where(np.isfinite(old.value_AS), reason, old.reason_AS)
    return replace(old, value_AS=value_AS, reason_AS=np.where(np.isfinite(value_AS), "", reason_AS).astype(object))
