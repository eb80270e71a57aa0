"""The score card of one network: a value a proxy, its components and its cost.

The engine makes it, the progress log keeps it as JSON, and the store as HDF5.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

#: Axes along which components are stored. ``layer``: convolution and linear weights in execution order;
#: ``activation``: ReLU, GELU and SiLU modules in execution order; ``feature``: outputs of the primary blocks.
AXES = ("layer", "activation", "feature")


class Axis(NamedTuple):
    """Names of the places along one axis of a network and their relative depth.

    ``depth[i]`` in [0, 1) is the place among the weight layers over their number; an activation or feature has that of
    the last weight layer executed before it.
    """

    names: tuple[str, ...]
    depth: tuple[float, ...]


@dataclass(frozen=True)
class ProxyScore:
    """One proxy on one network; ``value`` is NaN exactly when ``reason`` says why.

    ``components`` maps a name to an array with the axes of the proxy's specification, such as (L,) of layers.
    ``seconds`` is the time of the pass that the proxy shared.
    """

    value: float
    reason: str = ""
    components: dict[str, np.ndarray] = field(default_factory=dict)
    pass_name: str = ""
    seconds: float = float("nan")


class PassCost(NamedTuple):
    """Wall-clock seconds and peak memory of one shared pass, as :class:`libranas.core.meter.Meter` measures them."""

    seconds: float
    peak_bytes: float = float("nan")


@dataclass(frozen=True)
class ScoreCard:
    """All proxies of one network with one initialisation.

    Attributes
    ----------
    scores : proxy name to :class:`ProxyScore`
    axes : axis name (of :data:`AXES`) to :class:`Axis`
    passes : pass name to :class:`PassCost`
    excluded : names of parameters that no proxy counts as a layer (class token, positions, norms, biases)
    warnings : sentences for the reader
    """

    scores: dict[str, ProxyScore]
    axes: dict[str, Axis]
    passes: dict[str, PassCost]
    excluded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __getitem__(self, proxy: str) -> float:
        return self.scores[proxy].value

    def merged(self, other: "ScoreCard") -> "ScoreCard":
        """Return this card with `other`'s proxies added; `other` wins where both have one.

        Of a pass that both ran, for different proxies, the larger seconds and bytes are kept: a lower bound
        of what one run for all of them takes.
        """
        passes = {**self.passes, **other.passes}
        for name in self.passes.keys() & other.passes.keys():
            passes[name] = PassCost(*np.fmax(self.passes[name], other.passes[name]).tolist())  # a number before NaN
        return ScoreCard(
            {**self.scores, **other.scores},
            {**self.axes, **other.axes},
            passes,
            other.excluded or self.excluded,
            tuple(dict.fromkeys(self.warnings + other.warnings)),
        )

    def to_record(self) -> dict:
        """Return plain JSON values; floats keep every bit."""
        return {
            "scores": {
                name: {
                    "value": s.value,
                    "reason": s.reason,
                    "components": {k: np.asarray(v).tolist() for k, v in s.components.items()},
                    "pass": s.pass_name,
                    "seconds": s.seconds,
                }
                for name, s in self.scores.items()
            },
            "axes": {name: axis._asdict() for name, axis in self.axes.items()},
            "passes": {name: list(cost) for name, cost in self.passes.items()},
            "excluded": self.excluded,
            "warnings": self.warnings,
        }

    @classmethod
    def from_record(cls, record: dict) -> "ScoreCard":
        """Inverse of :meth:`to_record`."""
        return cls(
            scores={
                name: ProxyScore(
                    s["value"],
                    s["reason"],
                    {k: np.asarray(v, dtype=np.float64) for k, v in s["components"].items()},
                    s["pass"],
                    s["seconds"],
                )
                for name, s in record["scores"].items()
            },
            axes={name: Axis(tuple(a["names"]), tuple(a["depth"])) for name, a in record["axes"].items()},
            passes={name: PassCost(*cost) for name, cost in record["passes"].items()},
            excluded=tuple(record["excluded"]),
            warnings=tuple(record["warnings"]),
        )
