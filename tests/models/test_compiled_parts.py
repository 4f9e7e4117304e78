"""What of a model runs compiled, and a frozen copy that does."""

from __future__ import annotations

import pytest
import torch
from avalanche.models import IncrementalClassifier
from torch import nn

from avalanche_ext.models import (
    CosineClassifier,
    FeatureClassifier,
    TransferConv2d,
    mobilenet_v1_cifar,
    resnet32_cifar,
)
from avalanche_ext.models.compiled_parts import CompiledParts
from avalanche_ext.models.frozen_copy import FrozenCopy

# torch's compiler looks at the gradients of inputs that are no leaves
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


def block(n: int = 4, last: nn.Module | None = None) -> nn.Module:
    return nn.Sequential(nn.Linear(n, 4), last or nn.ReLU())


def names(model: nn.Module) -> list[str]:
    with CompiledParts(model) as parts:
        return parts.names


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (block(), [""]),
        (FeatureClassifier(resnet32_cifar(), nn.Linear(64, 2)), [""]),
        (
            FeatureClassifier(resnet32_cifar(), CosineClassifier(64)),
            ["feature_extractor"],
        ),
        (nn.Sequential(block(), block(), IncrementalClassifier(4)), ["0", "1"]),
        (nn.Sequential(nn.Conv2d(1, 1, 1), TransferConv2d(1, 1, 1)), [""]),
        (nn.ModuleList([block(), block()]), ["0", "1"]),
    ],
)
def test_parts_are_the_largest_without_heads_that_grow(model, wanted):
    assert names(model) == wanted


def test_parts_with_hooks_run_uncompiled(graphs):
    model, seen = nn.Sequential(block(), block(), block()), []
    parts = CompiledParts(model)
    for hooked in (True, False):
        if hooked:
            handle = model[1][1].register_forward_hook(lambda *_: seen.append(1))
        with parts:
            model(torch.zeros(2, 4))
            assert parts.names == (["0", "2"] if hooked else [""])
        if hooked:
            assert len(graphs) == 2 and seen == [1]
            handle.remove()
    assert len(graphs) == 3 and seen == [1]


def test_a_model_of_many_alike_parts_is_compiled_whole(graphs):
    """More than torch's limit of compilations for one piece of code."""
    model = nn.Sequential(*[block() for _ in range(12)], IncrementalClassifier(4))
    x = torch.ones(2, 4)
    wanted = model(x)
    with CompiledParts(model):
        assert torch.equal(model(x), wanted)
    assert len(graphs) == 12


def test_the_model_is_plain_again_after_an_error(graphs):
    model = block(last=nn.Linear(5, 1))
    with pytest.raises(RuntimeError), CompiledParts(model):
        model(torch.zeros(2, 4))
    assert model._compiled_call_impl is None


@pytest.mark.parametrize("model", [nn.Linear(2, 2), CosineClassifier(2)])
def test_a_model_without_parts_is_refused(model):
    with pytest.raises(ValueError, match="has no part to compile; wanted layers in a"):
        CompiledParts(model)


def test_outputs_are_those_of_the_model(graphs, rng):
    model = mobilenet_v1_cifar(width=0.25)
    x = torch.randn(2, 3, 32, 32, generator=rng)
    model(x)
    wanted = model.eval()(x)
    with CompiledParts(model):
        assert torch.equal(model(x), wanted)
    assert graphs


@pytest.mark.parametrize("inference_mode", [False, True])
def test_a_frozen_copy_answers_as_the_model_did(inference_mode, rng):
    model = FeatureClassifier(block(), nn.Linear(4, 2))
    x = torch.randn(3, 4, generator=rng)
    wanted = model(x).detach()
    model.features = None
    frozen = FrozenCopy(model, inference_mode=inference_mode)
    with torch.no_grad():
        model.train_classifier.weight.zero_()
    outputs = frozen(x)
    assert torch.equal(outputs, wanted) and not outputs.requires_grad
    factor = torch.ones((), requires_grad=True)
    (factor * outputs).sum().backward()  # inference tensors may not take part
    assert factor.grad == wanted.sum()
    parameters = list(frozen.model.parameters())
    assert not any(p.requires_grad for p in parameters) and not frozen.model.training
    assert frozen.memory_bytes() == {"frozen_copies": sum(p.nbytes for p in parameters)}


def test_the_next_frozen_copy_is_not_compiled_again(graphs, rng):
    model = block()
    first = FrozenCopy(model, compile=True)
    x = torch.randn(3, 4, generator=rng)
    first(x)
    assert len(graphs) == 1
    with torch.no_grad():
        model[0].weight.mul_(2)
    second = FrozenCopy(model, compile=True, like=first)
    assert torch.equal(second(x), model(x)) and not torch.equal(second(x), first(x))
    assert len(graphs) == 1
