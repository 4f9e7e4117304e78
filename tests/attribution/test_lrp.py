from __future__ import annotations

import pytest
import torch
from relevance_nets import (
    conv_net,
    mlp,
    resnet_toy,
    small_conv,
    state_of,
    with_statistics,
)
from torch import nn
from torch.testing import assert_close
from torchvision.models import resnet18
from zennit.composites import EpsilonAlpha2Beta1, EpsilonPlus, EpsilonPlusFlat
from zennit.torchvision import ResNetCanonizer

from avalanche_ext.attribution import LRP
from avalanche_ext.attribution.propagation import propagate
from avalanche_ext.attribution.rules import named_composite


@pytest.mark.golden("rerelrp", "relevance_*.npz")
def test_relevances_agree_with_the_authors(golden):
    state = state_of(golden, "param.")
    resnet = "bn1.weight" in state
    make = resnet_toy if resnet else conv_net if "conv1.weight" in state else mlp
    model, x = make(state), golden["x"]
    local = golden["y"] - golden["task_offset"]
    assert golden["composites"]
    for name in golden["composites"]:
        found = LRP(composite=name)(model, x, local)
        assert_close(found.logits, golden["logits"], rtol=1e-4, atol=1e-4)
        assert sorted(found.units) == sorted(golden["layers"])
        for layer, ours in found.units.items():
            wanted = golden[f"R.{name}.{layer}"]
            atol = 5e-4 if resnet else 1e-5
            assert_close(ours.sum(0), wanted, rtol=0, atol=atol)
        raw = propagate(
            model,
            x,
            lambda z: torch.zeros_like(z).scatter_(1, local[:, None], 1.0) * z,
            composite=named_composite(name),
        )
        for layer, ours in raw.units.items():
            wanted = golden[f"raw.{name}.{layer}"]
            atol = 5e-3 * float(wanted.abs().max()) if resnet else 1e-5
            assert_close(ours, wanted, rtol=0, atol=atol)


@pytest.mark.golden("rerelrp", "recognition.npz")
def test_relevances_of_masked_networks_agree_with_the_authors(golden):
    for k, (offset, n) in enumerate(
        zip(golden["offsets"].tolist(), golden["classes"].tolist(), strict=True)
    ):
        state = {name: v.clone() for name, v in state_of(golden, "model.").items()}
        for name in ("fc.weight", "fc.bias"):
            state[name] = state[name][offset : offset + n]
        for layer, keep in state_of(golden, f"keep.{k}.").items():
            for name in ("weight", "bias"):
                state[f"{layer}.{name}"][keep == 0] = 0
        found = LRP()(conv_net(state), golden["x_test"])
        rows = torch.cat([found.units[n] for n in golden["feature_layer_order"]], 1)
        assert_close(rows, golden[f"rel_test.{k}"], rtol=0, atol=1e-5)
        for layer, keep in state_of(golden, f"keep.{k}.").items():
            assert not found.units[layer][:, keep == 0].any()


# slow restatements


def divided(r, z, epsilon=1e-6):
    return r / (z + epsilon * torch.where(z < 0, -1.0, 1.0))


def restated(modules, x, target):
    """Relevance below each module of a chain for one sample, by dense matrices."""
    inputs = [x[None]]
    for module in modules:
        inputs.append(module(inputs[-1]))
    r = torch.zeros_like(inputs[-1])
    r[0, target] = inputs[-1][0, target]
    found = {}
    for i in reversed(range(len(modules))):
        module, a = modules[i], inputs[i].flatten()
        z, shape = inputs[i + 1].flatten(), inputs[i].shape
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            found[i] = r.flatten(2).sum(2)[0] if r.ndim > 2 else r[0]
        jacobian = torch.autograd.functional.jacobian(
            lambda v, module=module, shape=shape: module(v.view(shape)).flatten(), a
        )
        if isinstance(module, nn.Conv2d):
            bias = z - jacobian @ a
            up, low = a.clamp(min=0), a.clamp(max=0)
            w_up, w_low = jacobian.clamp(min=0), jacobian.clamp(max=0)
            s = divided(r.flatten(), w_up @ up + w_low @ low + bias.clamp(min=0))
            r = up * (w_up.T @ s) + low * (w_low.T @ s)
        elif isinstance(module, nn.Linear):
            r = a * (jacobian.T @ divided(r.flatten(), z))
        elif not isinstance(module, nn.ReLU):
            r = jacobian.T @ r.flatten()
        r = r.view(shape)
    return found, r[0]


def test_relevance_is_that_of_dense_matrices(rng):
    model = small_conv(rng).double()
    x = torch.randn(5, 2, 8, 8, generator=rng, dtype=torch.double)
    targets = torch.tensor([0, 1, 2, 2, 0])
    found = LRP(composite="epsilon_plus")(model, x, targets, heatmap=True)
    merged = [nn.utils.fusion.fuse_conv_bn_eval(model[0], model[1]), nn.ReLU()]
    merged += model[3:]
    for i, target in enumerate(targets.tolist()):
        units, heatmap = restated(merged, x[i], target)
        assert_close(found.heatmap[i], heatmap, rtol=1e-3, atol=1e-5)
        for name, place in (("0", 0), ("3", 2), ("7", 6), ("9", 8)):
            wanted = units[place] / units[place].abs().sum()
            assert_close(found.units[name][i], wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "zennits"),
    [("epsilon_plus", EpsilonPlus), ("epsilon_alpha2_beta1", EpsilonAlpha2Beta1)],
)
def test_our_shortcuts_agree_with_zennits_own_rules(name, zennits, rng):
    # of residual blocks, negative features and inputs, average pooling
    model = resnet18(num_classes=4).double().eval()
    with_statistics(model, rng)
    x = torch.randn(2, 3, 32, 32, generator=rng, dtype=torch.double)
    ours = LRP(composite=name)(model, x, heatmap=True)
    theirs = LRP(composite=zennits(canonizers=[ResNetCanonizer()]))
    theirs = theirs(model, x, heatmap=True)
    assert_close(ours.logits, theirs.logits, rtol=1e-9, atol=1e-9)
    largest = theirs.heatmap.abs().max()
    assert_close(ours.heatmap / largest, theirs.heatmap / largest, rtol=0, atol=1e-6)
    assert_close(ours.units, theirs.units, rtol=0, atol=1e-6)


def test_rules_agree_with_zennits_to_rounding_without_norms(rng):
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 8, 3)
    )
    model.extend([nn.ReLU6(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3)])
    x = torch.randn(4, 3, 11, 11, generator=rng)
    for name, zennits in (
        ("epsilon_plus_flat", EpsilonPlusFlat),
        ("epsilon_alpha2_beta1", EpsilonAlpha2Beta1),
    ):
        ours = LRP(composite=name)(model, x, heatmap=True)
        theirs = LRP(composite=zennits())(model, x, heatmap=True)
        assert_close(ours.heatmap, theirs.heatmap, rtol=0, atol=1e-6)
        assert_close(ours.units, theirs.units, rtol=0, atol=1e-6)
