"""A slow scorer of our own that is easy to believe: loops over samples, plain autograd, float64.

Nothing here is taken from the engine but its random numbers (noise images, signs, weights that are drawn anew):
no hooks for gradients, no moments, no packed words. Every unit's gradient is held in memory, every activation
pattern is a tuple. The option ``window`` is not covered.
"""

import copy
import math
import re
from itertools import pairwise

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from libranas.zero_cost.collected import Collected
from libranas.zero_cost.options import Options
from libranas.zero_cost.passes.context import Context
from libranas.zero_cost.passes.gaussian import Gaussian
from libranas.zero_cost.passes.noise import Noise
from libranas.zero_cost.proxy import NOISE

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
NORMS = (*BATCH_NORMS, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
WEIGHTS = (nn.Linear, nn.Conv1d, nn.Conv2d)
ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU)
NAN = math.nan
#: Proxies whose value is the sum over layers of their component ``per_layer``.
LAYERWISE = ("l2_norm", "plain", "snip", "grad_norm", "fisher", "grasp", "gsnr", "zico", "tcet")


def score(model, inputs, targets, seed: int = 0, **options) -> tuple[dict, dict]:
    """Values by proxy, and components by ``(proxy, component)``; the interface of ``engine.score`` otherwise."""
    options = Options(**options, precision="float64")
    has_norm = any(isinstance(m, BATCH_NORMS) for m in model.modules())
    train = has_norm if options.mode == "auto" else options.mode == "train"
    net, x, y = prepared(model, train), inputs.double(), targets
    by_sample = options.unit == "sample" or (options.unit == "auto" and not (train and has_norm))
    size = 1 if by_sample else len(x) // options.pieces
    units = [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]
    # For its random numbers only.
    context = Context(copy.deepcopy(net), x, y, seed, options, Collected([], options))
    noise = context.batch(NOISE).double()

    layers = layers_in_order(net, x)
    values = {"params": sum(p.numel() for p in model.parameters() if p.requires_grad)}
    values["flops"] = multiplications(prepared(model, False), x[:1])
    parts = of_the_batch(net, x, y, layers, options) | of_units(net, units, layers, options)
    kept = synflow(model, x, "keep")
    chosen = synflow(model, x, options.synflow_ln)
    saliency = parts["snip", "entries"] if options.tcet_saliency == "snip" else kept
    parts["tcet", "per_layer"], parts["tcet", "nu"] = tcet(prepared(model, False), x, layers, saliency)
    parts["synflow", "per_layer"] = [entries.sum().item() for entries in chosen]
    for name in LAYERWISE:
        values[name] = sum(parts[name, "per_layer"])
    if not any(parts["tcet", "nu"]):  # all kernels are singular
        values["tcet"] = NAN
    values["synflow"] = log(sum(parts["synflow", "per_layer"]))
    values["dss"], parts["dss", "per_layer"] = dss(model, x, layers, kept)
    weights = sum(m.weight.numel() for m in layers.values()) if options.gradsign == "mean" else 1
    values["gradsign"] = sum(parts["gradsign", "per_layer"]) / weights
    values["lswag_lambda"] = lambda_total(parts["lswag_lambda", "sums"], parts["lswag_lambda", "lambda"], options)
    if not any(parts["zico", "sums"]):  # nothing varies
        values["zico"] = NAN
    if not any(parts["lswag_lambda", "sums"].values()):
        values["lswag_lambda"] = NAN
    if len(units) == 1:
        values |= dict.fromkeys(("zico", "gsnr", "lswag_lambda"), NAN)
    found, more = of_activations(net, x, values["params"], options)
    values, parts = values | found, parts | more
    if "lswag_psi" in values:
        values["lswag"] = lswag(values["lswag_lambda"], values["lswag_psi"], len(layers), options.lswag_form)
    found, more = lswag_sample(prepared(model, False), x, y)
    values, parts = values | found, parts | more
    values["jacov"], values["epe_nas"] = of_input_gradients(net, x, y)
    values["ntk_cond"] = ntk_cond(net, x[: options.ntk_images])
    values["nngp"] = nngp(net, x, y, list(layers.values())[-1])
    values["meco"] = meco(net, noise[:1], options.meco_modules)
    found, more = az(net, noise, Noise(context).random_signs, options.features)
    values, parts = values | found, parts | more
    draws = [Gaussian(context).draw(repeat) for repeat in range(options.zen_repeats)]
    values["zen"] = zen(prepared(model, train), draws, options)
    return values, {key: value for key, value in parts.items() if key[1] not in ("entries", "sums")}


