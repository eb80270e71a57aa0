"""Find out whether a network that was loaded from files is the network that was written to them.

As a program, ``python -m libranas.export.comparison FOLDER THREADS`` prints the record of the network in a folder.
"""

import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import libranas.networks.timm_models  # noqa: F401 - registers the architectures with timm
from libranas.core.errors import LibranasError

#: Largest difference of a value from PyTorch's, in units of the largest value (or of 1), that an export may have.
TOLERANCE = 1e-5


class NotExported(LibranasError):
    """A format has no network like this one, or what was loaded back is another network."""


def reason(error: Exception) -> str:
    """Return what any exception, or the first cause of it, says in one line."""
    if isinstance(error, NotExported):
        return error.what
    while error.__cause__:
        error = error.__cause__
    text = re.split("While executing|Original traceback", str(error))[0]  # of torch.export
    return f"{type(error).__name__}: {' '.join(text.split())[:500].rstrip('.')}"


def record(model: nn.Module, size: tuple[int, int, int]) -> dict:
    """Describe a network on the CPU, in evaluation mode, by what it holds and computes; JSON-ready.

    Parameters
    ----------
    size : C, H, W of the random images that it is given

    Returns
    -------
    ``state``: SHA-256 of each tensor of its state dict; ``calls``: of each call of a module (``NAME#NUMBER``), in the
    order in which they end, the description and, for each tensor that it returned, norm and a weighted sum; ``logits``
    """
    calls, hooks, count = {}, [], Counter()

    def note(name: str):
        def hook(module, inputs, output):
            count[name] += 1
            calls[f"{name}#{count[name]}"] = f"{type(module).__name__}({module.extra_repr()})", _numbers(output)

        return hook

    training = [module for module in model.modules() if module.training]
    try:
        hooks += [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
        images = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
        images[1] *= 4  # some activations differ at large values only
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            logits = model.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    state = {name: _sha256(tensor) for name, tensor in model.state_dict().items()}
    return {"state": state, "calls": calls, "logits": logits.tolist()}


def _numbers(output) -> list[list[float]]:
    tensors = [t.detach().double().flatten() for t in tree_leaves(output) if isinstance(t, torch.Tensor)]
    return [[t.norm().item(), (t @ torch.arange(len(t), dtype=t.dtype).cos()).item()] for t in tensors]


def _sha256(tensor: torch.Tensor) -> str:
    raw = tensor.detach().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + raw.tobytes()).hexdigest()


def record_of(folder: Path, fresh: bool) -> dict:
    """Return the record of the network in a timm ``local-dir``, loaded in this process or in a `fresh` one.

    Code of a user that changed timm, or registered a network with it, has not run in a fresh process. NotExported
    says why the network cannot be loaded or run.
    """
    if not fresh:
        try:
            model = timm.create_model(f"local-dir:{folder}", pretrained=True)
            return record(model, tuple(model.pretrained_cfg["input_size"]))
        except Exception as error:  # timm and the network have many of their own
            raise NotExported(f"it does not load back: {reason(error)}") from error
    command = [sys.executable, "-m", "libranas.export.comparison", str(folder), str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotExported((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def difference(ours: Mapping, theirs: Mapping) -> str:
    """Compare the records of the network that was written and of the one that was loaded.

    Returns
    -------
    what differs first, or "". What matters in training only, such as the rates of dropout, is not compared.
    """
    names = ours["state"] | theirs["state"]
    if changed := [name for name in names if ours["state"].get(name) != theirs["state"].get(name)]:
        return f"its weights {', '.join(changed[:5])} do not load back bit-equal"
    # Some calls depend on how a network is run, such as those in fused attention and in checkpointed blocks.
    for call in filter(theirs["calls"].__contains__, ours["calls"]):
        (text, numbers), (found, values) = ours["calls"][call], theirs["calls"][call]
        name = call.rpartition("#")[0]
        where = f"the module {name}" if name else "the network itself"
        if text == found and not _close(numbers, values):
            return f"{where}, {text}, computes something else; its code or a hook of it is not in the files"
        if text != found and numbers != values:
            return f"{where} is {text}, and {found} in the loaded network"
    logits, loaded = torch.tensor(ours["logits"]), torch.tensor(theirs["logits"])
    largest = (logits - loaded).abs().max().item()
    return "" if largest <= TOLERANCE * max(1.0, logits.abs().max().item()) else f"its logits differ by {largest:.3g}"


def _close(numbers: list, values: list) -> bool:
    pairs = itertools.zip_longest(numbers, values, fillvalue=(float("nan"),) * 2)
    return repr(numbers) == repr(values) or all(
        max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) <= TOLERANCE * max(0.1, ours[0])
        for ours, theirs in pairs
    )


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    try:
        print(json.dumps(record_of(sys.argv[1], fresh=False)))
    except NotExported as error:
        sys.exit(error.what)
