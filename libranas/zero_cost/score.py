"""Score a network: run each pass once and hand what it captures to all proxies that share the pass.

The network is run by ``torch.func.functional_call`` on detached copies of its tensors: its weights, gradients, buffers
and ``requires_grad`` flags are never touched. Modes, fused attention and the random state are put back afterwards,
hooks are removed, and a hook of the user's own stays where it is.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import torch
import torch.utils.checkpoint
from torch import nn

from libranas.core.errors import LibranasError
from libranas.core.meter import Meter
from libranas.core.scorecard import Axis, PassCost, ProxyScore, ScoreCard
from libranas.zero_cost import registry
from libranas.zero_cost.collected import Collected
from libranas.zero_cost.hooks import switched
from libranas.zero_cost.options import Options
from libranas.zero_cost.parameters import excluded
from libranas.zero_cost.passes.context import Context
from libranas.zero_cost.passes.runner import run_pass
from libranas.zero_cost.proxy import DATA, EVALUATION, NEEDS, TRIAL, Proxy, Undefined
from libranas.zero_cost.tensor_cores import on_tensor_cores

#: What depends on how gradients can be made, and on the rows of layers.
TRIED = ("kernel", *(need for need, (pass_, _) in NEEDS.items() if pass_ in (DATA, EVALUATION)))


def score(
    model: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    proxies: Iterable[str] | None = None,
    seed: int = 0,
    macs: int | None = None,
    readout: tuple[torch.Tensor, torch.Tensor] | None = None,
    **options,
) -> ScoreCard:
    """Score any network by zero-cost proxies, on the device that it is on.

    Parameters
    ----------
    model : nn.Module
        Takes a batch of images and returns logits (B, K). Left exactly as it was.
    inputs : float tensor, shape (B, C, H, W)
        Normalised images. Class-balanced batches give the least noise.
    targets : tensor of integers, shape (B,)
        Their classes, from 0.
    proxies : names, optional
        Default: all (:func:`libranas.list_proxies`).
    seed : int
        Of everything random: noise images, random signs, redrawn weights, chosen units.
    macs : int, optional
        Multiply-accumulates of one image, where they are known; else they are counted.
    readout : (inputs, targets), optional
        More images for ``nngp``, which needs some hundred; it runs them forwards only. Default: the batch.
    **options
        See :class:`libranas.zero_cost.options.Options`.

    Returns
    -------
    ScoreCard
        Values, components in execution order with layer names, seconds and peak bytes of each pass, warnings. A proxy
        that is undefined for this network is NaN with the reason, never zero.

    Raises
    ------
    LibranasError
        For an unknown proxy, a batch that does not fit the network or the options, or a network that does not fit in
        memory. Where images are independent of each other, a batch that does not fit in memory is run
        in parts, which gives the same values (with a warning).
    ValueError
        For an option or a batch that makes no sense.
    """
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or hasattr(model, "_orig_mod"):
        # Copies on other devices and compiled code would miss the hooks.
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
    _check(model, inputs, targets)
    if readout is not None:
        _check(model, *readout)
    settings = Options(**options)
    names = registry.with_parts(registry.list_proxies() if proxies is None else proxies)
    records = [registry.get(name) for name in names]
    captured = [proxy for proxy in records if not proxy.parts]
    collected = Collected(captured, settings)
    device = next(model.parameters()).device
    scores: dict[str, ProxyScore] = {}
    costs: dict[str, PassCost] = {}
    with _isolated(model, device, settings.tensor_cores), torch.inference_mode(False), torch.enable_grad():
        inputs, targets = _usable(inputs, targets, device)
        readout = None if readout is None else _usable(*readout, device)
        context = Context(model, inputs, targets, seed, settings, collected, macs, readout)
        if collected.wants(*TRIED) and not context.known:
            run_pass(context, TRIAL)
        elif not context.axes and not context.known:
            context.dry_run()
        needs = [need for proxy in captured for need in collected.captures[proxy.name]]
        for pass_ in dict.fromkeys(context.actual(NEEDS[need][0]) for need in needs):
            with Meter(device) as meter:
                run_pass(context, pass_)
            costs[pass_.name] = PassCost(meter.seconds, meter.peak_bytes)
        collected.fetch()
        for proxy in [*captured, *(p for p in records if p.parts)]:
            scores[proxy.name] = _finish(proxy, context, scores, costs)
    if not context.axes:  # no proxy has run the network
        context.dry_run()
    left_out = excluded(context.model, context.layers())
    chosen = {name: scores[name] for name in names}
    return ScoreCard(chosen, context.axes, costs, left_out, tuple(_warnings(context)))


def _usable(inputs: torch.Tensor, targets: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch on the device."""
    # Tensors made in inference mode cannot be watched for changes: copies of them can.
    on_device = inputs.detach().to(device), targets.to(device, torch.int64)
    return tuple(t.clone() if t.is_inference() else t for t in on_device)