def prepared(model, train: bool) -> nn.Module:
    """A copy in float64, with plain attention, whose parameters all ask for a gradient."""
    net = copy.deepcopy(model).double().train(train)
    for p in net.parameters():
        p.requires_grad_(True)
    for m in net.modules():
        if hasattr(m, "fused_attn"):
            m.fused_attn = False
    return net


def watch(net, x, hook, kinds=nn.Module) -> torch.Tensor:
    """Run with ``hook(name, module, input, output)`` at every use of a module of `kinds`; what the network gives."""
    handles = [
        m.register_forward_hook(lambda module, args, output, name=name: hook(name, module, args[0], output))
        for name, m in net.named_modules()
        if isinstance(m, kinds)
    ]
    try:
        return net(x)
    finally:
        for handle in handles:
            handle.remove()


def layers_in_order(net, x) -> dict[str, nn.Module]:
    """Linear and convolution layers, by first execution; those with a shared weight once."""
    found = {}

    def note(name, module, before, output):
        if not any(module.weight is m.weight for m in found.values()):
            found[name] = module

    watch(net, x, note, WEIGHTS)
    return found


def name_of(module, layers: dict[str, nn.Module]) -> str:
    return next(name for name, m in layers.items() if m.weight is module.weight)


def log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


# -- size ----------------------------------------------------------------------------------------------------


