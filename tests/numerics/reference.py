"""A slow scorer of our own that is easy to believe: loops over samples, plain autograd, float64.

Nothing here is taken from the engine but its random numbers (noise images and signs): no hooks for gradients,
no moments, no packed words. Every unit's gradient is held in memory, every activation pattern is a tuple.
"""

import copy
import math

import numpy as np
import torch
from torch import nn

from libranas import engine
from libranas.proxies import Options
from libranas.proxies.base import NOISE

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
WEIGHTS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def score(model, inputs, targets, seed: int = 0, **options) -> tuple[dict, dict]:
    """Values by proxy, and components by ``(proxy, component)``; the interface of ``engine.score`` otherwise."""
    options = Options(**options)
    net = copy.deepcopy(model).double()
    for p in net.parameters():
        p.requires_grad_(True)
    has_norm = any(isinstance(m, NORMS) for m in net.modules())
    train = has_norm if options.mode == "auto" else options.mode == "train"
    net.train(train)
    x, y = inputs.double(), targets
    by_sample = options.unit == "sample" or (options.unit == "auto" and not (train and has_norm))
    size = 1 if by_sample else len(x) // options.pieces
    units = [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]

    values, parts = {}, {}
    weights = weights_in_order(net, x)
    whole = gradients(net, x, y, weights)
    each = [gradients(net, a, b, weights) for a, b in units]  # units x layers
    parts["snip", "per_layer"] = [(w * g).abs().sum().item() for w, g in zip(weights, whole, strict=True)]
    parts["grad_norm", "per_layer"] = [g.pow(2).sum().sqrt().item() for g in whole]
    parts["zico", "per_layer"], parts["lswag_lambda", "lambda"], parts["lswag_lambda", "log_sigma"] = [], [], []
    for layer in range(len(weights)):
        g = torch.stack([unit[layer] for unit in each]).flatten(1)
        spread = {"signed": deviation(g), "abs": deviation(g.abs())}
        parts["zico", "per_layer"].append(log_sum_over(g.abs().mean(0), spread[options.zico_variance]))
        sigma = spread[options.lambda_variance]
        parts["lswag_lambda", "lambda"].append(log_sum_over(torch.ones_like(sigma), sigma))
        kept = [s for s in sigma.tolist() if varies(s, sigma)]
        parts["lswag_lambda", "log_sigma"].append(sum(map(math.log, kept)) / len(kept) if kept else math.nan)
    for name, component in (
        ("snip", "per_layer"),
        ("grad_norm", "per_layer"),
        ("zico", "per_layer"),
        ("lswag_lambda", "lambda"),
    ):
        values[name] = sum(parts[name, component])

    layers = pre_activations(net, x)
    if layers:
        values["nwot"] = nwot(layers)
        values["swap"] = float(len(set().union(*[patterns(z) for z in layers])))
        found = [patterns(z[: options.psi_samples]) for z in layers]
        values["lswag_psi"] = float(len(set().union(*found)))
        parts["lswag_psi", "words"] = [len(f) for f in found]
        parts["lswag_psi", "union"] = unions(found)
        values["lswag"] = values["lswag_lambda"] * values["lswag_psi"]
    parts["synflow", "per_layer"] = synflow(model, inputs, options)
    total = sum(parts["synflow", "per_layer"])
    values["synflow"] = math.log(total) if total > 0 else -math.inf
    values |= az(net, inputs, targets, seed, options)
    return values, parts


# -- gradients ---------------------------------------------------------------------------------------------


def weights_in_order(net, x) -> list[torch.Tensor]:
    """Weights of linear and convolution layers, by first execution; a shared one once."""
    found, handles = [], []

    def note(module, args, output):
        if not any(module.weight is w for w in found):
            found.append(module.weight)

    for m in net.modules():
        if isinstance(m, WEIGHTS):
            handles.append(m.register_forward_hook(note))
    net(x)
    for handle in handles:
        handle.remove()
    return found


def gradients(net, x, y, weights) -> list[torch.Tensor]:
    loss = nn.functional.cross_entropy(net(x), y)
    return [g.detach() for g in torch.autograd.grad(loss, weights)]


def deviation(g_UW: torch.Tensor) -> torch.Tensor:
    mean = g_UW.sum(0) / len(g_UW)
    return (sum((g - mean) ** 2 for g in g_UW) / len(g_UW)).sqrt()


def varies(s: float, sigma: torch.Tensor) -> bool:
    return s > 1e-12 * sigma.median().item()


def log_sum_over(numerator: torch.Tensor, sigma: torch.Tensor) -> float:
    terms = [n / s for n, s in zip(numerator.tolist(), sigma.tolist(), strict=True) if varies(s, sigma)]
    return math.log(sum(terms)) if terms else 0.0


# -- activations -------------------------------------------------------------------------------------------


