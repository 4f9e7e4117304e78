from __future__ import annotations

import pytest
import torch
from relevance_nets import assert_as_before, fingerprint
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm
from zennit.canonizers import NamedMergeBatchNorm
from zennit.composites import EpsilonPlus, LayerMapComposite, layer_map_base
from zennit.rules import Pass

from avalanche_ext import CosineClassifier, FeatureClassifier, MobileNetV1
from avalanche_ext.attribution import LRP

X = torch.linspace(-1, 1, 2 * 2 * 6 * 6).view(2, 2, 6, 6)


def net(*between):
    """A convolution, something, and a head."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), *between, nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).append(nn.Linear(4, 3))


class Block(nn.Module):
    """Two branches joined by a function."""

    def __init__(self, join):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.join = join

    def forward(self, x):
        return self.join(self.conv(x).relu(), x)


class OtherWay(nn.Module):
    """The output of a layer goes into its norm and around it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.weight, 3.0)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + x


class Disordered(nn.Module):
    """Norms declared after all layers."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm2(self.two(self.norm1(self.one(x)).relu()))


class Scale(nn.Module):
    """A parameter that is in no layer."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.factor * x


class AlwaysDropped(nn.Module):
    """A dropout that knows no evaluation mode."""

    def forward(self, x):
        return nn.functional.dropout(x)


class WithToken(nn.Module):
    """Attention in a network that has a parameter for its sake."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.ones(4))
        self.attention = nn.MultiheadAttention(4, 2)


def pruned():
    layer = nn.Conv2d(4, 4, 1)
    return prune.l1_unstructured(layer, "weight", amount=0.5)


def twice():
    layer = nn.Conv2d(4, 4, 1)
    return nn.Sequential(layer, nn.ReLU(), layer)


def never():
    block = nn.Identity()
    block.spare = nn.Linear(2, 2)
    return block


def stacked(a, b):
    return torch.stack([a, b]).sum(0)


REFUSED = {
    "group-norm": (nn.GroupNorm(2, 4), "'1', a GroupNorm, is a norm other than"),
    "instance-norm": (nn.InstanceNorm2d(4), "'1', a InstanceNorm2d, is a norm other"),
    "transposed": (nn.ConvTranspose2d(4, 4, 1), "'1', a ConvTranspose2d, has param"),
    "no-affine": (nn.BatchNorm2d(4, affine=False), "BatchNorm2d, has no affine"),
    "no-statistics": (nn.BatchNorm2d(4, track_running_stats=False), "no running stat"),
    "pruned": (pruned(), "a Conv2d, has a weight that is computed from others"),
    "parametrised": (spectral_norm(nn.Conv2d(4, 4, 1)), "computed from others"),
    "norm-behind-relu": (
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)),
        "'1.1', a BatchNorm2d, does not take the very output.*NamedMergeBatchNorm",
    ),
    "norms-out-of-order": (Disordered(), "'1.norm1', a BatchNorm2d, does not take"),
    "twice": (twice(), "'1.0', a Conv2d, runs 2 times in a forward pass; wanted once"),
    "never": (never(), "'1.spare', a Linear, runs 0 times"),
    "around-the-norm": (OtherWay(), "gives other logits.*goes elsewhere"),
    "stacked-sum": (
        Block(stacked),
        "of 1 .*, 2 arrives at .*; the last layer with too much is '0'.*composite=",
    ),
    "product": (
        Block(lambda a, b: a * b),
        "does not conserve relevance.*; the (last )?layers? with too",
    ),
    "gate": (
        Block(lambda a, b: a.sigmoid() * 1e-3),
        "of 1 .* arrives .*; the layers with too little are all up to '1.conv'",
    ),
    "random": (
        AlwaysDropped(),
        "in evaluation mode, Sequential gives other logits when it runs again",
    ),
    "infinite": (
        nn.Threshold(torch.inf, torch.inf),
        "the logits of Sequential are not fin",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_whose_relevance_would_be_wrong_are_refused_and_left_alone(name):
    block, message = REFUSED[name]
    model = net(block)
    before = fingerprint(model)
    with pytest.raises(ValueError, match=message):
        LRP().require_supported(model, X)
    assert_as_before(model, before)


def test_other_heads_attention_and_recurrence_are_refused():
    cosine = FeatureClassifier(nn.Flatten(), CosineClassifier(72, n_classes=3))
    with pytest.raises(ValueError, match="CosineClassifier, has parameters of its own"):
        LRP().require_supported(cosine, X)
    for layer in (nn.LSTM(4, 4), nn.Conv1d(4, 4, 1)):
        with pytest.raises(ValueError, match="has parameters of its own"):
            LRP().require_supported(net(layer), X)
    anything = LayerMapComposite([(nn.Module, Pass())])
    for lrp in (LRP(), LRP(composite=anything)):
        message = r"'1.attention', a MultiheadAttention, is attention"
        with pytest.raises(ValueError, match=message):
            lrp.require_supported(net(WithToken()), X)
    with pytest.raises(ValueError, match="is compiled"):
        model = net()
        model._compiled_call_impl = model.forward
        LRP().require_supported(model, X)


@pytest.mark.parametrize("join", [torch.add, lambda a, b: torch.cat([a, b], 1)[:, :4]])
def test_branches_may_be_joined_by_sums_and_by_concatenation(join):
    LRP().require_supported(net(Block(join)), X)


@pytest.mark.parametrize("side", [1, 8])
def test_maps_that_are_mostly_padding_are_fine(side):
    # from 1 x 1 maps on, a window of 3 x 3 has one value and eight zeros
    network = MobileNetV1(width=0.25, in_channels=1)
    model = FeatureClassifier(network, nn.Linear(network.feature_size, 4))
    LRP().require_supported(
        model, torch.linspace(-1, 1, side**2).view(1, 1, side, side)
    )


def test_groups_prelu_dropout_and_blank_inputs_are_fine():
    model = net(nn.Conv2d(4, 4, 3, groups=4), nn.PReLU(), nn.Dropout(0.5))
    LRP().require_supported(model, torch.zeros_like(X))
    nn.init.zeros_(model[-1].weight)
    LRP().require_supported(model, X)


def test_canonizers_and_composites_of_ones_own_open_the_way():
    pairs = [(("1.one",), "1.norm1"), (("1.two",), "1.norm2")]
    LRP(canonizers=[NamedMergeBatchNorm(pairs)]).require_supported(net(Disordered()), X)
    other = [(("1.one",), "1.norm2"), (("1.two",), "1.norm1")]
    model = net(Disordered())
    nn.init.constant_(model[1].norm1.weight, 3.0)
    nn.init.constant_(model[1].norm1.bias, 3.0)
    with pytest.raises(ValueError, match="gives other logits"):
        LRP(canonizers=[NamedMergeBatchNorm(other)]).require_supported(model, X)
    rules = LayerMapComposite([*layer_map_base(), (Scale, Pass())])
    LRP(composite=rules).require_supported(net(Scale()), X)
    with pytest.raises(ValueError, match="a Scale, has parameters of its own"):
        LRP(composite=EpsilonPlus()).require_supported(net(Scale()), X)
