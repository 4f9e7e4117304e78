"""Which layer gives the logits, and which weights are shared."""

from __future__ import annotations

import pytest
import torch
from avalanche.models import IncrementalClassifier, MultiHeadClassifier
from torch import nn
from torch.testing import assert_close
from torchvision.models import mobilenet_v2, resnet18
from torchvision.ops import Conv2dNormActivation

from avalanche_ext.models import SmallCNN
from avalanche_ext.models.flat_weights import (
    FlatWeights,
    leading_part,
    shared_parameters,
)
from avalanche_ext.models.linear_head import linear_head, linear_head_name


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (nn.Linear(3, 2), ""),
        (nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 5)), "2"),
        (nn.Sequential(nn.Linear(3, 5), IncrementalClassifier(5, 2)), "1.classifier"),
        (resnet18(num_classes=7), "fc"),
        (mobilenet_v2(num_classes=7), "classifier.1"),
    ],
)
def test_the_last_linear_layer_is_the_head(model, name):
    assert linear_head_name(model) == name == linear_head_name(model, name)
    assert isinstance(linear_head(model, name), nn.Linear)


@pytest.mark.parametrize(
    ("model", "head", "message"),
    [
        (nn.ReLU(), None, "the last layer of ReLU with weights is '', a ReLU; wanted"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
            None,
            "weights is '1', a BatchNorm1d; wanted a linear one",
        ),
        (
            nn.ModuleList([nn.Linear(3, 4), nn.Linear(9, 4)]),
            None,
            "ModuleList has several linear layers with 4 outputs, '0', '1'; wanted",
        ),
        (MultiHeadClassifier(4), None, "is one of the heads of a MultiHeadClassifier"),
        (nn.Sequential(nn.Linear(3, 4)), "1", "head is '1'; wanted the name .* '0'"),
        (nn.ReLU(), "fc", "head is 'fc'; wanted .* such as none"),
    ],
)
def test_models_without_one_head_are_refused(model, head, message):
    with pytest.raises(ValueError, match=message):
        linear_head_name(model, head)


def test_a_layer_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="0 is ReLU.*; wanted a Linear"):
        linear_head(nn.Sequential(nn.ReLU()), "0")


class BatchRenorm2D(nn.Module):  # of any library, known by its name
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(2))


def test_norm_layers_and_head_are_left_out():
    model = nn.Sequential(
        Conv2dNormActivation(1, 2),  # a container, which has the word in its name
        nn.GroupNorm(1, 2),
        BatchRenorm2D(),
        nn.Flatten(),
        nn.LayerNorm(2),
        nn.Linear(2, 3),
        nn.Linear(3, 4),
    )
    model[5].weight.requires_grad_(False)
    names = ["0.0.weight", "5.weight", "5.bias"]
    assert list(shared_parameters(model)) == names
    assert list(shared_parameters(model, ["0", "5.bias"])) == [
        "5.weight",
        "6.weight",
        "6.bias",
    ]
    assert list(shared_parameters(model, [])) == [*names, "6.weight", "6.bias"]


def test_a_weight_tied_to_the_head_is_left_out():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].weight = model[2].weight
    assert list(shared_parameters(model)) == ["0.bias", "1.weight", "1.bias"]


def test_names_that_leave_nothing_or_do_not_exist_are_refused():
    model = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(ValueError, match="'fc' is to be excluded; wanted the name"):
        shared_parameters(model, ["fc"])
    with pytest.raises(ValueError, match="no parameter of Sequential is left"):
        shared_parameters(model)


def test_vectors_and_pieces_are_each_others_inverse(rng):
    model = SmallCNN()
    flat = FlatWeights(dict(model.named_parameters()))
    vector = torch.randn(len(flat.weights()), generator=rng)
    assert torch.equal(flat.vector(flat.by_name(vector)), vector)
    assert_close(flat.by_name(flat.weights()), dict(model.named_parameters()))
    assert not flat.gradients().any()
    model.zero_grad()
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    flat.set_gradients(vector)  # those that have none stay without
    assert torch.equal(first.grad.reshape(-1), vector[: first.numel()])
    assert all(p.grad is None for p in list(model.parameters())[1:])


def test_weights_are_a_copy_and_float32_at_least():
    layer = nn.Linear(2, 2, bias=False).bfloat16()
    flat = FlatWeights(dict(layer.named_parameters()))
    before = flat.weights()
    assert before.dtype == torch.float32
    single = FlatWeights({"weight": nn.Parameter(torch.zeros(2))})
    kept = single.weights()
    single.parameters["weight"].data += 1
    assert not kept.any()


def test_of_a_parameter_that_grew_the_new_part_is_0():
    flat = FlatWeights({"w": nn.Parameter(torch.ones(3, 2))})
    old = {"w": torch.full((2, 2), 5.0), "other": torch.ones(9)}
    assert flat.vector(old).tolist() == [5.0, 5.0, 5.0, 5.0, 0.0, 0.0]
    for shape in [(4, 2), (3,), (3, 2, 1)]:
        with pytest.raises(ValueError, match=r"w has shape \(3, 2\); wanted one that"):
            flat.vector({"w": torch.ones(shape)})
    assert leading_part(torch.tensor(7.0), torch.Size([]), "w") == 7
