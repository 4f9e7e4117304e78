"""Frozen rows stay, bit by bit, whatever an optimizer does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from avalanche.models import IncrementalClassifier
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.testing import assert_close

from avalanche_ext.models.frozen_rows import FrozenRows, reinitialize_rows

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.5),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "weight_decay": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1, amsgrad=True),
}
ROWS = {
    "0": torch.tensor([True, False, True, False]),
    "1": torch.tensor(True),
    "2": torch.tensor(True),
    "5": torch.zeros(3, dtype=torch.bool),
    "6.classifier": torch.tensor([True, True, False]),
}


class Scaled(nn.Module):
    """With a parameter that has no rows."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.scale * x


def small():
    head = IncrementalClassifier(3, 3, masking=False)
    body = (nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), Scaled(), nn.ReLU())
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(16, 3), head)


def step(net, optimizer, frozen, rng, clip=None, hold=True):
    x = torch.randn(12, 2, 4, 4, generator=rng)
    if hold:
        frozen.hold_still()
    optimizer.zero_grad()
    y = torch.arange(12) % 3
    cross_entropy(net(x), y).backward()
    frozen.zero_gradients(net)
    if clip:
        clip_grad_norm_(net.parameters(), clip)
    optimizer.step()
    frozen.write_back(net)


def assert_held(before, net):
    for name, value in net.named_parameters():
        old = before[name]
        n = len(old) if old.ndim else 1
        rows = ROWS[name.rpartition(".")[0]].expand(n)
        old = old.reshape(n, -1)
        new = value.detach().reshape(-1, old.shape[1])[:n]
        assert torch.equal(new[rows], old[rows]), name
        assert (new[~rows] != old[~rows]).any(1).all(), name


@pytest.mark.parametrize("clip", [None, 1e-2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_rows_are_equal_after_every_step_and_all_others_move(name, clip, rng):
    net = small()
    optimizer = OPTIMIZERS[name](net.parameters())
    step(net, optimizer, FrozenRows(net, {}), rng)  # momenta of all rows
    before = {k: v.clone() for k, v in net.state_dict().items()}
    frozen = FrozenRows(net, ROWS, [net[1]])
    for _ in range(3):
        step(net, optimizer, frozen, rng, clip)
        assert_held(before, net)
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(getattr(net[1], key), before[f"1.{key}"])


def test_rows_of_a_head_that_grows_stay_where_they_are(rng):
    net = small()
    frozen = FrozenRows(net, ROWS, [net[1]])
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net[6].adaptation(SimpleNamespace(classes_in_this_experience=[3, 4]))
    optimizer = OPTIMIZERS["adamw"](net.parameters())
    for _ in range(2):
        step(net, optimizer, frozen, rng)
    assert len(net[6].classifier.weight) == 5
    assert_held(before, net)


def test_clipping_does_not_see_frozen_rows(rng):
    net = nn.Sequential(nn.Linear(3, 4))
    frozen = FrozenRows(net, {"0": torch.tensor([True, False, False, True])})
    net[0].weight.grad = torch.randn(4, 3, generator=rng)
    wanted = net[0].weight.grad.clone()
    frozen.zero_gradients(net)  # of the bias there is none
    wanted[[0, 3]] = 0
    assert net[0].bias.grad is None and torch.equal(net[0].weight.grad, wanted)


def test_resting_modules_alone_leave_training_mode_and_return():
    net = small().train()
    frozen = FrozenRows(net, {}, [net[1]])
    before = net[1].running_mean.clone()
    frozen.hold_still()
    net(torch.randn(4, 2, 4, 4))
    assert torch.equal(net[1].running_mean, before)
    assert [m for m in net.modules() if not m.training] == [net[1]]
    frozen.release(net)
    assert all(m.training for m in net.modules())


def test_a_model_that_is_a_layer_has_rows_too():
    net = nn.Linear(2, 3)
    frozen = FrozenRows(net, {"": torch.tensor([False, True, False])})
    before = [p.detach().clone() for p in net.parameters()]
    for parameter in net.parameters():
        parameter.data += 1
    frozen.write_back(net)
    for old, new in zip(before, net.parameters()):
        assert torch.equal(new[1], old[1]) and torch.equal(new[::2], old[::2] + 1)


LAYERS = {
    "linear": lambda **o: nn.Linear(5, 6, **o),
    "no_bias": lambda **o: nn.Linear(5, 6, bias=False, **o),
    "conv": lambda **o: nn.Conv2d(2, 6, 3, **o),
    "grouped": lambda **o: nn.Conv2d(4, 6, (3, 1), groups=2, **o),
    "double": lambda **o: nn.Linear(5, 6, dtype=torch.double, **o),
}


@pytest.mark.parametrize("name", LAYERS)
def test_new_rows_are_those_of_a_new_layer(name, rng):
    layer = LAYERS[name]()
    rows = torch.tensor([True, False, True, True, False, False])
    old = {k: v.detach().clone() for k, v in layer.named_parameters()}
    torch.manual_seed(5)
    new = dict(LAYERS[name]().named_parameters())
    state = torch.random.get_rng_state()
    reinitialize_rows(layer, rows, torch.Generator().manual_seed(5))
    assert torch.equal(torch.random.get_rng_state(), state)  # left alone
    for key, value in layer.named_parameters():
        assert torch.equal(value[rows], new[key][rows])
        assert torch.equal(value[~rows], old[key][~rows])
    torch.manual_seed(5)
    reinitialize_rows(layer, ~rows)
    for key, value in layer.named_parameters():
        assert_close(value, new[key], rtol=0, atol=0)


def test_rows_that_something_else_moved_are_put_back_with_a_warning():
    net = small()
    frozen = FrozenRows(net, {"0": torch.ones((), dtype=torch.bool)})
    before = net[0].weight.detach().clone()
    frozen.release(net)  # nothing moved, nothing is said
    net[0].weight.data.mul_(0.9)
    with pytest.warns(UserWarning, match="0.weight and 0 more; they are put back"):
        frozen.release(net)
    assert torch.equal(net[0].weight, before)
