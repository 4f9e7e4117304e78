"""The network and images of the AR1* golden files, filled by formula (see README there)."""

from __future__ import annotations

import torch
from torch import nn

from avalanche_ext import FeatureClassifier
from avalanche_ext.models.mobilenet import MobileNetV1

MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])


def numbers(n, k, seed):
    """The first n numbers of the series k."""
    j = torch.arange(1, n + 1, dtype=torch.double)
    return (43758.5453 * (12.9898 * j + 78.233 * (k + 1) + 37.719 * seed).sin()) % 1


@torch.no_grad()
def formula_network(seed):
    """MobileNetV1 with batch normalisation and a head of 50 classes."""
    net = MobileNetV1()
    for i, name in enumerate(list(net.layer_names.values())[:-1]):
        block = net.get_submodule(name)
        weight, bn = block.conv.weight, block.bn
        filled = 2 * numbers(weight.numel(), 5 * i, seed) - 1
        weight.copy_(filled.view_as(weight) * (6 / weight[0].numel()) ** 0.5)
        drawn = [numbers(len(bn.weight), 5 * i + part, seed) for part in range(1, 5)]
        bn.weight.copy_(0.75 + 0.5 * drawn[0])
        bn.bias.copy_(0.4 * (drawn[1] - 0.5))
        bn.running_mean.copy_(0.4 * (drawn[2] - 0.5))
        bn.running_var.copy_(0.5 + drawn[3])
    head = nn.Linear(1024, 50, bias=False)
    head.weight.copy_((2 * numbers(51200, 1000, seed) - 1).view(50, 1024) / 32)
    return FeatureClassifier(net, head)


def preprocessed(images):
    """Images ``(n, 32, 32, 3)`` in uint8, enlarged and standardised."""
    x = ((images / 255 - MEAN) / STD).permute(0, 3, 1, 2)
    return x.repeat_interleave(4, 2).repeat_interleave(4, 3)


def our_name(theirs, n_below):
    """Our name of an entry of the authors' state dict, split after n_below blocks."""
    if theirs == "output.weight":
        return "train_classifier.weight"
    part, number, rest = theirs.split(".", 2)
    layers = list(MobileNetV1(width=0.01).layer_names.values())
    layer = layers[int(number) + (n_below if part == "end_features" else 0)]
    for old, new in {
        "gamma": "weight",
        "beta": "bias",
        "running_avg_": "running_",
    }.items():
        rest = rest.replace(old, new)
    return f"feature_extractor.{layer}.{rest}"
