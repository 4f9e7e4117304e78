"""Models to be cut, and where they can be."""

from __future__ import annotations

import torchvision
from torch import nn

PIXELS = (3, 48, 48)

#: Where published networks can be cut, and where they cannot.
CUTS = [
    ("mobilenet_v2", "features.10", "features.10.conv.0"),
    ("resnet18", "layer3.0", "layer3.0.conv1"),
    ("mobilenet_v3_small", "features.8", "features.8.block.0"),
]


def network(name):
    return getattr(torchvision.models, name)(weights=None, num_classes=7)


def small():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 4, 1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(4, 5),
    )