class Products(TorchDispatchMode):
    """Counts the multiply-accumulates of matrix products and convolutions."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.count += output.numel() * args[0].shape[-1]
        elif name in ("addmm", "baddbmm"):
            self.count += output.numel() * args[1].shape[-1]
        elif name == "convolution":
            self.count += output.numel() * args[1][0].numel()
        return output


def multiplications(net, image) -> int:
    with torch.no_grad(), Products() as products:
        net(image)
    return products.count


# -- gradients of the whole batch ----------------------------------------------------------------------------


def gradients(net, x, y, layers, **how) -> list[torch.Tensor]:
    return list(torch.autograd.grad(cross_entropy(net(x), y), [m.weight for m in layers.values()], **how))


def of_the_batch(net, x, y, layers, options: Options) -> dict:
    """Components of proxies that are made of the gradient of the mean loss; the entries of snip as well."""
    weights, slopes = [m.weight for m in layers.values()], gradients(net, x, y, layers, create_graph=True)
    along = sum((g.detach() * g).sum() for g in slopes)
    curvature = torch.autograd.grad(along, weights)  # of every layer: the Hessian times the gradient
    weights, slopes = [w.detach() for w in weights], [g.detach() for g in slopes]
    pairs = list(zip(weights, slopes, strict=True))
    entries = [(w * g).abs() for w, g in pairs]
    return {
        ("l2_norm", "per_layer"): [w.pow(2).sum().sqrt().item() for w in weights],
        ("plain", "per_layer"): [(w * g).sum().item() for w, g in pairs],
        ("snip", "per_layer"): [e.sum().item() for e in entries],
        ("snip", "entries"): entries,
        ("grad_norm", "per_layer"): [g.pow(2).sum().sqrt().item() for g in slopes],
        ("grasp", "per_layer"): [-(w * h).sum().item() for w, h in zip(weights, curvature, strict=True)],
        ("fisher", "per_layer"): fisher(net, x, y, layers, options),
    }


def fisher(net, x, y, layers, options: Options) -> list[float]:
    """Half the mean over images of (output x its gradient, summed over positions) squared, a channel."""
    seen = []

    def keep(name, module, before, output):
        seen.append((module, output))
        return output.clone()  # what follows may work in place

    loss = cross_entropy(watch(net, x, keep, WEIGHTS), y)
    slopes = torch.autograd.grad(loss, [output for _, output in seen])
    total = dict.fromkeys(layers, 0.0)
    for (module, output), slope in zip(seen, slopes, strict=True):
        product = (output * slope).detach()
        if isinstance(module, nn.Linear) and options.fisher_axis == "channel":
            product = product.reshape(len(x), -1, product.shape[-1]).sum(1)
        else:
            product = product.reshape(*product.shape[:2], -1).sum(2)
        fan_in = module.weight[0].numel() if options.fisher_fan_in else 1
        total[name_of(module, layers)] += fan_in * 0.5 * sum(p**2 for p in product).sum().item() / len(x)
    return list(total.values())


# -- gradients of units --------------------------------------------------------------------------------------


def of_units(net, units, layers, options: Options) -> dict:
    """Components of proxies that are statistics over units (samples or micro-batches)."""
    each = [gradients(net, a, b, layers, materialize_grads=True) for a, b in units]
    components = ("lambda", "log_sigma", "dropped", "sums")
    parts = {(p, "per_layer"): [] for p in ("zico", "gsnr", "gradsign")} | {("lswag_lambda", c): [] for c in components}
    parts["zico", "sums"] = []
    for layer in range(len(layers)):
        g_UW = torch.stack([unit[layer] for unit in each]).flatten(1)
        spread = {"signed": deviation(g_UW), "abs": deviation(g_UW.abs())}
        ratios = sum_of_ratios(g_UW, spread[options.zico_variance])
        parts["zico", "sums"].append(ratios)
        parts["zico", "per_layer"].append(math.log(ratios) if ratios else 0.0)
        steps = torch.stack([g_UW[: u + 1].sum(0) for u in range(len(g_UW))]) if options.gsnr_accumulate else g_UW
        mean = steps.mean(0)
        parts["gsnr", "per_layer"].append((mean**2 / (deviation(steps) ** 2 + 1e-8)).sum().item())
        parts["gradsign", "per_layer"].append(sum(g.sign() for g in g_UW).abs().sum().item())
        found = lambda_of(spread[options.lambda_variance], len(units), options)
        for component, value in zip(components, found, strict=True):
            parts["lswag_lambda", component].append(value)
    parts["lswag_lambda", "sums"] = dict(zip(layers, parts["lswag_lambda", "sums"], strict=True))
    return parts


def deviation(g_UW: torch.Tensor) -> torch.Tensor:
    mean = g_UW.sum(0) / len(g_UW)
    return (sum((g - mean) ** 2 for g in g_UW) / len(g_UW)).sqrt()


def varies(s: float, sigma: torch.Tensor) -> bool:
    return s > 1e-12 * sigma.median().item()


def sum_of_ratios(g_UW: torch.Tensor, sigma: torch.Tensor) -> float:
    """E|g| / sigma of the weights that vary."""
    pairs = zip(g_UW.abs().mean(0).tolist(), sigma.tolist(), strict=True)
    return sum(mean / s for mean, s in pairs if varies(s, sigma))


def lambda_of(sigma: torch.Tensor, units: int, options: Options) -> tuple:
    """Lambda, mean log sigma and number of weights left out of a layer, and its sum of 1 / sigma."""
    if options.lambda_ddof:
        sigma = sigma * math.sqrt(units / (units - 1)) if units > 1 else sigma * NAN
    every = [s for s in sigma.tolist() if varies(s, sigma)]
    total = sum(1 / s for s in every)
    log_sigma = sum(map(math.log, every)) / len(every) if every else NAN
    return math.log(total) if total else 0.0, log_sigma, sigma.numel() - len(every), total


def lambda_total(sums: dict[str, float], per_layer: list[float], options: Options) -> float:
    names = list(sums)
    ends = {"first": names[0], "last": names[-1]}
    excluded = {ends.get(name, name) for name in options.lambda_exclude}
    if options.lambda_pool == "layer":
        return sum(v for name, v in zip(names, per_layer, strict=True) if name not in excluded)
    blocks: dict[str, float] = {}
    for name in names:
        if name not in excluded:
            blocks[block_of(name)] = blocks.get(block_of(name), 0.0) + sums[name]
    return sum(math.log(total) for total in blocks.values() if total)


def block_of(name: str) -> str:
    """The name up to its first number (``blocks.0`` of ``blocks.0.mlp.fc1``), or the layer alone."""
    return re.sub(r"^(.*?\b\d+)\..*", r"\1", name)


# -- activations ---------------------------------------------------------------------------------------------


def before_activations(net, x) -> list[torch.Tensor]:
    """What enters each activation module, in the order of execution."""
    before = []  # cloned on the way in: an in-place ReLU overwrites it
    handles = [
        m.register_forward_pre_hook(lambda module, args: before.append(args[0].detach().clone()))
        for m in net.modules()
        if isinstance(m, ACTIVATIONS)
    ]
    net(x)
    for handle in handles:
        handle.remove()
    return before


def of_activations(net, x, params: int, options: Options) -> tuple[dict, dict]:
    before = before_activations(net, x)
    if not before:
        return dict.fromkeys(("nwot", "swap", "reg_swap", "linear_regions", "lswag_psi", "lswag"), NAN), {}
    layers = [z.flatten(1) for z in before]
    kernel = sum(agreement(z) for z in layers)
    words = [patterns(z) for z in layers]
    values = {"nwot": log_det(kernel, -math.inf), "swap": float(len(set().union(*words)))}
    values["reg_swap"] = NAN
    if options.reg_swap:
        mu, sigma = options.reg_swap
        values["reg_swap"] = values["swap"] * math.exp(-((params / 1000 - mu) ** 2) / sigma)
    codes = [tuple(code) for code in (torch.cat(layers, 1) > 0).tolist()]
    values["linear_regions"] = float(len(set(codes)))
    parts = {("swap", "words"): [len(w) for w in words]}
    found = [patterns(z[: options.psi_samples]) for z in layers]
    counts = [len(f) for f in found]
    values["lswag_psi"] = {
        "union": float(len(set().union(*found))),
        "sum": float(sum(counts)),
        "log_sum": sum(map(math.log, counts)),
    }[options.psi_merge]
    parts["lswag_psi", "words"], parts["lswag_psi", "union"] = counts, unions(found)
    parts["lswag_psi", "units"] = [z.shape[1] for z in layers]
    return values, parts


def patterns(z_SV: torch.Tensor) -> set[tuple[bool, ...]]:
    """The set of sample-wise patterns: for every unit the tuple of its signs over the samples."""
    return {tuple(unit) for unit in (z_SV > 0).T.tolist()}


def unions(found: list[set]) -> np.ndarray:
    table = np.full((len(found), len(found)), np.nan)
    for i in range(len(found)):
        for j in range(i, len(found)):
            table[i, j] = len(set().union(*found[i : j + 1]))
    return table


def agreement(z_SV: torch.Tensor) -> np.ndarray:
    """Number of units on which two samples agree."""
    codes = (z_SV > 0).tolist()
    return np.array([[sum(a == b for a, b in zip(u, v, strict=True)) for v in codes] for u in codes], float)


def log_det(kernel: np.ndarray, singular: float) -> float:
    if np.linalg.matrix_rank(kernel) < len(kernel):
        return singular
    return float(np.linalg.slogdet(kernel)[1])


def lswag(slope: float, psi: float, layers: int, form: str) -> float:
    if form == "log":
        return slope + log(psi)
    if slope <= 0:  # the product would fall as Psi grows
        return NAN
    return slope * psi / (layers if form == "per_layer" else 1)


def lswag_sample(net, x, y) -> tuple[dict, dict]:
    """Evaluation mode, a sample at a time; patterns of log2(units) + 2 samples."""
    layers = layers_in_order(net, x)
    each = [gradients(net, x[i : i + 1], y[i : i + 1], layers) for i in range(len(x))]
    logs = []
    for layer in range(len(layers)):
        g_SW = torch.stack([sample[layer] for sample in each]).flatten(1)
        ratios = sum_of_ratios(g_SW, deviation(g_SW))
        logs.append(math.log(ratios) if ratios else 0.0)
    values = {"lswag_sample_lambda": sum(logs) if any(logs) else NAN, "lswag_sample_psi": NAN, "lswag_sample": NAN}
    parts = {("lswag_sample_lambda", "lambda"): logs}
    before = before_activations(net, x)
    if before:
        layers = [z.flatten(1) for z in before]
        words = [len(patterns(z[: math.ceil(math.log2(z.shape[1])) + 2])) for z in layers]
        values["lswag_sample_psi"], parts["lswag_sample_psi", "words"] = float(sum(words)), words
        values["lswag_sample"] = sum(logs) * sum(words) if sum(logs) > 0 else NAN
    return values, parts


def tcet(net, x, layers, saliency) -> tuple[list[float], list[float]]:
    """log(SNR) x nu by layer, and nu: log det of the kernel of the signs of the layer's (first) output."""
    signs = {}

    def keep(name, module, before, output):
        signs.setdefault(name, output.detach().flatten(1).clone())

    watch(net, x, keep, WEIGHTS)
    nu = [log_det(agreement(signs[name]), 0.0) for name in layers]
    per_layer = []
    for entries, weight in zip(saliency, nu, strict=True):
        equal = entries.max() - entries.min() <= 1e-14 * entries.max()
        ratio = entries.sum().item() / (1.0 if equal else entries.numpy().std(ddof=1).item())
        per_layer.append(weight * (math.log(ratio) if ratio > 0 else ratio))
    return per_layer, nu


