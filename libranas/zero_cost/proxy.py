"""The record of a proxy: what it captures at each place of the network, and formulas. A proxy never calls the model.

``reduce`` turns what is captured into a few numbers while it is alive: nothing large outlives its layer, but for
matrices that the option `tensor_cores` keeps (:mod:`libranas.zero_cost.spectra`). ``combine`` makes the value and the
components from those numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from libranas.zero_cost.options import Options


@dataclass(frozen=True)
class Pass:
    """One way of running the network. Proxies with equal passes share a single run.

    ``batch``: the calibration images, N(0, 1) noise, one image of ones, or the images of the readout. ``weights``: the
    initial ones, their absolute values, or drawn anew from N(0, 1). ``precision``: what the pass is computed in; None
    takes the caller's.
    """

    name: str
    batch: Literal["none", "data", "noise", "ones", "readout"]
    weights: Literal["initial", "absolute", "gaussian"] = "initial"
    precision: Literal["float32", "float64"] | None = None


ANALYTIC = Pass("analytic", "none")
DATA = Pass("data", "data")
#: Two images, to find out how the gradients of the network can be made; no proxy needs it.
TRIAL = Pass("trial", "data")
#: The images one by one, in evaluation mode; a network whose data pass is such a run anyway shows it there.
EVALUATION = Pass("evaluation", "data")
JACOBIAN = Pass("jacobian", "data")
HESSIAN = Pass("hessian", "data")
NOISE = Pass("noise", "noise")
#: More images than the others see, forwards only.
READOUT = Pass("readout", "readout")
GAUSSIAN = Pass("gaussian", "noise", weights="gaussian")
SYNAPTIC = Pass("synaptic", "ones", weights="absolute", precision="float64")
#: The synaptic pass with every LayerNorm replaced by the identity.
SYNAPTIC_BARE = Pass("synaptic_bare", "ones", weights="absolute", precision="float64")
#: What can be captured -> the pass that shows it, and the axis of its places (None: one place, the network).
NEEDS: dict[str, tuple[Pass, str | None]] = {
    "network": (ANALYTIC, None),  # Network
    "weight": (ANALYTIC, "layer"),  # Weight
    "gradient": (DATA, "layer"),  # Gradient: mean_OI
    "abs_spread": (DATA, "layer"),  # Gradient: abs_mean_OI, abs_std_OI
    "spread": (DATA, "layer"),  # Gradient: these, mean_OI and std_OI
    "signs": (DATA, "layer"),  # Gradient: sign_sum_OI
    "accumulated": (DATA, "layer"),  # Gradient: mean_OI and std_OI of running sums over the units
    "signal": (DATA, "layer"),  # Signal
    "output": (DATA, "layer"),  # Activation: signs of the layer's output, network in evaluation mode
    "activation": (DATA, "activation"),  # Activation
    "sample_spread": (EVALUATION, "layer"),  # Gradient over samples: mean_OI, std_OI and those of |g|
    "sample_activation": (EVALUATION, "activation"),  # Activation
    "input_gradient": (JACOBIAN, None),  # InputGradient
    "kernel": (JACOBIAN, None),  # TangentKernel
    "curvature": (HESSIAN, "layer"),  # Curvature
    "feature": (NOISE, "feature"),  # Feature
    "vjp": (NOISE, "feature"),  # Vjp; none at the first feature
    "maps": (NOISE, None),  # Maps
    "perturbation": (GAUSSIAN, None),  # Perturbation
    "representation": (READOUT, None),  # Representation
    "saliency": (SYNAPTIC, "layer"),  # Saliency
    "bare_saliency": (SYNAPTIC_BARE, "layer"),  # Saliency
}
#: Need -> reduce.
Captures = Mapping[str, Callable]


@dataclass(frozen=True)
class Proxy:
    """A zero-cost proxy: a frozen record and its formulas.

    Attributes
    ----------
    version : raised whenever the value for the same network and batch changes; cached scores are keyed by it
    title, source : in words, with the equation; paper
    run : the (most expensive) pass that it needs; its cost is the proxy's
    captures : need -> reduce, or a callable (Options) -> such a mapping
        ``reduce`` (what is captured, Options) -> dict of numbers or small tensors is called at each place,
        while the place's data are alive. The dicts of one place are joined.
    combine : callable (list of these dicts in execution order, Options) -> (value, components)
        Tensors without dimensions are floats by then. With ``parts``:
        (their :class:`~libranas.core.scorecard.ProxyScore` by name, Options) instead.
    components : component name to its axes (of :data:`libranas.core.scorecard.AXES`)
    orientation : +1 if higher predicts a better network, else -1
    parts : names of proxies whose values this one is made from; nothing is captured for it
    undefined_for : where it has no value; the reason recorded with the NaN
    """

    name: str
    version: int
    title: str
    source: str
    run: Pass
    combine: Callable
    captures: Captures | Callable[[Options], Captures] = field(default_factory=dict)
    components: dict[str, tuple[str, ...]] = field(default_factory=dict)
    orientation: int = 1
    parts: tuple[str, ...] = ()
    undefined_for: str = ""

    def captured(self, options: Options) -> Captures:
        """Return what it captures with these options."""
        return self.captures(options) if callable(self.captures) else self.captures

    def charged(self, options: Options) -> Pass:
        """The pass whose cost is the proxy's: ``run``, unless the options have it run in another one."""
        passes = [NEEDS[need][0] for need in self.captured(options)]
        return self.run if self.parts or self.run in passes else passes[0]


class Undefined(Exception):
    """Raised by a reduce or combine where the proxy has no value for this network: the reason."""