def _check(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    """Raise an error for a batch that makes no sense; too large a class shows at the first run."""
    if len(inputs) != len(targets):
        raise ValueError(f"{len(inputs)} inputs but {len(targets)} targets")
    kinds = f"inputs {inputs.dtype} {tuple(inputs.shape)}, targets {targets.dtype} {tuple(targets.shape)}"
    if not len(inputs) or not inputs.is_floating_point() or targets.dim() != 1:
        todo = "Give float images (B, C, H, W) and their classes (B,), at least one of each."
        raise LibranasError(f"The batch cannot be scored: {kinds}.", todo)
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool or targets.min() < 0:
        raise LibranasError(f"Targets must be classes, integers from 0: {kinds}, smallest {targets.min().item()}.")
    if not any(True for _ in model.parameters()):
        raise LibranasError("The network has no parameters.", "Score a network with weights.")


def _warnings(context: Context) -> Iterator[str]:
    if context.parts > 1:
        yield f"the batch did not fit in memory at once and was run in {context.parts} parts"
    if context.mixes and not any(m.running_mean is None for m in context.anatomy.batch_norms.values()):
        yield (
            "the logits of an image depend on the other images of its batch, in evaluation mode too: statistics are "
            "over micro-batches. Is the batch the dimension that the network takes it for?"
        )
    if context.unseen:
        some = ", ".join(sorted(context.unseen)[:5])
        yield (
            f"{len(context.unseen)} weights multiply images outside of any linear layer or convolution, so that "
            f"proxies of layers leave them out: {some}"
        )


def _finish(proxy: Proxy, context: Context, scores: dict[str, ProxyScore], costs: dict[str, PassCost]) -> ProxyScore:
    """Combine what a proxy's places were reduced to into its value; give a reason where it is not finite."""
    name = context.actual(proxy.charged(context.options)).name
    seconds = costs[name].seconds
    try:
        if proxy.parts:
            parts = {part: scores[part] for part in proxy.parts}
            failed = next((part.reason for part in parts.values() if part.reason), None)
            if failed is not None:
                raise Undefined(failed)
            value, components = proxy.combine(parts, context.options)
        else:
            value, components = proxy.combine(context.collected.of(proxy, context.watched()), context.options)
    except Undefined as reason:
        return ProxyScore(float("nan"), str(reason), {}, name, seconds)
    components = {
        key: _on_whole_axes(np.asarray(numbers, dtype=np.float64), proxy.components[key], context)
        for key, numbers in components.items()
    }
    reason = "" if np.isfinite(value) else "overflow or singular: the value is not finite"
    return ProxyScore(float(value), reason, components, name, seconds)


def _on_whole_axes(numbers: np.ndarray, axes: tuple[str, ...], context: Context) -> np.ndarray:
    """Spread a component of the watched places over all places, with NaN elsewhere."""
    watched = context.watched()
    places: list[Axis] = [context.axes[axis] for axis in axes]
    shape = tuple(len(axis.names) for axis in places)
    if numbers.shape == shape:
        return numbers
    whole = np.full(shape, np.nan)
    index = [np.flatnonzero(np.isin(axis.names, watched[name])) for name, axis in zip(axes, places, strict=True)]
    whole[np.ix_(*index)] = numbers
    return whole


@contextmanager
def _isolated(model: nn.Module, device: torch.device, tensor_cores: bool):
    """Set full precision for a while, whatever the caller has set; put back modes and the random state.

    Attention is computed by its parts, so that hooks see those.
    """
    training = {m: m.training for m in model.modules()}
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    devices = [device] if device.type == "cuda" else []
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(_no_checkpointing())
        if tensor_cores:
            stack.enter_context(on_tensor_cores(device))
            stack.enter_context(switched(model, True, "one_hot_positions"))
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            torch.set_float32_matmul_precision(precision)
            torch.backends.cudnn.allow_tf32 = tf32
            for m, mode in training.items():
                if m.training != mode:
                    m.training = mode


@contextmanager
def _no_checkpointing():
    """Let no part of a network run twice to save memory: the same values, and hooks would see it twice."""
    module = torch.utils.checkpoint
    with ExitStack() as stack:
        plain = staticmethod(lambda function, _, *args: function(*args))
        stack.enter_context(patch.object(module.CheckpointFunction, "apply", plain))
        for name in [n for n in vars(module) if n.startswith("_checkpoint_without_reentrant_generator")]:
            # What it yields to are the steps before and after the forward.
            stack.enter_context(patch.object(module, name, lambda *_, **__: iter([None])))
        yield
