"""Blurring before strides."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision.models.resnet import BasicBlock

from avalanche_ext.models import Blur, blur_before_strides, resnet18_blurpool
from avalanche_ext.models.resnet import BasicBlockNoReLU


def slow_blur(x):
    """Pixel by pixel: each neighbour's share falls with its distance in both ways."""
    out = torch.zeros_like(x)
    height, width = x.shape[-2:]
    for i in range(height):
        for j in range(width):
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    if 0 <= i + di < height and 0 <= j + dj < width:
                        share = (2 - abs(di)) * (2 - abs(dj)) / 16
                        out[..., i, j] += share * x[..., i + di, j + dj]
    return out


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 1), (3, 2, 2, 7)])
def test_blur_is_the_binomial_mean_of_the_neighbours(shape, rng):
    x = torch.randn(shape, generator=rng, dtype=torch.float64)
    blur = Blur(shape[1]).double()
    assert_close(blur(x), slow_blur(x))
    assert list(blur.parameters()) == [] and not blur.state_dict()


def test_blur_keeps_what_is_constant_but_at_the_border():
    out = Blur(2)(torch.ones(1, 2, 5, 5))
    assert_close(out[..., 1:-1, 1:-1], torch.ones(1, 2, 3, 3))


def test_blur_keeps_channels_apart(rng):
    x = torch.randn(1, 3, 4, 4, generator=rng)
    y = x.clone()
    y[:, 1] = 0
    same = [torch.equal(Blur(3)(x)[:, c], Blur(3)(y)[:, c]) for c in range(3)]
    assert same == [True, False, True]


def test_only_convolutions_of_maps_that_skip_pixels_are_blurred(rng):
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2),  # of images
        nn.Conv2d(16, 4, 3),  # skips nothing
        nn.Sequential(nn.Conv2d(4, 16, 1), nn.Conv2d(16, 5, 1, stride=(1, 2))),
        nn.MaxPool2d(2),
    )
    x = torch.randn(2, 3, 15, 15, generator=rng)
    wanted = network[0:2](x)
    wanted = network[2][1](slow_blur(network[2][0](wanted)))
    blur_before_strides(network)
    blurs = [name for name, m in network.named_modules() if isinstance(m, Blur)]
    assert blurs == ["2.1.0"]
    assert_close(network[:3](x), wanted)


def test_resnet18_blurpool_blurs_six_times_and_is_a_resnet18_else(rng):
    network = resnet18_blurpool().eval()
    blurs = [name for name, m in network.named_modules() if isinstance(m, Blur)]
    assert blurs == [
        f"layer{stage}.0.{place}.0"
        for stage in (2, 3, 4)
        for place in ("conv1", "downsample.0")
    ]
    kinds = {type(m) for m in network.modules()}
    assert BasicBlock in kinds and BasicBlockNoReLU not in kinds
    with torch.no_grad():
        features = network(torch.randn(1, 3, 64, 64, generator=rng))
    assert features.shape == (1, network.feature_size) and features.min() >= 0
    # torchvision's ResNet-18 without its classifier of 1000 classes
    assert sum(p.numel() for p in network.parameters()) == 11_689_512 - 513_000


def test_resnet18_blurpool_draws_weights_as_the_layers_of_torch_do():
    # uniform within 1 / sqrt(fan in), where torchvision's ResNet draws normal numbers
    for module in resnet18_blurpool(1).modules():
        if isinstance(module, nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            assert module.weight.abs().max() <= bound
            deviation = module.weight.std().item()
            assert deviation == pytest.approx(bound / 3**0.5, rel=0.1)


def test_sizes_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match="channels is 0"):
        Blur(0)
