"""Does an image hold all that is needed? Every module is imported and one network scored; no network, no GPU."""

import importlib
import pkgutil
from importlib.metadata import version

import snakemake.cli  # noqa: F401
import timm
import torch
from sklearn.datasets import load_digits

import libranas

modules = [m.name for m in pkgutil.walk_packages(libranas.__path__, "libranas.") if not m.name.endswith("__main__")]
for name in modules:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "triton":  # only a PyTorch for GPUs brings it
            raise
digits = load_digits()
images = torch.from_numpy(digits.images[:16]).float()[:, None] / 16
torch.manual_seed(0)
model = timm.create_model("vit_tiny_patch16_224", img_size=8, patch_size=4, in_chans=1, depth=2, num_classes=10)
card = libranas.score(model, images, torch.from_numpy(digits.target[:16]), ["lswag", "zico", "nwot"])
assert all(card[name] == card[name] for name in ("lswag", "zico", "nwot")), card
print(f"{len(modules)} modules, L-SWAG {card['lswag']:.6g}, torch {version('torch')}, CUDA {torch.version.cuda}")
