from __future__ import annotations

import pytest
import torch
from avalanche.models import SlimResNet18
from avalanche.models.icarl_resnet import IcarlNet
from avalanche.models.resnet32 import resnet32
from relevance_nets import (
    assert_as_before,
    cifar_net,
    fingerprint,
    raw_sums,
    small_conv,
    with_head,
    with_statistics,
    without_biases,
)
from torch import nn
from torch.testing import assert_close
from torchvision.models import resnet18
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.vgg import make_layers
from zennit.canonizers import NamedMergeBatchNorm
from zennit.composites import EpsilonPlus
from zennit.torchvision import ResNetCanonizer

from avalanche_ext import (
    SmallCNN,
    mobilenet_v1_cifar,
    resnet18_cifar,
    to_batch_renorm,
)
from avalanche_ext.attribution import LRP
from avalanche_ext.attribution.canonizers import average_everywhere
from avalanche_ext.attribution.restored import restored
from avalanche_ext.models.cut_points import same_outputs


def vgg(batch_norm):
    # its own classifier has 120 million weights
    features = make_layers([8, "M", 16, 16, "M"], batch_norm=batch_norm)
    return nn.Sequential(
        features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4)
    )


ARCHITECTURES = {
    "torchvision-resnet18": lambda: resnet18(num_classes=4),
    "torchvision-bottleneck": lambda: ResNet(Bottleneck, [1, 1, 1, 1], 4),
    "torchvision-vgg11": lambda: vgg(batch_norm=False),
    "torchvision-vgg11-bn": lambda: vgg(batch_norm=True),
    "cifar-resnet": cifar_net,
    "resnet18-cifar": lambda: with_head(resnet18_cifar()),
    "batch-renorm": lambda: to_batch_renorm(cifar_net()),
    "avalanche-slim": lambda: SlimResNet18(4, nf=4),
    "avalanche-icarl": lambda: IcarlNet(4, n=2),
    "avalanche-resnet32": lambda: resnet32(num_classes=4),
    "mobilenet": lambda: with_head(mobilenet_v1_cifar(width=0.25)),
    "plain": lambda: with_head(SmallCNN(3)),
}

