"""Residual networks without the last activation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision.models.resnet import BasicBlock

from avalanche_ext.models.resnet import (
    CifarResNet,
    drop_last_relu,
    resnet18_cifar,
    resnet18_imagenet,
    resnet32_cifar,
)


@pytest.mark.golden("bdr_cwd", "norelu_block_*.npz")
def test_block_agrees_with_the_authors(golden):
    state = {
        key[3:].replace("__", "."): torch.as_tensor(value)
        for key, value in golden.items()
        if key.startswith("sd_")
    }
    n_out, n_in = state["conv1.weight"].shape[:2]
    shortcut = nn.Sequential(
        nn.Conv2d(n_in, n_out, 1, 2, bias=False), nn.BatchNorm2d(n_out)
    )
    block = BasicBlock(n_in, n_out, 2, shortcut).eval()
    block.load_state_dict(state)
    with_relu = block(golden["x"])
    assert_close(with_relu, golden["out_eval_with_relu"], rtol=0, atol=1e-6)
    without = drop_last_relu(block)(golden["x"])
    assert_close(without, golden["out_eval"], rtol=0, atol=1e-6)
    assert_close(without.relu(), with_relu)


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_resnet32_has_the_published_number_of_parameters():
    # 469457 with 50 cosine prototypes of 64 features and one scale
    assert count(resnet32_cifar()) == 469_457 - 50 * 64 - 1


def test_resnet18_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert count(resnet18_imagenet()) == 11_689_512 - 513 * 1000
        assert count(resnet18_cifar()) == 11_689_512 - 513 * 1000 - 3 * 64 * (49 - 9)


def test_features_take_both_signs(rng):
    model = CifarResNet(n_blocks=1, in_channels=1).eval()
    features = model(torch.randn(4, 1, 8, 8, generator=rng))
    assert features.shape == (4, 64)
    assert features.min() < 0 < features.max()


def test_resnets_for_small_images_keep_the_resolution_of_the_first_stage():
    net = resnet18_cifar(in_channels=1)
    net.layer1.register_forward_hook(lambda m, i, out: shapes.append(out.shape))
    shapes = []
    assert net(torch.randn(2, 1, 16, 16)).shape == (2, 512)
    assert shapes == [(2, 64, 16, 16)]


def test_sizes_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match="n_blocks 0"):
        CifarResNet(n_blocks=0)
