"""Score one small network of every family of timm and torchvision, and compare with per-sample autograd.

    python benchmarks/network_zoo.py                  # about two hours; writes docs/network-zoo.md
    python benchmarks/network_zoo.py timm:beit ...    # some families; replaces their lines there

Every network has initial weights, is cut in depth and width where it takes arguments for that, and sees four images of
N(0, 1) as small as it takes. The slow values are made here from plain gradients of single images, in float64.
"""

import argparse
import gc
import inspect
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import timm
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy

import libranas
from libranas.core.provenance import facts
from libranas.zero_cost.anatomy import ACTIVATIONS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "network-zoo.md"
PROXIES = ("snip", "zico", "gradsign", "ntk_cond", "nwot")
CLASSES, IMAGES = 4, 4
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
#: Elements of the weights whose gradients are held at once, for every image twice.
ELEMENTS = 2**25
SIDES = (64, 96, 128, 224, 240, 256, 384)
#: With 64 pixels their last attention has one token, and gradients that are nothing but rounding.
LARGER = {"timm:csatv2": 128, "timm:mobilevit": 128}
#: Words in the names of small networks, the smallest first.
SMALL = (
    *("test_", "pico", "femto", "atto", "nano", "xxs", "xxt", "zepto", "tiny", "micro", "_s0", "mini", "_xs", "small"),
    *("050", "002", "_s1", "_m0", "_b0", "_t_", "_t0", "_s_", "18", "_s", "_88m", "_167m", "base", "_b_"),
)
#: Arguments that make a network small; the first that it takes are used.
CUTS = (
    {"depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 1, 2, 2)},
    {"depth": 2, "embed_dim": 48, "num_heads": 3},
    {"depths": (1, 1, 1, 1)},
    {"layers": (1, 1, 1, 1)},
    {"depth": 2},
    {"depth": (1, 1, 1)},
    {},
)
#: Smallest member of torchvision's families of classifiers.
TORCHVISION = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"),
    *("maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18"),
    *("shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "vgg11", "vit"),
)


class Result(NamedTuple):
    """One network: its side of images, the slow values and what libranas says, or why it has no score card."""

    network: str
    side: int
    params: int
    slow: dict[str, float]
    found: dict[str, tuple[float, str]]
    missing: list[str]
    error: str = ""

    def cell(self, proxy: str) -> str:
        """Return ``equal``, the reason of a NaN, or what is wrong."""
        value, reason = self.found[proxy]
        tolerance = 1e-6 + 1e-14 * abs(value) * (proxy == "ntk_cond")  # its smallest eigenvalue is rounded, too
        if math.isfinite(value) and not math.isclose(value, self.slow[proxy], rel_tol=tolerance):
            return f"WRONG: {value:.8g}, not {self.slow[proxy]:.8g}"
        if not math.isfinite(value) and math.isfinite(self.slow[proxy]):
            return f"NaN: {reason}" if reason else "WRONG: no reason"
        return "equal" if math.isfinite(value) else f"NaN, as it has to be: {reason}"

    @property
    def good(self) -> bool:
        """Return whether all values are those of autograd."""
        return (
            not self.error and not self.missing and not any(self.cell(p).startswith(("WRONG", "NaN:")) for p in PROXIES)
        )


def families() -> list[str]:
    return [f"timm:{module}" for module in timm.list_modules()] + [f"torchvision:{name}" for name in TORCHVISION]


def small_network(family: str) -> Iterator[tuple[str, Callable[[int], nn.Module]]]:
    """Yield names and functions (side of images -> network), the most cut one first."""
    library, name = family.split(":")
    if family == "torchvision:vit":
        small = {"num_layers": 2, "num_heads": 3, "hidden_dim": 48, "mlp_dim": 96, "num_classes": CLASSES}
        yield "VisionTransformer, 2 layers", lambda side: torchvision.models.VisionTransformer(side, 16, **small)
        return
    if library == "torchvision":
        make = getattr(torchvision.models, name)
        for cut in ({"aux_logits": False}, {}):
            if not cut or name in ("googlenet", "inception_v3"):
                yield (
                    name,
                    lambda side, cut=cut: make(
                        num_classes=CLASSES, **cut, **({"image_size": side} if name.startswith("vit") else {})
                    ),
                )
        return
    names = timm.list_models(module=name)
    place = {n: next((i for i, word in enumerate(SMALL) if word in n), len(SMALL)) for n in names}
    name = min(names, key=lambda n: (place[n], len(n)))
    fixed = timm.get_pretrained_cfg(name).fixed_input_size
    for cut in CUTS:
        yield (
            ", ".join([name, *(f"{key}={value}" for key, value in cut.items())]),
            lambda side, cut=cut: timm.create_model(
                name, num_classes=CLASSES, **cut, **({"img_size": side} if fixed else {})
            ),
        )


def built(family: str) -> tuple[str, nn.Module, torch.Tensor]:
    """Return the first network that takes its images, its name, and the images."""
    failure = None
    for name, make in small_network(family):
        for side in (side for side in SIDES if side >= LARGER.get(family, 0)):
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(IMAGES, 3, side, side, generator=generator)
            try:
                torch.manual_seed(0)
                model = make(side).eval()
                with torch.no_grad():
                    logits = model(x[:2])
                if logits.shape == (2, CLASSES):
                    return name, model, x
                failure = failure or ValueError(f"logits {tuple(logits.shape)}")
            except Exception as error:  # the family says in any way that it does not take this
                failure = error
                if isinstance(error, TypeError):
                    break  # the argument, not the side
    raise ValueError(f"no small network: {type(failure).__name__}: {failure}")


def slow_values(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, bare: list[str]
) -> tuple[dict[str, float], list[str]]:
    """Return the values by single images, and the names of the layers that they are of.

    `bare` are parameters of no layer module that count as well.
    """
    model, x = model.double().eval().requires_grad_(), x.double()
    parameters = dict(model.named_parameters(remove_duplicate=False))
    layers = {key for key in _weights(model, lambda m: isinstance(m, LAYERS)) if key in parameters} | set(bare)
    scales = {key for key in _weights(model, lambda m: m.weight.dim() == 1) if key in parameters}
    weights = {id(parameters[key]): parameters[key] for key in (*layers, *scales)}
    of_layers = {id(parameters[key]) for key in layers}
    values, used = dict.fromkeys(("snip", "zico", "gradsign"), 0.0), set()
    kernel_BB = torch.zeros(len(x), len(x), dtype=torch.float64)
    for group in _groups(list(weights.values())):
        of_logits, of_losses = gradients(model, x, y, group)
        for weight, by_logits, by_losses in zip(group, of_logits, of_losses, strict=True):
            rows_BW = torch.stack([torch.zeros_like(weight) if g is None else g for g in by_logits]).flatten(1)
            kernel_BB += rows_BW @ rows_BW.T
            if id(weight) in of_layers and any(g is not None for g in by_losses):
                used.add(id(weight))
                g_BW = torch.stack([torch.zeros_like(weight) if g is None else g for g in by_losses]).flatten(1)
                add_layer(values, weight.detach().flatten(), g_BW)
    eigenvalues = torch.linalg.eigvalsh(kernel_BB)
    singular = eigenvalues[0] <= eigenvalues[-1] * len(x) * torch.finfo(torch.float64).eps
    values["ntk_cond"] = math.nan if singular else (eigenvalues[-1] / eigenvalues[0]).item()
    values["nwot"] = nwot(model, x)
    return values, sorted({key.removesuffix(".weight") for key in layers if id(parameters[key]) in used})


def _weights(model: nn.Module, kind: Callable[[nn.Module], bool]) -> list[str]:
    return [f"{n}.weight" for n, m in model.named_modules() if getattr(m, "weight", None) is not None and kind(m)]


def _groups(weights: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Yield the weights in groups whose gradients of all images fit in memory."""
    while weights:
        count = max(1, sum(total < ELEMENTS for total in itertools.accumulate(w.numel() for w in weights)))
        yield weights[:count]
        weights = weights[count:]


def gradients(model: nn.Module, x: torch.Tensor, y: torch.Tensor, weights: list[torch.Tensor]) -> tuple[list, list]:
    """Return each weight's gradients of the sum of the logits, and of the loss, image by image."""
    found = [], []
    for image, target in zip(x, y, strict=True):
        # Twice the image: for one of it, torch 2.14 has wrong gradients through batch norms on a CPU.
        logits = model(image.expand(2, *image.shape))[:1]
        for kept, value in zip(found, (logits.sum(), cross_entropy(logits, target[None])), strict=True):
            kept.append(torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True))
    return tuple(list(zip(*kept, strict=True)) for kept in found)


def add_layer(values: dict[str, float], weight_W: torch.Tensor, g_BW: torch.Tensor) -> None:
    """Add one layer to the values."""
    mean_W, std_W = g_BW.abs().mean(0), g_BW.std(0, correction=0)
    std_W[std_W <= 1e-14 * mean_W] = 0  # rounding
    varies = std_W > 1e-12 * std_W.median()
    ratio = (mean_W[varies] / std_W[varies]).sum().item()
    values["zico"] += math.log(ratio) if ratio else 0.0
    values["snip"] += (weight_W * g_BW.mean(0)).abs().sum().item()
    values["gradsign"] += g_BW.sign().sum(0).abs().sum().item()


def nwot(model: nn.Module, x: torch.Tensor) -> float:
    """Return NASWOT from the signs of single images; NaN without an activation module."""
    codes: list[list] = []
    handles = [
        m.register_forward_pre_hook(lambda _, args: codes[-1].append((args[0] > 0).flatten()))
        for m in model.modules()
        if isinstance(m, ACTIVATIONS)
    ]
    with torch.no_grad():
        for image in x:
            codes.append([])
            model(image[None])
    for handle in handles:
        handle.remove()
    if not codes[0]:
        return math.nan
    bits_BV = torch.stack([torch.cat(code) for code in codes]).double()
    kernel_BB = bits_BV @ bits_BV.T + (1 - bits_BV) @ (1 - bits_BV).T
    singular = torch.linalg.matrix_rank(kernel_BB, hermitian=True) < len(x)
    return -math.inf if singular else torch.linalg.slogdet(kernel_BB).logabsdet.item()


def compared(family: str) -> Result:
    """Score the network of a family in both ways."""
    try:
        return _compared(family)
    except Exception as error:  # it is what the table tells
        what = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
        return Result(family.split(":")[1], 0, 0, {}, {}, [], what)


def _compared(family: str) -> Result:
    network, model, x = built(family)
    y = torch.arange(IMAGES) % CLASSES
    card = libranas.score(model, x, y, PROXIES, mode="eval", precision="float64")
    found = {name: (score.value, score.reason) for name, score in card.scores.items()}
    own = dict(model.named_parameters(remove_duplicate=False))
    layers = {n for n, m in model.named_modules() if isinstance(m, LAYERS)}
    bare = [n if n in own else f"{n}.weight" for n in card.axes["layer"].names if n not in layers]
    slow, used = slow_values(model, x, y, bare)
    missing = sorted(set(used) - set(card.axes["layer"].names))
    return Result(network, x.shape[-1], sum(p.numel() for p in own.values()), slow, found, missing)


def row(family: str, r: Result) -> str:
    """Return the line of a family in the table."""
    cells = [r.error, *[""] * (len(PROXIES) - 1)] if r.error else [r.cell(name) for name in PROXIES]
    if r.missing:
        cells[0] += f"; layers left out: {', '.join(r.missing[:3])}"
    cells = [("all values" if r.good else "not all"), *(cell.replace("|", "/") for cell in cells)]
    return f"| {family} | {r.network} | {r.params:,} | {r.side} | {' | '.join(cells)} |"


def page(rows: dict[str, str]) -> str:
    """Return the page: conditions, the share of families with all values, and a line for each."""
    made, every = facts(), families()
    packages = ", ".join(f"{name} {made['packages'][name]}" for name in ("torch", "timm", "torchvision"))
    rows = [rows[family] for family in every if family in rows]
    good = sum("| all values |" in row for row in rows)
    head = """
        # Networks of other libraries

        One small network of every family of timm and torchvision, scored by `libranas.score` and, slowly, by plain
        gradients of single images in float64 (`benchmarks/network_zoo.py`): `mode="eval"`, initial weights, four
        images. *Equal* means to six digits, over the same layers. NaN *as it has to be*: the slow value is not finite
        either.
        """
    return "\n".join(
        [
            inspect.cleandoc(head),
            "",
            f"All values are those of per-sample autograd for **{good} of {len(rows)}** families (timm and torchvision "
            f"have {len(every)}).",
            "",
            f"Conditions: {packages}; {made['cpu']}; {made['time'][:10]}; `python benchmarks/network_zoo.py`.",
            "",
            f"| family | network | parameters | side | result | {' | '.join(PROXIES)} |",
            "|---" * (5 + len(PROXIES)) + "|",
            *rows,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="such as timm:beit; default: all")
    chosen = parser.parse_args().families
    rows = {}
    if chosen and PAGE.exists():
        rows = {line.split(" | ")[0][2:]: line for line in PAGE.read_text().splitlines() if line.startswith("| t")}
    for family in chosen or families():
        start = time.time()
        rows[family] = row(family, compared(family))
        print(f"{time.time() - start:.0f} s", rows[family], flush=True)
        PAGE.write_text(page(rows))
        gc.collect()


if __name__ == "__main__":
    main()