#: They take no other size.
SIDES = {"avalanche-slim": (32, 32), "avalanche-resnet32": (32, 32)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_relevance_of_positive_contributions_is_conserved_and_the_model_put_back(
    name, rng
):
    model = with_statistics(ARCHITECTURES[name](), rng)
    x = torch.randn(3, 3, *SIDES.get(name, (16, 16)), generator=rng)
    before = fingerprint(model)
    LRP().require_supported(model, x)
    found = LRP()(model, x)
    assert_as_before(model, before)
    with torch.no_grad():
        assert same_outputs(found.logits, model.eval()(x))
    with restored(model):
        average_everywhere(model)
        sums = raw_sums(model, x.abs())
    first = next(iter(sums.values()))
    assert_close(first, torch.ones(3), rtol=1e-3, atol=0)
    assert max(float(s.max()) for s in sums.values()) < 1.001


def test_each_layer_of_a_chain_without_biases_has_what_it_started_with(rng):
    model = small_conv(rng)
    model[7].weight.data.abs_()
    with restored(model):
        without_biases(model)
        sums = raw_sums(model, torch.randn(6, 2, 8, 8, generator=rng))
    for value in sums.values():
        assert_close(value, torch.ones(6), rtol=1e-3, atol=0)


def test_residual_sums_without_a_rule_double_the_relevance(rng):
    # the rules "zplus" have none for sums, as published
    model = with_statistics(resnet18(num_classes=4), rng)
    model.avgpool = nn.AdaptiveMaxPool2d(1)  # which conserves without one
    x = torch.rand(2, 3, 32, 32, generator=rng)
    with restored(model):
        average_everywhere(model)
        doubled = raw_sums(model, x, "zplus")["conv1"]
    assert_close(doubled, torch.full((2,), 2.0**8), rtol=1e-3, atol=0)


def test_a_wide_residual_network_without_biases_conserves_relevance(rng):
    model = with_statistics(resnet18(num_classes=4), rng)
    with restored(model):
        without_biases(model)
        sums = raw_sums(model, torch.randn(2, 3, 32, 32, generator=rng))
    assert_close(sums["conv1"], torch.ones(2), rtol=1e-2, atol=0)


def test_absolute_relevances_of_a_layer_sum_to_one_or_zero(rng):
    model = small_conv(rng)
    model[3].weight.data[2:] = 0
    model[3].bias.data[2:] = -1
    found = LRP()(model, torch.randn(6, 2, 8, 8, generator=rng))
    for name, value in found.units.items():
        total = value.abs().sum(1)
        assert ((total - 1).abs() < 1e-5).logical_or(total == 0).all(), name
    assert not found.units["3"][:, 2:].any()  # never on: exactly 0
    assert (found.units["9"].abs().sum(1) > 0.99).all()
    model[9].weight.data.zero_()
    below = LRP(start="one")(model, torch.randn(2, 2, 8, 8, generator=rng)).units
    assert not any(below[name].any() for name in ("0", "3", "7"))


def test_the_start_counts_by_its_sign_only(rng):
    model = small_conv(rng).double()
    x = torch.randn(8, 2, 8, 8, generator=rng, dtype=torch.double)
    lowest = model(x).argmin(1)
    found = LRP()(model, x, lowest)
    sign = found.logits.gather(1, lowest[:, None]).sign()
    assert {-1.0} <= set(sign.flatten().tolist())
    steady = LRP(start="one")(model, x, lowest)
    for name, value in found.units.items():
        assert_close(value, sign * steady.units[name], rtol=0, atol=1e-7)


def test_without_targets_the_largest_logit_is_the_start(rng):
    model, x = small_conv(rng), torch.randn(5, 2, 8, 8, generator=rng)
    found = LRP()(model, x)
    again = LRP()(model, x, found.logits.argmax(1))
    assert all(torch.equal(found.units[n], again.units[n]) for n in found.units)
    head = found.units["9"]
    assert torch.equal(head.abs().argmax(1), found.logits.argmax(1))
    assert ((head != 0).sum(1) == 1).all()


@pytest.mark.parametrize("name", ["epsilon_plus", "epsilon_alpha2_beta1", "epsilon"])
def test_the_first_rule_batches_order_and_flags_change_no_unit(name, rng):
    model = with_statistics(cifar_net(), rng).eval()
    x = torch.randn(6, 3, 16, 16, generator=rng)
    wanted = LRP(composite=name)(model, x).units
    flat = LRP(composite=f"{name}_flat")(model, x, heatmap=True)
    assert flat.heatmap.shape == x.shape
    order = torch.randperm(6, generator=rng)
    parts = [LRP(composite=name)(model, x[o]).units for o in order.split(4)]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.inference_mode():
        frozen = LRP(composite=name)(model.train(), x.clone()).units
    for layer, value in wanted.items():
        joined = torch.cat([part[layer] for part in parts])
        assert_close(joined, value[order], rtol=0, atol=1e-5)
        assert_close(flat.units[layer], value, rtol=0, atol=1e-6)
        assert_close(frozen[layer], value, rtol=0, atol=1e-6)


def test_functional_pooling_and_sums_in_place_count_as_their_modules(rng):
    class Functional(nn.Module):
        def __init__(self, pool, add):
            super().__init__()
            self.one = nn.Conv2d(3, 4, 3, padding=1)
            self.two = nn.Conv2d(4, 4, 3, padding=1)
            self.head = nn.Linear(4, 3)
            self.pool, self.add = pool, add

        def forward(self, x):
            x = self.one(x).relu()
            return self.head(self.pool(self.add(self.two(x), x)).flatten(1))

    def in_place(a, b):
        a += b
        return a

    def statement(a, b):
        a.add_(b)
        return a

    sums = [torch.add, torch.Tensor.add, lambda a, b: a + b, in_place, statement]
    pools = [
        lambda x: x.mean((2, 3)),
        lambda x: torch.mean(x, dim=[-1, -2], keepdim=True),
        lambda x: nn.functional.avg_pool2d(x, 6),
        lambda x: nn.functional.adaptive_avg_pool2d(x, 1),
    ]
    wanted = Functional(nn.AdaptiveAvgPool2d(1), torch.add)
    x = torch.randn(3, 3, 6, 6, generator=rng)
    relevance = LRP()(wanted, x).units
    split_evenly = LRP(composite="zplus")(wanted, x).units
    assert (relevance["one"] - split_evenly["one"]).abs().max() > 1e-3
    for model in [Functional(pools[0], add) for add in sums] + [
        Functional(pool, torch.add) for pool in pools
    ]:
        model.load_state_dict(wanted.state_dict())
        assert_close(LRP()(model, x).units, relevance, rtol=0, atol=1e-6)


def test_batch_renormalisation_counts_as_batch_normalisation(rng):
    model = with_statistics(cifar_net(), rng).double()
    x = torch.randn(3, 3, 16, 16, generator=rng, dtype=torch.double)
    wanted = LRP()(model, x).units
    assert_close(LRP()(to_batch_renorm(model), x).units, wanted, rtol=0, atol=1e-3)


def test_a_sequence_in_a_linear_layer_is_summed_over(rng):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(15, 2))
    x = torch.randn(2, 3, 4, generator=rng)
    assert LRP()(model, x).units["0"].shape == (2, 5)