# -- gradients of logits -------------------------------------------------------------------------------------


def correlation(rows: np.ndarray) -> np.ndarray:
    """Of rows with each other; NaN at constant ones."""
    centred = rows - rows.mean(1, keepdims=True)
    centred[rows.max(1) == rows.min(1)] = 0.0
    lengths = np.sqrt((centred**2).sum(1))
    with np.errstate(invalid="ignore"):
        return centred @ centred.T / lengths[:, None] / lengths


def of_input_gradients(net, x, y) -> tuple[float, float]:
    """jacov and epe_nas."""
    x = x.clone().requires_grad_()
    logits = net(x)
    rows = torch.autograd.grad(logits.sum(), x)[0].flatten(1).numpy()
    whole, k, many = correlation(rows), 1e-5, logits.shape[1] > 100
    jacov = NAN
    if np.isfinite(whole).all():
        values = np.linalg.eigvalsh(whole) + k
        jacov = float(-(np.log(values) + 1 / values).sum())
    classes = [correlation(rows[(y == c).numpy()]) for c in y.unique().tolist()]
    if all(len(members) == 1 for members in classes):
        return jacov, NAN
    if many:  # means instead of sums; a class with one image has none
        scores = [np.log(np.abs(members) + k).sum() / len(members) for members in classes if len(members) > 1]
        return jacov, float(sum(abs(a - b) for a in scores for b in scores) / len(scores))
    return jacov, float(sum(abs(np.log(np.abs(members) + k).sum()) for members in classes))


