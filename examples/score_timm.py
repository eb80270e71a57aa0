# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---

# %% [markdown]
# # Score five networks of timm on ten crops of two photographs, and pick one
#
# Nothing is trained and nothing is downloaded: the networks have random weights, and scikit-learn brings two
# photographs. Run this file as a script, or open it as a notebook with Jupytext:
#
#     python examples/score_timm.py

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import timm
import torch
from sklearn.datasets import load_sample_images

import libranas
from libranas.predictors.libra import log_rank

SIZE = 32
OUTPUT = Path("results/score_timm.png")

# %% [markdown]
# ## Ten images in two classes
#
# Five crops of a temple and five of a flower. Take your own images instead, of as many classes as your task has:
# a batch of 16 to 64 images, as many of each class, normalised.

# %%
photographs = load_sample_images().images  # two of 427 x 640 pixels
corners = [(0, 0), (0, 320), (160, 160), (170, 0), (170, 320)]
crops = np.stack([photo[y : y + 256, x : x + 256] for photo in photographs for y, x in corners])
images = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
images = torch.nn.functional.interpolate(images, size=SIZE, mode="area")
images = (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True)
targets = torch.arange(2).repeat_interleave(len(corners))

# %% [markdown]
# ## Five networks
#
# All have less than six million parameters.

# %%
networks = {
    "vit_tiny_patch16_224": {"img_size": SIZE},
    "ghostnet_050": {},
    "resnet10t": {},
    "regnetx_002": {},
    "edgenext_xx_small": {},
}

# %% [markdown]
# ## Score them
#
# Batch normalisation makes the images of a batch depend on each other, so statistics of gradients are taken over five
# micro-batches of two images, for all networks alike. A value that is undefined for a network is NaN, with a reason on
# the score card.

# %%
proxies, units = ["params", "flops", "lswag", "zico", "nwot"], {"unit": "microbatch", "pieces": 5}
rows = {}
for name, settings in networks.items():
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=2, **settings)
    card = libranas.score(model, images, targets, proxies, **units)
    rows[name] = {proxy: card[proxy] for proxy in card.scores}
table = pd.DataFrame.from_dict(rows, orient="index")
print(table.to_string(float_format="{:.4g}".format))

# %% [markdown]
# ## Plot and pick
#
# Higher is better for each of the three proxies, but their scales differ, so ranks are combined. One warning: between
# families of networks, proxies mostly follow size. Compare networks of about equal size, or of one search space, and
# train the few best.

# %%
ranking = log_rank(table[["lswag", "zico", "nwot"]]).sort_values(ascending=False)
best = ranking.index[0]
figure, axes = plt.subplots(figsize=(7, 4))
axes.scatter(table["flops"] / 1e6, table["lswag"])
for name, row in table.iterrows():
    weight = "bold" if name == best else "normal"
    axes.annotate(name, (row["flops"] / 1e6, row["lswag"]), xytext=(4, 4), textcoords="offset points", weight=weight)
axes.set(xlabel="million multiply-accumulates of an image", ylabel="L-SWAG", xscale="log", yscale="log")
axes.margins(0.3, 0.15)
OUTPUT.parent.mkdir(exist_ok=True)
figure.savefig(OUTPUT, dpi=120, bbox_inches="tight")
print(f"\nPicked: {best}; the figure is {OUTPUT}")
