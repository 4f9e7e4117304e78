"""The plain networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from avalanche_ext.models import (
    MLP,
    CifarNet,
    LeNet,
    TaskClassifier,
    TaskIncrementalClassifier,
    TinyVGG,
    vgg11,
)


def n_parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_cifarnet_with_60_classes_has_the_parameters_of_the_paper():
    model = TaskIncrementalClassifier(CifarNet(), TaskClassifier(512, 60))
    assert n_parameters(model) == 1_276_508


def test_tinyvgg_with_200_classes_has_the_widths_of_the_paper():
    widths = [m.out_channels for m in TinyVGG().modules() if isinstance(m, nn.Conv2d)]
    assert widths == [64, 64, 128, 128, 256, 256]
    convolutions = sum(
        9 * a * b + b for a, b in zip([3, 64, 64, 128, 128, 256], widths)
    )
    linears = sum(a * b + b for a, b in [(4096, 512), (512, 512), (512, 200)])
    model = nn.Sequential(TinyVGG(), nn.Linear(512, 200))
    assert n_parameters(model) == convolutions + linears


def test_lenet_and_vgg11_have_the_parameters_everybody_counts():
    assert n_parameters(nn.Sequential(LeNet(), nn.Linear(84, 10))) == 44_426
    with torch.device("meta"):
        model = nn.Sequential(vgg11(), nn.Linear(4096, 1000))
        assert n_parameters(vgg11(1)) == n_parameters(vgg11()) - 2 * 9 * 64
    assert n_parameters(model) == 132_863_336
    assert model(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 1000)
    assert model[0].feature_size == 4096


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (CifarNet(), (3, 32, 32)),
        (CifarNet(1), (1, 32, 32)),
        (LeNet(), (1, 28, 28)),
        (LeNet(3, 32), (3, 32, 32)),
        (LeNet(1, 16), (1, 16, 16)),
        (TinyVGG(), (3, 64, 64)),
        (MLP(36, 7), (1, 6, 6)),
    ],
)
def test_features_have_the_size_they_are_said_to(network, shape):
    features = network.eval()(torch.randn(2, *shape))
    assert features.shape == (2, network.feature_size)
    assert features.min() >= 0 and features.max() > 0


def test_cifarnet_drops_units_in_training_only(rng):
    network, x = CifarNet(), torch.randn(1, 3, 32, 32, generator=rng)
    rates = [m.p for m in network.modules() if isinstance(m, nn.Dropout)]
    assert rates == [0.25, 0.25, 0.5]
    assert not torch.equal(network(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CifarNet(0), "in_channels is 0"),
        (lambda: TinyVGG(1.5), "in_channels is 1.5"),
        (lambda: LeNet(1, 15), "image_size is 15"),
        (lambda: vgg11(0), "in_channels is 0"),
        (lambda: MLP(0), "in_features is 0"),
        (lambda: MLP(4, 0), "feature_size is 0"),
    ],
)
def test_sizes_that_are_not_positive_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
