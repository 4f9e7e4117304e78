"""Small problems of `hypergradient`, and their slow restatement."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from avalanche_ext import CosineClassifier, FeatureClassifier

RATE = 0.3


WAYS = [
    {"mode": "reverse"},
    {"mode": "reverse", "chunk": None},
    {"mode": "reverse", "chunk": 4},
    {"mode": "unrolled"},
    {"mode": "checkpoint"},
]


def smooth_network(norm, cosine=True):
    """Of inputs (2, 4, 4), twice differentiable."""
    layers = {
        "none": [nn.Conv2d(2, 3, 3, padding=1)],
        "1d": [nn.Flatten(), nn.Linear(32, 3), nn.BatchNorm1d(3)],
        "2d": [nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)],
    }[norm]
    extractor = nn.Sequential(*layers, nn.Softplus(), nn.Flatten(), nn.LazyLinear(5))
    head = CosineClassifier(5, n_classes=3) if cosine else nn.Linear(5, 3)
    model = FeatureClassifier(extractor, head)
    for _ in range(3):  # running statistics
        model(torch.randn(8, 2, 4, 4))
    return model.double()


def problem(m=4, b=7):
    e, x = torch.randn(m, 2, 4, 4).double(), torch.randn(b, 2, 4, 4).double()
    y, of_x = torch.arange(m) % 3, torch.arange(b) % 3
    return e, y, [(x[:4], of_x[:4]), (x[4:], of_x[4:])]


def restated(model, e, y, data, rates, rows=None, batchnorm="eval"):
    """Outer loss of a copy that torch's SGD has trained."""
    model = copy.deepcopy(model).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.train(batchnorm == "batch")
    for step, rate in enumerate(rates):
        seen = slice(None) if rows is None else rows[step]
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        optimizer.zero_grad()
        cross_entropy(model(e[seen]), y[seen]).backward()
        optimizer.step()
    with torch.no_grad():
        losses = [cross_entropy(model(x), t, reduction="sum") for x, t in data]
    return (sum(losses) / sum(len(t) for _, t in data)).item()


def finite_differences(loss, e, step=1e-4):
    """Of the first pixels of each exemplar, of fourth order."""
    found = torch.zeros(len(e), 3).double()
    for i, j in torch.cartesian_prod(*map(torch.arange, found.shape)).tolist():
        for factor, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            moved = e.clone()
            moved[i].view(-1)[7 * j] += factor * step
            found[i, j] += weight * loss(moved) / (12 * step)
    return found