def ntk_cond(net, x) -> float:
    owners = [m for m in net.modules() if isinstance(m, WEIGHTS + NORMS) and m.weight is not None]
    weights = list({id(m.weight): m.weight for m in owners}.values())
    logits, rows = net(x), []
    for i in range(len(x)):
        found = torch.autograd.grad(logits[i].sum(), weights, retain_graph=True)
        rows.append(torch.cat([g.flatten() for g in found]))
    values = np.linalg.eigvalsh(np.array([[float(a @ b) for b in rows] for a in rows]))
    singular = values[0] <= values[-1] * len(values) * np.finfo(float).eps
    return NAN if singular else float(values[-1] / values[0])


def nngp(net, x, y, last: nn.Module) -> float:
    """Leaves out one image after the other."""
    seen = []

    def keep(name, module, before, output):
        if module is last:
            seen.append(before)

    watch(net, x, keep, WEIGHTS)
    positions = tuple(range(2, seen[-1].dim()) if isinstance(last, nn.Conv2d) else range(1, seen[-1].dim() - 1))
    rows = seen[-1].mean(positions) if positions else seen[-1]
    feature, classes = rows.detach().numpy(), y.unique()
    if len(classes) == len(x):
        return NAN
    target = (y[:, None] == classes).double().numpy()
    strength = ((feature - feature.mean(0)) ** 2).sum() / len(x)
    errors = []
    for ridge in 10.0 ** (np.arange(-10, 3) / 2):
        missed = 0.0
        for i in range(len(x)):
            others = np.arange(len(x)) != i
            fit = Ridge(ridge * strength, solver="svd").fit(feature[others], target[others])
            missed += ((target[i] - fit.predict(feature[[i]])[0]) ** 2).sum()
        errors.append(missed)
    return 1 - min(errors) / ((target - target.mean(0)) ** 2).sum()