# the model


def test_model_is_left_alone_in_any_state_also_after_errors(rng):
    model = with_statistics(cifar_net(), rng).train()
    model.feature_extractor.layer2.eval()
    model.feature_extractor.conv1.weight.requires_grad_(False)
    x = torch.randn(3, 3, 16, 16, generator=rng)
    model(x)
    features = model.features
    before = fingerprint(model)
    for precision in (torch.float32, torch.float64):
        found = LRP()(model.to(precision), x.to(precision), heatmap=True)
        assert found.logits.dtype == found.heatmap.dtype == precision
        assert not found.logits.requires_grad and not found.heatmap.requires_grad
        assert not any(u.requires_grad for u in found.units.values())
    model.float()
    before = fingerprint(model)
    with pytest.raises(
        ValueError, match="targets go from 0 to 4; wanted rows of the 4"
    ):
        LRP()(model, x, torch.tensor([0, 1, 4]))
    assert_as_before(model, before)
    with pytest.raises(RuntimeError):
        LRP()(model, x[:, :2])
    assert_as_before(model, before)

    class Broken(NamedMergeBatchNorm):
        def apply(self, root_module):
            super().apply(root_module)  # what it has merged it never tells
            raise KeyError("broken")

    pair = (("feature_extractor.conv1",), "feature_extractor.bn1")
    with pytest.raises(KeyError, match="broken"):
        LRP(canonizers=[Broken([pair])])(model, x)
    assert_as_before(model, before)
    assert model.features is features


def test_gradients_and_inputs_are_left_alone(rng):
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4, 2))
    model[2].weight.grad = torch.ones(2, 4)
    x = torch.randn(3, 4, generator=rng).requires_grad_()
    before = x.detach().clone()
    with torch.no_grad():
        LRP()(model, x)
    assert torch.equal(x, before) and x.grad is None
    assert (model[2].weight.grad == 1).all() and model[2].bias.grad is None


def test_a_zennit_composite_serves_again_with_its_own_canonizers(rng):
    model = with_statistics(resnet18(num_classes=4), rng)
    x = torch.randn(2, 3, 32, 32, generator=rng)
    lrp = LRP(composite=EpsilonPlus(canonizers=[ResNetCanonizer()]))
    first, second = lrp(model, x).units, lrp(model, x).units
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert not lrp.composite.handles
    given = LRP(canonizers=[ResNetCanonizer()])(model, x).units
    assert_close(first, given, rtol=1e-2, atol=1e-4)
