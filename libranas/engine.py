"""Scores a network: runs each pass once and hands what it captures to all proxies that share the pass.

The network is run by ``torch.func.functional_call`` on detached copies of its tensors: its weights,
gradients, buffers and ``requires_grad`` flags are never touched. Modes, fused attention and the random
state are put back afterwards, hooks are removed, and a hook of the user's own stays where it is.
"""

import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from libranas import proxies as registry
from libranas.errors import LibranasError
from libranas.probe import (
    BATCH_NORMS,
    Anatomy,
    Moments,
    Recorder,
    add_gradients,
    as_matrix,
    examine,
    positions_last_channels,
)
from libranas.provenance import stream_seed
from libranas.proxies import Options, Proxy
from libranas.proxies.base import Feature, Network, Pass, Saliency, Vjp
from libranas.scorecard import PassCost, ProxyScore, ScoreCard

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def score(
    model: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    proxies: Iterable[str] | None = None,
    seed: int = 0,
    **options,
) -> ScoreCard:
    """Zero-cost proxies of any network, on the device that it is on.

    Parameters
    ----------
    model : nn.Module
        Takes a batch of images and returns logits (B, K). Left exactly as it was.
    inputs : float tensor, shape (B, C, H, W)
        Normalised images. Class-balanced batches give the least noise.
    targets : int64 tensor, shape (B,)
        Their classes.
    proxies : names, optional
        Default: all (:func:`libranas.list_proxies`).
    seed : int
        Of the noise images and the random signs of the AZ-NAS proxies.
    **options
        See :class:`libranas.proxies.Options`.

    Returns
    -------
    ScoreCard
        Values, components in execution order with layer names, seconds a pass. A proxy that is
        undefined for this network is NaN with the reason, never zero.

    Raises
    ------
    LibranasError
        For an unknown proxy, a layer type without a rule, or a batch that does not fit the options.
    """
    if len(inputs) != len(targets):
        raise ValueError(f"{len(inputs)} inputs but {len(targets)} targets")
    names = registry.with_parts(registry.list_proxies() if proxies is None else proxies)
    settings = Options(**options)
    device = next(model.parameters()).device
    records = [registry.get(name) for name in names]
    by_pass: dict[Pass, list[Proxy]] = defaultdict(list)
    for proxy in records:
        if not proxy.parts:
            by_pass[proxy.run].append(proxy)
    scores: dict[str, ProxyScore] = {}
    costs: dict[str, PassCost] = {}
    with _isolated(model), torch.inference_mode(False), torch.enable_grad():
        run = _Run(model, inputs.to(device), targets.to(device), seed, settings)
        for pass_, members in by_pass.items():
            begin = _start_clock(device)
            places = run.captured(pass_, members)
            costs[pass_.name] = _stop_clock(device, begin)
            for proxy in members:
                scores[proxy.name] = _finish(proxy, places[proxy.name], settings, costs)
    for proxy in records:
        if proxy.parts:
            scores[proxy.name] = _finish(proxy, {p: scores[p] for p in proxy.parts}, settings, costs)
    return ScoreCard({name: scores[name] for name in names}, run.axes, costs, run.anatomy.excluded)


def _finish(proxy: Proxy, reduced, settings: Options, costs: dict[str, PassCost]) -> ProxyScore:
    """The value of a proxy from what its places were reduced to, with a reason where it is not finite."""
    seconds = costs[proxy.run.name].seconds
    if isinstance(reduced, Undefined) or not reduced:
        reason = reduced.reason if isinstance(reduced, Undefined) else proxy.undefined_for
        return ProxyScore(float("nan"), reason, {}, proxy.run.name, seconds)
    value, components = proxy.combine(reduced, settings)
    components = {k: np.asarray(v, dtype=np.float64) for k, v in components.items()}
    reason = "" if np.isfinite(value) else "overflow or singular: the value is not finite"
    if proxy.parts and any(part.reason for part in reduced.values()):
        reason = next(part.reason for part in reduced.values() if part.reason)
    return ProxyScore(float(value), reason, components, proxy.run.name, seconds)


@dataclass(frozen=True)
class Undefined:
    """Stands for what the places would have given, where this network gives nothing."""

    reason: str