# -- the synaptic pass ---------------------------------------------------------------------------------------


def synaptic(model, x, identity: tuple) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """|weights| of the layers in order, and the gradient of the sum of the logits of an image of ones."""
    net = prepared(model, False)
    for p in net.parameters():
        p.data.abs_()
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, identity):
                setattr(parent, name, nn.Identity())
    ones = torch.ones_like(x[:1])
    weights = [m.weight for m in layers_in_order(net, ones).values()]
    slopes = torch.autograd.grad(net(ones).sum(), weights)
    return [w.detach() for w in weights], list(slopes)


def synflow(model, x, layer_norm: str) -> list[torch.Tensor]:
    identity = BATCH_NORMS + ((nn.LayerNorm,) if layer_norm == "identity" else ())
    return [(w * g).abs() for w, g in zip(*synaptic(model, x, identity), strict=True)]


def dss(model, x, layers, kept) -> tuple[float, list[float]]:
    """Nuclear norms at an attention's linear layers, synflow at the other ones."""
    weights, slopes = synaptic(model, x, BATCH_NORMS)
    per_layer, attention = [], False
    for (name, module), w, g, entries in zip(layers.items(), weights, slopes, kept, strict=True):
        if not isinstance(module, nn.Linear):
            per_layer.append(NAN)
        elif "attn" in name:
            attention = True
            nuclear = [np.linalg.svd(t.numpy(), compute_uv=False).sum() for t in (w, g)]
            per_layer.append(float(nuclear[0] * nuclear[1]))
        else:
            per_layer.append(entries.sum().item())
    return float(np.nansum(per_layer)) if attention else NAN, per_layer


# -- feature maps of noise -----------------------------------------------------------------------------------


def meco(net, image, modules: str) -> float:
    """Sum over feature maps of the smallest eigenvalue of the correlation of their rows."""
    found = []

    def keep(name, module, before, output):
        if torch.is_tensor(output) and output.dim() > 2:
            rows = np.nan_to_num(correlation(output[0].detach().flatten(1).numpy()))
            found.append(float(np.linalg.eigvalsh(rows)[0]))

    try:
        with torch.no_grad():
            watch(net, image, keep, nn.Module if modules == "all" else WEIGHTS + NORMS + ACTIVATIONS)
    except ValueError:  # batch norm in training mode over one value a channel
        return NAN
    return sum(found) if found else NAN


