"""The numbers of docs/method.md: every proxy of a small vision transformer, by its formula and by libranas.

    python examples/method.py

`worked` makes the numbers from plain PyTorch and NumPy, as slowly and as openly as it can. Proxies that draw random
numbers (AZ-NAS, MeCo, Zen) are left to :func:`libranas.score`. Everything is float64.

Suffixes: S images, W weights of a layer, U units of an activation layer.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from torch import nn
from torch.nn.functional import cross_entropy

import libranas
from libranas.core.arch import Arch
from libranas.predictors.libra import Choice, choose

#: Target and width of reg_swap, in thousands of parameters.
MU, SIGMA = 10.0, 20.0
LIBRA_PROXIES = ["gsnr", "lswag", "meco", "nwot", "params", "synflow", "zico"]
TABLE = Path(__file__).resolve().parents[1] / "benchmarks/vit/vit-clothing"


#: A transformer of two blocks, 16 wide.
CHOICES = {"embed_dim": [16], "depth": [2], "num_heads": [2], "mlp_ratio": [2.0], "head_dim": 8, "patch_size": 4}
SPACE = libranas.make_space({"family": "autoformer", **CHOICES}, image_size=8, channels=1, classes=4)
ARCH = SPACE.arch(16, (2, 2), (2.0, 2.0))


def example() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Return the network, and three images of each of four digits with their classes."""
    model = libranas.build(SPACE, ARCH, seed=0).double().eval()
    digits = load_digits()
    chosen = np.concatenate([np.flatnonzero(digits.target == digit)[:3] for digit in range(4)])
    images = torch.from_numpy(digits.images[chosen][:, None])
    return model, (images - images.mean()) / images.std(), torch.from_numpy(digits.target[chosen])


def scores() -> dict[str, float]:
    """Return the values of all proxies, as libranas makes them."""
    card = libranas.score(*example(), precision="float64", reg_swap=(MU, SIGMA))
    return {name: card[name] for name in card.scores}


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers: weights that multiply. Here they are registered in the order in which they run."""
    return {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}


def outputs_of(model: nn.Module, modules: list[nn.Module], x: torch.Tensor) -> tuple[list, list, torch.Tensor]:
    """Return what goes into `modules`, what comes out of them, and the logits."""
    before, after = [], []

    def keep(_, inputs, output):
        before.append(inputs[0])
        after.append(output)

    hooks = [m.register_forward_hook(keep) for m in modules]
    logits = model(x)
    for hook in hooks:
        hook.remove()
    return before, after, logits


def log_det(kernel: np.ndarray) -> float:
    """Return log \\|det\\|, -inf for a singular matrix."""
    full = np.linalg.matrix_rank(kernel) == len(kernel)
    return float(np.linalg.slogdet(kernel).logabsdet) if full else -math.inf


def agreement(bit_SU: np.ndarray) -> np.ndarray:
    """Count for each two images the units at which they have the same sign."""
    return (bit_SU[:, None] == bit_SU).sum(-1).astype(float)


def worked() -> dict[str, float]:
    """Return the values of the proxies that draw no random numbers, by their formulas."""
    model, x, y = example()
    found = {"params": sum(p.numel() for p in model.parameters()), "flops": SPACE.macs(ARCH)}
    found |= of_gradients(model, x, y) | of_signs(model, x) | of_pixels(model, x, y) | of_ones()
    found["nngp"] = of_features(model, x, y)
    for name in ("lswag", "lswag_sample"):
        found[name] = found[f"{name}_lambda"] * found[f"{name}_psi"]
    found["reg_swap"] = found["swap"] * math.exp(-((found["params"] / 1000 - MU) ** 2) / SIGMA)
    return found


def of_gradients(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """Return what is made of gradients of the loss at the weights."""
    weights = [m.weight for m in layers_of(model).values()]
    batch = torch.autograd.grad(cross_entropy(model(x), y), weights, create_graph=True)
    curved = torch.autograd.grad(sum((g.detach() * g).sum() for g in batch), weights)  # Hessian times gradient
    images = [torch.autograd.grad(cross_entropy(model(x[i : i + 1]), y[i : i + 1]), weights) for i in range(len(x))]
    each = [torch.stack(layer).flatten(1).numpy() for layer in zip(*images, strict=True)]  # (S, W) for each layer
    w = [weight.detach().flatten().numpy() for weight in weights]
    g = [gradient.detach().flatten().numpy() for gradient in batch]
    h = [gradient.flatten().numpy() for gradient in curved]
    _, a, logits = outputs_of(model, list(layers_of(model).values()), x)
    slopes = torch.autograd.grad(cross_entropy(logits, y), a)
    fisher = 0.0
    for weight, out, slope in zip(weights, a, slopes, strict=True):
        product = (out * slope).detach()  # (S, tokens, channels), or (S, channels, height, width) of a convolution
        summed = product.flatten(2).sum(2) if weight.dim() == 4 else product.reshape(len(x), -1, out.shape[-1]).sum(1)
        fisher += weight[0].numel() * 0.5 * float((summed**2).mean(0).sum())
    zico = sum(math.log((np.abs(G).mean(0) / G.std(0)).sum()) for G in each)
    return {
        "l2_norm": sum(np.linalg.norm(W) for W in w),
        "plain": sum((W * G).sum() for W, G in zip(w, g, strict=True)),
        "snip": sum(np.abs(W * G).sum() for W, G in zip(w, g, strict=True)),
        "grad_norm": sum(np.linalg.norm(G) for G in g),
        "grasp": -sum((W * H).sum() for W, H in zip(w, h, strict=True)),
        "fisher": fisher,
        "lswag_lambda": sum(math.log((1 / np.abs(G).std(0)).sum()) for G in each),
        "zico": zico,
        "lswag_sample_lambda": zico,  # the same formula: this network has no batch normalisation
        "gsnr": sum((G.mean(0) ** 2 / (G.var(0) + 1e-8)).sum() for G in each),
        "gradsign": sum(np.abs(np.sign(G).sum(0)).sum() for G in each),
        "tcet": tcet(a, [np.abs(W * G) for W, G in zip(w, g, strict=True)]),
    }


def tcet(outputs: list[torch.Tensor], saliency: list[np.ndarray]) -> float:
    """Add up log(signal to noise of the saliencies) times log det of the layer's kernel of signs."""
    total = 0.0
    for out, s in zip(outputs, saliency, strict=True):
        nu = log_det(agreement((out.flatten(1) > 0).numpy()))
        total += math.log(s.sum() / s.std(ddof=1)) * (nu if math.isfinite(nu) else 0.0)
    return total


