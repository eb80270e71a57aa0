"""Run a pass, in as many parts as memory demands; batch normalisation in training mode forbids parts."""

import gc

import torch

from libranas.core.errors import LibranasError
from libranas.zero_cost.hooks import OutputLost, RowsDiffer
from libranas.zero_cost.passes.analytic import Analytic
from libranas.zero_cost.passes.context import Context, PassRun
from libranas.zero_cost.passes.data import Data, Evaluation
from libranas.zero_cost.passes.gaussian import Gaussian
from libranas.zero_cost.passes.hessian import Hessian
from libranas.zero_cost.passes.jacobian import Jacobian
from libranas.zero_cost.passes.noise import Noise
from libranas.zero_cost.passes.readout import Readout
from libranas.zero_cost.passes.synaptic import Synaptic, SynapticBare
from libranas.zero_cost.passes.trial import Trial
from libranas.zero_cost.proxy import DATA, EVALUATION, TRIAL, Pass

#: Pass name -> the class that runs it.
PASSES: dict[str, type[PassRun]] = {
    run.pass_.name: run
    for run in (Trial, Analytic, Data, Evaluation, Jacobian, Hessian, Noise, Readout, Gaussian, Synaptic, SynapticBare)
}


def run_pass(context: Context, pass_: Pass) -> None:
    """Run `pass_` and give what it shows to the proxies; LibranasError if it fits in memory in no number of parts."""
    while (failure := _attempt(context, pass_)) is not None:
        context.collected.forget(context.shown_by(pass_))
        if failure:
            _split(context, pass_, failure)


def _attempt(context: Context, pass_: Pass) -> str | None:
    """Run a pass once; return what the allocator said if it did not fit, "" if it is to be repeated otherwise."""
    # A function of its own, so that the tensors in the traceback die before the next attempt.
    if context.doubts:
        context.doubts.clear()  # of an attempt that failed
    try:
        PASSES[pass_.name](context).run()
        if context.doubts:
            doubtful = bool(torch.stack(context.doubts).any())
            context.doubts = None if doubtful else []  # None: look at every layer at once
            return "" if doubtful else None
    except OutputLost:
        context.copy_outputs = True
        return ""
    except RowsDiffer:
        context.by_rule = context.kernel_by_rule = False
        context.other_rows = dict.fromkeys(("layer", "activation"), "of some images")
        return ""
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        return (str(error) or "out of memory").splitlines()[0]
    return None


def _split(context: Context, pass_: Pass, failure: str) -> None:
    """Free memory and make the parts of the batch half as large; raise an error if they cannot be."""
    inputs = context.inputs
    most = {DATA: context.units, TRIAL: 1}.get(pass_, len(inputs))
    coupled = context.coupled and pass_ != EVALUATION
    if coupled or pass_.batch in ("none", "ones") or context.parts >= most:
        raise LibranasError(
            f"The {pass_.name} pass does not fit in the memory of {inputs.device}: network with "
            f"{sum(p.numel() for p in context.model.parameters()):,} parameters, {len(inputs)} images of "
            f"{tuple(inputs.shape[1:])}. {failure}",
            "Batch normalisation in training mode does not allow to split the batch; use a smaller one, or mode='eval'."
            if coupled
            else "Use smaller images, or a device with more memory.",
        )
    context.parts *= 2
    gc.collect()
    if inputs.device.type == "cuda":
        torch.cuda.empty_cache()


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "not enough memory", "ALLOC_FAILED"))
