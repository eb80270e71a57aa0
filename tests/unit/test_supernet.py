"""Weight sharing: slices against a brute force written from the rule, and where gradients go."""

import numpy as np
import pytest
import torch

from libranas.core.errors import LibranasError
from libranas.labels.supernet import Supernet, leading
from libranas.networks import build
from libranas.spaces import AutoFormerSpace

SETTINGS = {
    "embed_dim": (8, 12),
    "depth": (2, 3),
    "num_heads": (1, 2, 3),
    "mlp_ratio": (1.5, 2.0),
    "head_dim": 4,
    "image_size": 8,
    "patch_size": 4,
    "channels": 1,
    "classes": 5,
    "max_relative_position": 1,
}
SPACE = AutoFormerSpace(**SETTINGS)
PLAIN = AutoFormerSpace(**SETTINGS, relative_position=False)
SMALL = SPACE.arch(8, (1, 2), (2.0, 1.5))
both = pytest.mark.parametrize("space", [SPACE, PLAIN], ids=["relative", "plain"])


def images(n=3):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def sliced_by_hand(supernet: Supernet, arch) -> dict[str, torch.Tensor]:
    """The rule in loops over rows: of qkv the rows of each kept head; of all else the leading block."""
    whole, width, d = supernet.model.state_dict(), arch["embed_dim"], 4
    most = supernet.largest["num_heads"][0]
    own = {}
    for name, value in whole.items():
        parts = name.split(".")
        block = int(parts[1]) if parts[0] == "blocks" else None
        if block is not None and block >= arch["depth"]:
            continue
        if "qkv" in name:
            rows = [
                part * most * d + head * d + i
                for part in range(3)
                for head in range(arch["num_heads"][block])
                for i in range(d)
            ]
            value = torch.stack([value[r] for r in rows])
            own[name] = value[:, :width] if value.dim() == 2 else value
        elif "rel_pos" in name or name == "head.bias":
            own[name] = value
        elif name.endswith("attn.proj.weight"):
            own[name] = value[:width, : arch["num_heads"][block] * d]
        elif "mlp.fc1" in name:
            hidden = int(width * arch["mlp_ratio"][block])
            own[name] = value[:hidden, :width] if value.dim() == 2 else value[:hidden]
        elif name.endswith("mlp.fc2.weight"):
            own[name] = value[:width, : int(width * arch["mlp_ratio"][block])]
        elif name in ("cls_token", "pos_embed", "head.weight"):
            own[name] = value[..., :width]
        else:  # patch embedding, norms, output biases
            own[name] = value[:width]
    return own


@both
def test_the_largest_is_the_supernet_itself(space):
    net = Supernet(space, seed=1)
    for name, view in net.slices(net.largest).items():
        own = net.model.get_parameter(name)
        assert view.shape == own.shape and torch.equal(view, own)
    net.model.eval()
    torch.testing.assert_close(net.forward(net.largest, images()), net.model(images()), rtol=0, atol=0)


@both
def test_slices_equal_slices_by_hand(space):
    net = Supernet(space, seed=1)
    rng = np.random.default_rng(0)
    for _ in range(10):
        arch = space.sample(rng)
        slices, expected = net.slices(arch), sliced_by_hand(net, arch)
        assert slices.keys() == expected.keys() == build(space, arch, seed=0).state_dict().keys()
        for name, view in slices.items():
            assert torch.equal(view, expected[name]), name


def test_heads_stay_heads():
    """The kept heads of a sub-network compute with the queries, keys and values of the supernet's own heads."""
    net = Supernet(SPACE, seed=1)
    net.model.eval()
    arch = SPACE.arch(12, (2, 3), (2.0, 2.0))
    x = torch.randn(1, SPACE.tokens(arch), 12, generator=torch.Generator().manual_seed(1))

    def heads(attn):
        return attn.qkv(x).unflatten(-1, (3, attn.num_heads, 4))

    whole, part = heads(net.model.blocks[0].attn), heads(net.extract(arch).blocks[0].attn)
    assert torch.equal(part, whole[:, :, :, :2])


@both
def test_an_extracted_network_gives_the_same_logits(space):
    net = Supernet(space, seed=2)
    net.model.eval()
    rng = np.random.default_rng(1)
    for _ in range(5):
        arch = space.sample(rng)
        alone = net.extract(arch)
        assert not alone.training and sum(p.numel() for p in alone.parameters()) == space.params(arch)
        torch.testing.assert_close(net.forward(arch, images()), alone(images()))


def test_an_extracted_network_shares_nothing():
    net = Supernet(SPACE, seed=1)
    net.model.eval()
    before = net.forward(SMALL, images())
    alone = net.extract(SMALL)
    with torch.no_grad():
        for p in alone.parameters():
            p.zero_()
    assert torch.equal(net.forward(SMALL, images()), before)


@both
def test_gradients_land_in_the_slices_and_nowhere_else(space):
    net = Supernet(space, seed=1)
    net.model.train()
    arch = space.arch(8, (1, 2), (2.0, 1.5))
    targets = torch.tensor([0, 1, 2])
    torch.nn.functional.cross_entropy(net.forward(arch, images()), targets).backward()
    alone = net.extract(arch).train()
    torch.nn.functional.cross_entropy(alone(images()), targets).backward()
    own = dict(alone.named_parameters())
    for name, p in net.model.named_parameters():
        if name not in own:
            assert p.grad is None, name  # blocks that the sub-network does not have
            continue
        inside = leading(p.grad, own[name].shape, parts=3 if ".qkv." in name else 1)
        torch.testing.assert_close(inside, own[name].grad, rtol=1e-4, atol=1e-6)
        outside = p.grad.abs().sum() - inside.abs().sum()
        assert outside.abs() <= 1e-5 * max(1.0, p.grad.abs().sum().item()), name


def test_forward_follows_the_supernets_mode_and_keeps_no_state():
    net = Supernet(SPACE, seed=1)
    net.model.eval()
    before = {k: v.clone() for k, v in net.model.state_dict().items()}
    first = net.forward(SMALL, images())
    net.forward(net.largest, images())
    net.model.train()
    net.forward(SMALL, images())
    net.model.eval()
    assert torch.equal(net.forward(SMALL, images()), first)
    assert all(torch.equal(before[k], v) for k, v in net.model.state_dict().items())


def test_equal_seeds_equal_supernets():
    a, b, c = (Supernet(SPACE, seed=s).model.head.weight for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_heads_that_share_a_width_are_refused():
    space = AutoFormerSpace((8, 16), (1,), (2, 4), (1.0,), head_dim="auto", image_size=8, patch_size=4)
    with pytest.raises(LibranasError, match=r"heads of one width, but space.head_dim is auto"):
        Supernet(space, 0)