def pre_activations(net, x) -> list[torch.Tensor]:
    """What enters every ReLU and GELU, in order of execution; samples x units."""
    seen, handles = [], []
    for m in net.modules():
        if isinstance(m, (nn.ReLU, nn.GELU)):
            handles.append(m.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone())))
    net(x)
    for handle in handles:
        handle.remove()
    return [z.reshape(len(z), -1) for z in seen]


def patterns(z_SV: torch.Tensor) -> set[tuple[bool, ...]]:
    """The set of sample-wise patterns: for every unit the tuple of its signs over the samples."""
    return {tuple(unit) for unit in (z_SV > 0).T.tolist()}


def unions(found: list[set]) -> np.ndarray:
    table = np.full((len(found), len(found)), np.nan)
    for i in range(len(found)):
        for j in range(i, len(found)):
            table[i, j] = len(set().union(*found[i : j + 1]))
    return table


def nwot(layers: list[torch.Tensor]) -> float:
    codes = [[c for z in layers for c in (z[s] > 0).tolist()] for s in range(len(layers[0]))]
    kernel = np.array([[sum(a == b for a, b in zip(u, v, strict=True)) for v in codes] for u in codes], float)
    if np.linalg.matrix_rank(kernel) < len(kernel):
        return -math.inf
    return float(np.linalg.slogdet(kernel)[1])


# -- the synaptic pass ---------------------------------------------------------------------------------------


def synflow(model, inputs, options: Options) -> list[float]:
    net = copy.deepcopy(model).double().eval()
    for p in net.parameters():
        p.data.abs_()
        p.requires_grad_(True)
    identity = NORMS + ((nn.LayerNorm,) if options.synflow_ln == "identity" else ())
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, identity):
                setattr(parent, name, nn.Identity())
    ones = torch.ones_like(inputs[:1]).double()
    weights = weights_in_order(net, ones)
    grads = torch.autograd.grad(net(ones).sum(), weights)
    return [(w * g).abs().sum().item() for w, g in zip(weights, grads, strict=True)]


# -- AZ-NAS --------------------------------------------------------------------------------------------------


def az(net, inputs, targets, seed, options: Options) -> dict[str, float]:
    run = engine._Run(copy.deepcopy(net), inputs.double(), targets, seed, options)  # for its random numbers only
    names, tensors = primary_blocks(net, run._batch(NOISE).double().requires_grad_(), options.features)
    if not names:
        return {"az_expressivity": math.nan, "az_trainability": math.nan}
    expressivity = sum(entropy(channels_last(t.detach())) for t in tensors)
    terms = []
    for i in range(1, len(tensors)):
        signs = run._signs(names[i], tensors[i]).double()
        (g_in,) = torch.autograd.grad(tensors[i], tensors[i - 1], signs, retain_graph=True)
        while g_in.dim() == 4 and g_in.shape[-1] > signs.shape[-1]:
            r = g_in.shape[-1] // signs.shape[-1]
            g_in = torch.stack([g_in[:, :, a::r, b::r] for a in range(r) for b in range(r)], 2).flatten(1, 2)
        a, b = channels_last(g_in), channels_last(signs)
        jacobian = sum(torch.outer(u, v) for u, v in zip(a, b, strict=True)) / len(b)
        s = np.linalg.svd(jacobian.numpy(), compute_uv=False)[0]
        terms.append(2 - s - 1 / (s + 1e-6))
    return {"az_expressivity": expressivity, "az_trainability": sum(terms) / len(terms) if terms else math.nan}


def primary_blocks(net, x, features) -> tuple[list[str], list[torch.Tensor]]:
    modules = dict(net.named_modules())
    if features:
        points = [(n, modules[n], "output") for n in features]
    else:
        points = []
        for i in range(len(getattr(net, "blocks", []))):
            points += [(f"blocks.{i}.after_attn", modules[f"blocks.{i}.norm2"], "input")]
            points += [(f"blocks.{i}.after_mlp", modules[f"blocks.{i}"], "output")]
    kept, handles = {}, []
    for name, module, side in points:

        def keep(m, args, output, name=name, side=side):
            kept[name] = args[0] if side == "input" else output

        handles.append(module.register_forward_hook(keep))
    net(x)
    for handle in handles:
        handle.remove()
    return list(kept), list(kept.values())


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Rows: images and positions; columns: channels."""
    return x.flatten(2).transpose(1, 2).flatten(0, 1) if x.dim() == 4 else x.reshape(-1, x.shape[-1])


def entropy(rows: torch.Tensor) -> float:
    rows = rows.numpy()
    values = np.linalg.eigvalsh(np.cov(rows.T, bias=True).reshape(rows.shape[1], rows.shape[1])).clip(0)
    return float(-sum(p * math.log(p + 1e-8) for p in values / values.sum()))
