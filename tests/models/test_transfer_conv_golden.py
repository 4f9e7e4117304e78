"""Transferred networks against the authors' own."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from avalanche_ext.functional.cosine import cosine_logits
from avalanche_ext.models import (
    CifarResNet,
    CosineClassifier,
    FeatureClassifier,
    TransferConv2d,
    resnet32_cifar,
    to_transfer_network,
)
from avalanche_ext.models.transfer_conv import transfer_convolutions


@pytest.mark.golden("mnemonics", "mtl_conv.npz")
def test_outputs_and_gradients_agree_with_the_authors(golden):
    for case, arguments in json.loads(golden["meta"]).items():
        layer = TransferConv2d(**arguments)
        layer.begin_transfer()
        names = ["weight", "mtl_weight"] + ["bias", "mtl_bias"] * arguments["bias"]
        layer.load_state_dict({name: golden[f"{case}.{name}"] for name in names})
        x = golden[f"{case}.x"].requires_grad_()
        y = layer(x)
        (y * golden[f"{case}.upstream"]).sum().backward()
        for name, ours in [("y", y), ("grad_x", x.grad)] + [
            (f"grad_{n}", p.grad) for n, p in layer.named_parameters()
        ]:
            assert_close(ours, golden[f"{case}.{name}"], rtol=1e-5, atol=1e-5)


def head_of(rows, sigma):
    """A cosine classifier grown once for each array of prototypes."""
    head = CosineClassifier(rows[0].shape[1])
    for prototypes in rows:
        head.grow(range(head.n_classes, head.n_classes + len(prototypes)))
        head.prototypes[-1].data.copy_(prototypes)
    head.scale.data.copy_(sigma.squeeze())
    return head


@pytest.mark.golden("mnemonics", "cosine_linear.npz")
def test_cosine_classifiers_agree_with_the_authors(golden):
    x = golden["x"]
    plain = [golden["cos_weight"]], golden["cos_sigma"], golden["cos_out"]
    split = [golden["split_fc1"], golden["split_fc2"]], golden["split_sigma"]
    for rows, sigma, wanted in (plain, (*split, golden["split_out"])):
        assert_close(head_of(rows, sigma)(x), wanted, rtol=1e-5, atol=1e-6)
        assert_close(cosine_logits(x, torch.cat(rows), sigma), wanted)


def ours_of(name):
    """Our name of a parameter of the authors' network."""
    names = {"sigma": "scale", "fc1.weight": "prototypes.0"}
    names |= {"fc2.weight": "prototypes.1", "weight": "prototypes.0"}
    if name.startswith("fc."):
        return f"train_classifier.{names[name.removeprefix('fc.')]}"
    return f"feature_extractor.{name}"


@pytest.mark.golden("mnemonics", "resnetmtl_forward.npz")
def test_network_agrees_with_the_authors(golden):
    state = {
        name.removeprefix("sd."): torch.as_tensor(value)
        for name, value in golden.items()
        if name.startswith("sd.")
    }
    rows = [state.pop("fc.fc1.weight"), state.pop("fc.fc2.weight")]
    sigma = state.pop("fc.sigma")

    net = CifarResNet(1)
    net.layer3 = CifarResNet(2).layer3
    plain = {k: v for k, v in state.items() if "mtl" not in k}
    net.load_state_dict(plain)
    model = FeatureClassifier(to_transfer_network(net), head_of(rows[:1], sigma)).eval()
    x = golden["x"]
    wanted = golden["base_logits_before_expansion"]
    for _ in range(2):
        assert_close(model(x), wanted, rtol=1e-4, atol=1e-5)
        for layer in transfer_convolutions(model):
            layer.begin_transfer()

    net.load_state_dict(state)
    model.train_classifier = head_of(rows, sigma).eval()
    logits = model(x)
    loss = cross_entropy(logits, golden["y"])
    loss.backward()
    assert_close(model.features, golden["features"], rtol=1e-4, atol=1e-5)
    assert_close(logits, golden["logits"], rtol=1e-4, atol=1e-5)
    assert loss.item() == pytest.approx(golden["loss"], rel=1e-4)
    gradients = {
        "grad_conv1_mtl": net.conv1.mtl_weight,
        "grad_layer3_last_conv2_mtl": net.layer3[-1].conv2.mtl_weight,
        "grad_fc2": model.train_classifier.prototypes[1],
        "grad_bn1_weight": net.bn1.weight,
    }
    for name, parameter in gradients.items():
        assert_close(parameter.grad, golden[name], rtol=1e-4, atol=1e-5)
    trainable = {ours_of(n) for n in json.loads(golden["trainable"])}
    assert {n for n, _ in model.named_parameters()} == trainable
    frozen = {ours_of(n) for n in json.loads(golden["frozen"])}
    assert frozen < {n for n, _ in model.named_buffers()}


@pytest.mark.golden("mnemonics", "protocol.json")
def test_names_and_numbers_of_parameters_agree_with_the_authors(golden):
    model = FeatureClassifier(resnet32_cifar(), CosineClassifier(64, n_classes=50))
    wanted = golden["resnetmtl32_50classes_param_counts"]
    numbers = sum(p.numel() for p in model.parameters())
    assert numbers == wanted["plain_resnet32_total"]
    layers = transfer_convolutions(to_transfer_network(model))
    for layer in layers:
        layer.begin_transfer()
    trained = dict(model.named_parameters())
    names = {ours_of(n) for n in golden["resnetmtl32_trainable_names"]}
    assert trained.keys() == names
    trainable = sum(p.numel() for p in trained.values())
    frozen = sum(layer.weight.numel() for layer in layers)
    assert (trainable, frozen) == (wanted["trainable"], wanted["frozen"])
    assert trainable + frozen == wanted["total"]
    scales = (p for n, p in trained.items() if "mtl" in n)
    assert sum(p.numel() for p in scales) == wanted["mtl"]
