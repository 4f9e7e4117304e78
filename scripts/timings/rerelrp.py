"""ReReLRP: relevance passes against training and against one sample at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from timings.measure import Entry, median_ratio

N = 256
N_SINGLE = 16  # one by one takes long


def _network() -> Any:
    from avalanche_ext import resnet18_cifar

    return nn.Sequential(resnet18_cifar(), nn.Linear(512, 10))


def relevance(repeats: int) -> float:
    """Relevances of a batch, over a training step's forward and backward pass."""
    from avalanche_ext.attribution import LRP

    model, trained = _network(), _network()
    x, y = torch.randn(N, 3, 32, 32), torch.arange(N) % 10
    lrp = LRP()

    def train() -> None:
        trained.zero_grad()
        cross_entropy(trained(x), y).backward()

    return median_ratio(lambda: lrp(model, x, y), train, repeats)


def batched(repeats: int) -> float:
    """Relevances one sample a pass, over one batched pass."""
    from avalanche_ext.attribution import LRP

    model, lrp = _network(), LRP()
    x, y = torch.randn(N_SINGLE, 3, 32, 32), torch.arange(N_SINGLE) % 10

    def single() -> None:
        for i in range(N_SINGLE):
            lrp(model, x[i : i + 1], y[i : i + 1])

    return median_ratio(single, lambda: lrp(model, x, y), repeats)


ENTRIES = (
    Entry(
        "lrp",
        "relevance of all units (ResNet-18, 256 images of 32 x 32), over forward and "
        "backward of training",
        2.5,
        False,
        relevance,
    ),
    Entry(
        "lrp-batch",
        "relevance of all units (ResNet-18, 16 images) in one pass, against one pass "
        "an image",
        2,
        True,
        batched,
    ),
)
