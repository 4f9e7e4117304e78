"""Layers of Batch Renormalization below single precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from avalanche_ext.models.batch_renorm import BatchRenorm2d


def images(rng):
    shift = torch.arange(3.0)[:, None, None]
    return 2 * torch.randn(4, 3, 4, 4, generator=rng) + shift


def test_autocast_keeps_statistics_in_single_precision(rng):
    layer = BatchRenorm2d(3, momentum=0.5)
    twin = copy.deepcopy(layer)
    x = images(rng).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), twin(x.float()), rtol=1e-2, atol=1e-2)
    assert_close(layer.running_std, twin.running_std)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cast_to_half_precision_leaves_limits_and_statistics(dtype, rng):
    layer = BatchRenorm2d(3, momentum=0.003)
    twin = copy.deepcopy(layer)
    assert nn.Sequential(layer).to(dtype)[0].weight.dtype == dtype
    for _ in range(200):
        x = images(rng).to(dtype)
        y, wanted = layer(x), twin(x.float())
    assert y.dtype == dtype
    assert_close(y.float(), wanted, rtol=1e-2, atol=1e-2)
    y.sum().backward()
    assert_close(dict(layer.named_buffers()), dict(twin.named_buffers()))
    assert_close(layer.r_max, torch.tensor(1 + 200 * 4 * 4.1e-5))
    assert layer.eval()(x).dtype == dtype