def of_signs(model: nn.Module, x: torch.Tensor) -> dict[str, float]:
    """Return what is made of signs before the activations: a row is the code of an image, a column a unit's pattern."""
    before, _, _ = outputs_of(model, [m for m in model.modules() if isinstance(m, nn.GELU)], x)
    bits = [(z.flatten(1) > 0).numpy() for z in before]  # (S, U) for each activation layer
    every_SU = np.concatenate(bits, 1)
    few = [bit_SU[: math.ceil(math.log2(bit_SU.shape[1])) + 2] for bit_SU in bits]
    patterns = np.unique(every_SU, axis=1).shape[1]
    return {
        "lswag_psi": patterns,
        "swap": patterns,
        "lswag_sample_psi": sum(np.unique(bit_SU, axis=1).shape[1] for bit_SU in few),
        "nwot": log_det(sum(map(agreement, bits))),
        "linear_regions": np.unique(every_SU, axis=0).shape[0],
    }


def of_pixels(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """Return what is made of gradients of the sum of the logits, at the pixels and at the weights."""
    x = x.clone().requires_grad_()
    J = torch.autograd.grad(model(x).sum(), x)[0].flatten(1).numpy()
    e, k = np.linalg.eigvalsh(np.corrcoef(J)), 1e-5
    within = [np.corrcoef(J[(y == c).numpy()]) for c in y.unique()]
    weights = [m.weight for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.LayerNorm))]
    images = [torch.autograd.grad(model(image[None]).sum(), weights) for image in x.detach()]
    G = torch.stack([torch.cat([g.flatten() for g in gradients]) for gradients in images]).numpy()
    tangent = np.linalg.eigvalsh(G @ G.T)
    return {
        "jacov": -(np.log(e + k) + 1 / (e + k)).sum(),
        "epe_nas": sum(abs(np.log(np.abs(r) + k).sum()) for r in within),
        "ntk_cond": tangent[-1] / tangent[0],
    }


def of_features(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return how well ridge regressions on the input of the head predict the class of the image that each left out."""
    before, _, _ = outputs_of(model, [model.head], x)
    F, Y = before[0].detach().numpy(), np.eye(4)[y]
    mean = ((F - F.mean(0)) ** 2).sum() / len(F)
    errors = []
    for ridge in 10.0 ** (np.arange(-10, 3) / 2):
        missed = 0.0
        for i in range(len(F)):
            others = np.arange(len(F)) != i
            fit = Ridge(ridge * mean, solver="svd").fit(F[others], Y[others])
            missed += ((Y[i] - fit.predict(F[[i]])[0]) ** 2).sum()
        errors.append(missed)
    return 1 - min(errors) / ((Y - Y.mean(0)) ** 2).sum()


def of_ones() -> dict[str, float]:
    """Return what is made of the network with absolute weights on an image of ones."""
    model, x, _ = example()
    for p in model.parameters():
        p.data.abs_()
    layers = layers_of(model)
    slopes = torch.autograd.grad(model(torch.ones_like(x[:1])).sum(), [m.weight for m in layers.values()])
    flow = [(m.weight * slope).abs().sum().item() for m, slope in zip(layers.values(), slopes, strict=True)]
    dss = 0.0
    for (name, m), slope, part in zip(layers.items(), slopes, flow, strict=True):
        if "attn" in name:
            dss += (torch.linalg.matrix_norm(slope, "nuc") * torch.linalg.matrix_norm(m.weight, "nuc")).item()
        elif isinstance(m, nn.Linear):
            dss += part
    return {"synflow": math.log(sum(flow)), "dss": dss}


def libra() -> Choice:
    """Choose three of seven proxies by LIBRA, from 100 vision transformers whose accuracies are known."""
    known = pd.read_csv(TABLE / "inherited.csv")[:100]
    known.index = [Arch.from_json(text).id for text in known["architecture"]]
    score = pd.read_csv(TABLE / "scores.csv", index_col="id").loc[known.index, LIBRA_PROXIES]
    return choose(score, known["accuracy"], known["params"])


if __name__ == "__main__":
    formulas = worked()
    for proxy, value in scores().items():
        print(f"{proxy:20} {value:12.5g} {formulas[proxy]:12.5g}" if proxy in formulas else f"{proxy:20} {value:12.5g}")
    print(*libra().reasons, sep="\n")