class _Run:
    """One scoring call: the tensors of the model by precision, and one method a pass."""

    def __init__(self, model, inputs, targets, seed, options: Options):
        self.model, self.inputs, self.targets, self.seed, self.options = model, inputs, targets, seed, options
        self.anatomy: Anatomy = examine(model, options.features)
        self.axes = {}
        train = self.anatomy.coupled if options.mode == "auto" else options.mode == "train"
        model.train(train)
        #: Whether the loss of a sample depends on the other samples of its batch.
        self.coupled = train and self.anatomy.coupled
        sample = not self.coupled if options.unit == "auto" else options.unit == "sample"
        self.units = len(inputs) if sample else options.pieces
        if len(inputs) % self.units:
            raise LibranasError(
                f"A batch of {len(inputs)} cannot be cut into {self.units} equal micro-batches.",
                "Choose a batch size that the option pieces divides.",
            )

    def captured(self, pass_: Pass, members: list[Proxy]) -> dict[str, list | Undefined]:
        """What each proxy's ``reduce`` made of its places, in execution order."""
        method = {"none": self._analytic, "data": self._data, "noise": self._noise, "ones": self._synaptic}
        return method[pass_.batch](pass_, members)

    def _wants(self, members, *needs) -> list[Proxy]:
        return [p for p in members if p.needs(self.options) in needs]

    def _tensors(self, precision: str | None, absolute: bool = False) -> dict[str, torch.Tensor]:
        """Detached parameters and copied buffers (batch norm writes into them) in the pass's precision."""
        dtype = _DTYPES[precision or self.options.precision]

        def prepared(tensor):
            if not tensor.is_floating_point():
                return tensor.clone()
            return tensor.detach().to(dtype).abs() if absolute else tensor.detach().to(dtype)

        # A parameter that two modules share must stay one tensor.
        own = {id(p): prepared(p) for p in self.model.parameters()}
        tensors = {n: own[id(p)] for n, p in self.model.named_parameters(remove_duplicate=False)}
        buffers = {n: prepared(b).clone() for n, b in self.model.named_buffers(remove_duplicate=False)}
        return tensors | buffers

    def _batch(self, pass_: Pass) -> torch.Tensor:
        dtype = _DTYPES[pass_.precision or self.options.precision]
        if pass_.batch == "noise":
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "noise"))
            size = (self.options.noise_batch or len(self.inputs), *self.inputs.shape[1:])
            return torch.randn(size, generator=generator).to(self.inputs.device, dtype)
        if pass_.batch == "ones":
            return torch.ones_like(self.inputs[:1], dtype=dtype)
        return self.inputs.to(dtype)

    # -- passes ------------------------------------------------------------------------------------------

    def _analytic(self, pass_: Pass, members) -> dict[str, list | Undefined]:
        mode = self.model.training
        self.model.eval()  # one image through train-mode batch norm would be refused
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            functional_call(self.model, self._tensors(None), (self._batch(pass_)[:1],))
        self.model.train(mode)
        trainable = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        network = Network(trainable, counter.get_total_flops() // 2)
        return {p.name: [p.reduce(network, self.options)] for p in members}

    def _data(self, pass_: Pass, members) -> dict[str, list | Undefined]:
        mean_only = self._wants(members, "gradient")
        spread = self._wants(members, "abs_moments", "signed_moments")
        on_activation = self._wants(members, "activation")
        tensors, inputs = self._tensors(pass_.precision), self._batch(pass_)
        found: dict[str, dict[str, object]] = {p.name: {} for p in members}

        def reduce_activation(place, activation):
            rows = len(activation.bits_SV)
            for p in on_activation:
                if rows == len(inputs):
                    found[p.name][place] = p.reduce(activation, self.options)
                else:
                    found[p.name][place] = Undefined(
                        f"activation {place} has {rows} rows for {len(inputs)} images: they are not samples"
                    )

        def moments_for(needing):
            needs = {p.needs(self.options) for p in needing}
            return Moments("signed_moments" in needs, "abs_moments" in needs)

        def reduce_gradient(name, weight, moments, needing):
            gradient = moments.gradient(as_matrix(weight))
            for p in needing:
                found[p.name][name] = p.reduce(gradient, self.options)

        if not self.coupled:  # one run serves all: the batch gradient is the mean over the units
            needing = mean_only + spread

            def at_once(name, module, weight, a_UGKI, d_UGKO):
                moments = moments_for(needing)
                # The loss is a mean over the batch, so a unit's own mean loss has `units` times its gradient.
                add_gradients(moments, a_UGKI, d_UGKO * self.units)
                reduce_gradient(name, weight, moments, needing)

            self._backward(tensors, inputs, self.targets, self.units, at_once if needing else None, reduce_activation)
        else:

            def whole(name, module, weight, a_UGKI, d_UGKO):
                moments = moments_for([])
                add_gradients(moments, a_UGKI, d_UGKO)
                reduce_gradient(name, weight, moments, mean_only)

            if mean_only or on_activation:
                self._backward(tensors, inputs, self.targets, 1, whole if mean_only else None, reduce_activation)
            if spread:
                kept: dict[str, tuple[torch.Tensor, Moments]] = {}

                def piecewise(name, module, weight, a_UGKI, d_UGKO):
                    _, moments = kept.setdefault(name, (weight, moments_for(spread)))
                    add_gradients(moments, a_UGKI, d_UGKO)

                pieces = zip(inputs.chunk(self.units), self.targets.chunk(self.units), strict=True)
                for x, y in pieces:
                    self._backward(tensors, x, y, 1, piecewise, None)
                for name, (weight, moments) in kept.items():
                    reduce_gradient(name, weight, moments, spread)
        return {p.name: self._in_order(p, found[p.name]) for p in members}

    def _backward(self, tensors, inputs, targets, units, on_gradient, on_activation) -> None:
        """One forward, and one backward if gradients are wanted. Weights need no gradient of autograd's: the
        images ask for one, so that the signal reaches every layer's output."""
        inputs = inputs.detach().clone().requires_grad_(on_gradient is not None)
        with Recorder(self.anatomy, units, on_gradient, on_activation) as recorder:
            logits = functional_call(self.model, tensors, (inputs,))
            if on_gradient is not None:
                torch.autograd.grad(nn.functional.cross_entropy(logits, targets), inputs)
        self.axes = self.axes or recorder.axes()

    def _noise(self, pass_: Pass, members) -> dict[str, list | Undefined]:
        static, moving = self._wants(members, "feature"), self._wants(members, "vjp")
        if not self.anatomy.features:
            return {p.name: Undefined(p.undefined_for) for p in members}
        inputs = self._batch(pass_).requires_grad_(bool(moving))
        with Recorder(self.anatomy, keep_features=True) as recorder:
            functional_call(self.model, self._tensors(pass_.precision), (inputs,))
        self.axes = self.axes or recorder.axes()
        names, tensors = list(recorder.features), list(recorder.features.values())
        places = {p.name: [] for p in members}
        for x in tensors:
            for p in static:
                places[p.name].append(p.reduce(Feature(positions_last_channels(x.detach())), self.options))
        for i in range(1, len(tensors) if moving else 0):
            signs = self._signs(names[i], tensors[i])
            (g_in,) = torch.autograd.grad(tensors[i], tensors[i - 1], signs, retain_graph=True)
            vjp = self._aligned(signs, g_in)
            for p in moving:
                places[p.name].append(p.reduce(vjp, self.options))
        return places

    def _signs(self, name: str, like: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(stream_seed(self.seed, "signs", name))
        return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like.device, like.dtype)

    @staticmethod
    def _aligned(g_out: torch.Tensor, g_in: torch.Tensor) -> Vjp:
        """Where a block halves the resolution, the finer side's pixels are folded into its channels."""
        if g_out.dim() == 4 and g_in.shape[-2:] != g_out.shape[-2:]:
            g_in = nn.functional.pixel_unshuffle(g_in, g_in.shape[-1] // g_out.shape[-1])
        return Vjp(positions_last_channels(g_out), positions_last_channels(g_in))

    def _synaptic(self, pass_: Pass, members) -> dict[str, list | Undefined]:
        tensors = self._tensors(pass_.precision, absolute=True)
        leaves = {n: tensors[f"{n}.weight" if n else "weight"].requires_grad_() for n in self.anatomy.layers}
        identities = BATCH_NORMS + ((nn.LayerNorm,) if self.options.synflow_ln == "identity" else ())
        handles = [
            m.register_forward_hook(lambda module, args, output: args[0])
            for m in self.model.modules()
            if isinstance(m, identities)
        ]
        mode = self.model.training
        self.model.eval()
        try:
            with Recorder(self.anatomy) as recorder:
                logits = functional_call(self.model, tensors, (self._batch(pass_),))
        finally:
            for handle in handles:
                handle.remove()
            self.model.train(mode)
        self.axes = self.axes or recorder.axes()
        order = [name for axis, name in recorder.order if axis == "layer"]
        gradients = torch.autograd.grad(logits.sum(), [leaves[n] for n in order], allow_unused=True)
        found: dict[str, dict[str, object]] = {p.name: {} for p in members}
        for name, gradient in zip(order, gradients, strict=True):
            if gradient is None:
                continue
            saliency = Saliency(as_matrix((leaves[name].detach() * gradient).abs()))
            for p in members:
                found[p.name][name] = p.reduce(saliency, self.options)
        return {p.name: self._in_order(p, found[p.name]) for p in members}

    def _in_order(self, proxy: Proxy, found: dict[str, object]) -> "list | Undefined":
        axis = "activation" if proxy.needs(self.options) == "activation" else "layer"
        if undefined := [value for value in found.values() if isinstance(value, Undefined)]:
            return undefined[0]
        missing = [n for n in self.axes[axis].names if n not in found]
        if missing:
            return Undefined(
                f"no gradient at {len(missing)} layers, e.g. {missing[0]}: the output does not depend on them, "
                "or they do not depend on the images"
            )
        return [found[n] for n in self.axes[axis].names]


@contextmanager
def _isolated(model: nn.Module):
    """Put back modes, fused attention and the random state, whatever happens in between."""
    training = {m: m.training for m in model.modules()}
    fused = [m for m in model.modules() if getattr(m, "fused_attn", False) is True]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            for m in fused:
                m.fused_attn = False
            yield
        finally:
            for m in fused:
                m.fused_attn = True
            for m, mode in training.items():
                m.training = mode


def _start_clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    return time.perf_counter()


def _stop_clock(device: torch.device, begin: float) -> PassCost:
    if device.type != "cuda":
        return PassCost(time.perf_counter() - begin)
    torch.cuda.synchronize(device)
    return PassCost(time.perf_counter() - begin, float(torch.cuda.max_memory_allocated(device)))