def az(net, noise, signs_of, features) -> tuple[dict[str, float], dict]:
    names, tensors = primary_blocks(net, noise.requires_grad_(), features)
    if not names:
        return {f"az_{kind}": NAN for kind in ("expressivity", "progressivity", "trainability")}, {}
    entropies = [entropy(channels_last(t.detach())) for t in tensors]
    steps = [b - a for a, b in pairwise(entropies)]
    terms = []
    for i in range(1, len(tensors)):
        signs = signs_of(names[i], tensors[i]).double()
        (g_in,) = torch.autograd.grad(tensors[i], tensors[i - 1], signs, retain_graph=True)
        if g_in.shape == signs.shape and (g_in == signs).all():
            terms.append(NAN)  # the block changes nothing
            continue
        if g_in.dim() == 3 and g_in.shape[1] != signs.shape[1]:
            terms.append(NAN)  # the block pools tokens
            continue
        if g_in.dim() == 4 and g_in.shape[-1] > signs.shape[-1]:
            r = g_in.shape[-1] // signs.shape[-1]
            g_in = torch.stack([g_in[:, :, a::r, b::r] for a in range(r) for b in range(r)], 2).flatten(1, 2)
        a, b = channels_last(g_in), channels_last(signs)
        jacobian = sum(torch.outer(u, v) for u, v in zip(a, b, strict=True)) / len(b)
        s = float(np.linalg.svd(jacobian.numpy(), compute_uv=False)[0])
        terms.append(2 - s - 1 / (s + 1e-6))
    counted = [t for t in terms if not math.isnan(t)]
    values = {
        "az_expressivity": sum(entropies),
        "az_progressivity": min(steps) if steps else NAN,
        "az_trainability": sum(counted) / len(counted) if counted else NAN,
    }
    each = {"az_expressivity": entropies, "az_progressivity": [NAN, *steps], "az_trainability": [NAN, *terms]}
    return values, {(name, "per_feature"): found for name, found in each.items()}


def primary_blocks(net, x, features) -> tuple[list[str], list[torch.Tensor]]:
    outputs, inputs = {name: name for name in features}, {}
    if not features:
        outputs = {name: f"{name}.after_mlp" for name in transformer_blocks(net)}
        inputs = {f"{name}.norm2": f"{name}.after_attn" for name in transformer_blocks(net)}
    kept = {}

    def keep(name, module, before, output):
        if name in inputs:
            kept[inputs[name]] = before
        if name in outputs:
            kept[outputs[name]] = output

    watch(net, x, keep)
    return list(kept), list(kept.values())


def transformer_blocks(net) -> list[str]:
    """Names of the blocks of a vision transformer, or of the stages of a PiT, in the order of execution."""
    return [name for name, _ in net.named_modules() if re.fullmatch(r"(transformers\.\d+\.)?blocks\.\d+", name)]


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Rows: images and positions; columns: channels."""
    return x.flatten(2).transpose(1, 2).flatten(0, 1) if x.dim() == 4 else x.reshape(-1, x.shape[-1])


def entropy(rows: torch.Tensor) -> float:
    rows = rows.numpy()
    values = np.linalg.eigvalsh(np.cov(rows.T, bias=True).reshape(rows.shape[1], rows.shape[1])).clip(0)
    return float(-sum(p * math.log(p + 1e-8) for p in values / values.sum()))


# -- Zen -----------------------------------------------------------------------------------------------------


def zen(net, draws, options: Options) -> float:
    """Mean over draws of (state dict, images, noise) of the log of how far the last feature map moves."""
    values = []
    for tensors, x, epsilon in draws:
        net.load_state_dict(tensors, strict=False)  # some buffers are not kept in a state dict
        before, after = (last_map(net, images, options.features) for images in (x, x + 0.01 * epsilon))
        if before is None:
            return NAN
        value = log(sum((a - b).abs().sum().item() for a, b in zip(before, after, strict=True)) / len(x))
        for m in net.modules():  # after both runs: their running variances are a blend of the initial ones and theirs
            if isinstance(m, BATCH_NORMS) and m.running_var is not None:
                value += 0.5 * log(m.running_var.mean().item())
        values.append(value)
    return sum(values) / len(values)


def last_map(net, x, features) -> torch.Tensor | None:
    """The feature map before the pooling."""
    names = [name for name, m in net.named_modules() if isinstance(m, (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d))]
    if features:
        wanted, side = features[-1], "output"
    elif transformer_blocks(net):
        wanted, side = transformer_blocks(net)[-1], "output"
    elif names:
        wanted, side = names[-1], "input"
    else:
        return None
    maps = []

    def keep(name, module, before, output):
        if name == wanted:
            maps.append(before if side == "input" else output)

    with torch.no_grad():
        watch(net, x, keep)
    return maps[-1]
