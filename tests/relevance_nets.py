"""Networks of the golden files of ReReLRP, and ones to propagate relevance through."""

from __future__ import annotations

from collections import OrderedDict

import torch
from avalanche.models import IncrementalClassifier
from torch import nn
from torchvision.models.resnet import BasicBlock

from avalanche_ext import CifarResNet, FeatureClassifier
from avalanche_ext.attribution.canonizers import Norm
from avalanche_ext.attribution.propagation import propagate
from avalanche_ext.attribution.rules import named_composite
from avalanche_ext.models.unit_layers import UnitLayer


def state_of(golden, prefix):
    """Entries of a golden file below a prefix, without it."""
    return {k[len(prefix) :]: v for k, v in golden.items() if k.startswith(prefix)}


def conv_net(state):
    """ConvNet of the golden files; sizes from the shapes."""
    c1, cin = state["conv1.weight"].shape[:2]
    c2, (h, flat), k = len(state["conv2.bias"]), state["fc1.weight"].shape, None
    k = len(state["fc.bias"])
    layers = OrderedDict(
        conv1=nn.Conv2d(cin, c1, 3, padding=1),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(c1, c2, 3, padding=1),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(flat, h),
        relu3=nn.ReLU(),
        fc=nn.Linear(h, k),
    )
    return _filled(nn.Sequential(layers), state)


def mlp(state):
    """MLP of the golden files."""
    sizes = [state["fc1.weight"].shape[1]]
    sizes += [len(state[f"{n}.bias"]) for n in ("fc1", "fc2", "fc")]
    layers = OrderedDict(
        fc1=nn.Linear(*sizes[:2]),
        relu1=nn.ReLU(),
        fc2=nn.Linear(*sizes[1:3]),
        relu2=nn.ReLU(),
        fc=nn.Linear(*sizes[2:]),
    )
    return _filled(nn.Sequential(layers), state)


def resnet_toy(state):
    """ResNetToy of the golden files."""
    c1, cin = state["conv1.weight"].shape[:2]
    c2, k = len(state["layer2.conv1.weight"]), len(state["fc.bias"])
    short = nn.Sequential(nn.Conv2d(c1, c2, 1, stride=2, bias=False))
    short.append(nn.BatchNorm2d(c2))
    layers = OrderedDict(
        conv1=nn.Conv2d(cin, c1, 3, padding=1, bias=False),
        bn1=nn.BatchNorm2d(c1),
        relu=nn.ReLU(),
        layer1=BasicBlock(c1, c1),
        layer2=BasicBlock(c1, c2, 2, short),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(c2, k),
    )
    return _filled(nn.Sequential(layers), state)


def _filled(net, state):
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected and all("num_batches" in name for name in missing)
    return net.eval()


def with_statistics(model, generator):
    """Norms as after training, in place."""
    for norm in (m for m in model.modules() if isinstance(m, Norm)):
        for name, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.4, 0.4),
            ("running_mean", -0.4, 0.4),
            ("running_std" if hasattr(norm, "running_std") else "running_var", 0.5, 2),
        ):
            getattr(norm, name).data.uniform_(low, high, generator=generator)
    return model


def fingerprint(model):
    """All that must be as before: tensors with their identity, modes, hooks."""
    tensors = {
        n: (id(t), t.data_ptr(), t._version, t.requires_grad, t.detach().clone())
        for n, t in [*model.named_parameters(), *model.named_buffers()]
    }
    modules = {n: (id(m), m.training, *_sizes(m)) for n, m in model.named_modules()}
    return tensors, modules


def _sizes(module):
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return [len(h) for h in hooks], sorted(vars(module))


def assert_as_before(model, before):
    """Nothing of `fingerprint` has changed."""
    tensors, modules = fingerprint(model)
    assert modules == before[1] and tensors.keys() == before[0].keys()
    for name, (*marks, value) in tensors.items():
        assert marks == list(before[0][name][:-1]), name
        assert torch.equal(value, before[0][name][-1]), name


def cifar_net():
    head = IncrementalClassifier(16, 4, masking=False)
    return FeatureClassifier(CifarResNet(n_blocks=1, width=4), head)


def with_head(extractor):
    return nn.Sequential(extractor, nn.Linear(extractor.feature_size, 4))


def small_conv(generator):
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, stride=2, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    )
    return with_statistics(model, generator).eval()


def one_hot_start(logits):
    return torch.zeros_like(logits).scatter_(1, logits.argmax(1, True), 1.0)


def without_biases(model):
    for module in model.modules():
        for name in ("bias", "running_mean"):
            value = getattr(module, name, None)
            if value is not None and isinstance(module, UnitLayer | Norm):
                zero = torch.zeros_like(value)
                setattr(module, name, nn.Parameter(zero) if name == "bias" else zero)


def raw_sums(model, x, name="epsilon_plus", stabilizer=1e-6):
    composite = named_composite(name, stabilizer=stabilizer)
    found = propagate(model, x, one_hot_start, composite=composite)
    return {n: r.sum(1) for n, r in found.units.items()}
