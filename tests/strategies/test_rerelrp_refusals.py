"""What ReReLRP refuses, before it has changed anything."""

from __future__ import annotations

import copy

import pytest
import torch
from avalanche.models import MultiHeadClassifier
from cases import N_CLASSES, task_model, toy_extractor, toy_model
from rerelrp_hosts import (
    SHAPE,
    mlp,
    rerelrp,
    sgd,
    stream_of,
    trained,
)
from torch import nn
from torch.nn.utils import prune

from avalanche_ext.models import FeatureClassifier
from avalanche_ext.plugins import RelevanceFreezingPlugin, TaskRecognitionPlugin
from avalanche_ext.strategies import ReReLRP

REFUSED = [
    ({"optimizer": "sgd"}, "optimizer is 'sgd'; wanted a Optimizer"),
    ({"input_shape": 3}, "input_shape is 3"),
    ({"input_shape": (1, 0)}, r"input_shape is \(1, 0\)"),
    ({"acc_drop": -1}, "acc_drop is -1"),
    ({"acc_drop": 101}, "acc_drop is 101; wanted at most 100"),
    ({"acc_drop": "1"}, "acc_drop is '1'"),
    ({"acc_drop": float("nan")}, "acc_drop is nan"),
    ({"validation_fraction": 1}, "validation_fraction is 1; wanted less"),
    ({"validation_fraction": -0.1}, "validation_fraction is -0.1"),
    ({"validation_fraction": None}, "validation_fraction is None"),
    ({"reference_per_class": 0}, "per_class is 0"),
    ({"reference_selection": "first"}, "selection is 'first'"),
    ({"reference_transform": "none"}, "transform is 'none'"),
    ({"composite": "gradient"}, "composite is 'gradient'"),
    ({"canonizers": [3]}, "canonizers has 3"),
    ({"start": "two"}, "start is 'two'"),
    ({"head": "fc"}, "head is 'fc'; wanted the name of a linear"),
    ({"head": 3}, "head is 3"),
    ({"head": "feature_extractor.4"}, "head is 'feature_extractor.4', whose output"),
    ({"prune_head": 1}, "prune_head is 1"),
    ({"mask_batchnorm": "yes"}, "mask_batchnorm is 'yes'"),
    ({"prune_step": 0}, "prune_step is 0"),
    ({"prune_step": "all"}, "prune_step is 'all'"),
    ({"min_units": 0}, "min_units is 0"),
    ({"patience": -1}, "patience is -1"),
    ({"patience": 0.5}, "patience is 0.5"),
    ({"freeze_dropout": None}, "freeze_dropout is None"),
    ({"reinitialize_free": 2}, "reinitialize_free is 2"),
    ({"evaluate_unpruned_first": "no"}, "evaluate_unpruned_first is 'no'"),
    ({"on_repeat": "replace"}, "on_repeat is 'replace'"),
    ({"strict_capacity": 0}, "strict_capacity is 0"),
    ({"features": 0}, "features is 0"),
    ({"num_trees": 0}, "num_trees is 0"),
    ({"max_depth": 0}, "max_depth is 0"),
    ({"min_samples_leaf": 0}, "min_samples_leaf is 0"),
    ({"class_weight": "equal"}, "class_weight is 'equal'"),
    ({"table": "paper"}, "table is 'paper'"),
    ({"recognition_layers": ["fc"]}, "recognition_layers have 'fc'; wanted some of"),
    ({"recognition_layers": "fc"}, "layers is 'fc'; wanted names of layers"),
    ({"recognition_layers": []}, r"layers is \[\]; wanted names of layers"),
    ({"recognition_pass": "both"}, "recognition_pass is 'both'"),
    (
        {"recognition_pass": "stacked", "mask_batchnorm": False},
        "recognition_pass is 'stacked' and mask_batchnorm False; wanted 'each'",
    ),
    ({"seed": -1}, "seed is -1"),
    ({"eval_mode": "both"}, "eval_mode is 'both'"),
    ({"memory_resident": "yes"}, "memory_resident is 'yes'"),
    ({"generator": 3}, "generator is 3"),
    ({"train_mb_size": 0}, "train_mb_size is 0"),
    ({"train_epochs": 0}, "train_epochs is 0"),
    ({"precision": "int8"}, "precision is 'int8'"),
    ({"valid_stream": 3}, "valid_stream is 3"),
]


@pytest.mark.parametrize("options, message", REFUSED)
def test_wrong_arguments_are_refused_and_change_nothing(options, message):
    model = mlp()
    before, optimizer = copy.deepcopy(model), sgd(model)
    wanted = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=message):
        rerelrp(**{"model": model, "optimizer": optimizer, **options})
    assert_same(model, before)
    assert optimizer.state_dict() == wanted


def assert_same(model, before):
    assert str(model) == str(before)
    ours, theirs = model.state_dict(), before.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    flags = [p.requires_grad for p in before.parameters()]
    assert [p.requires_grad for p in model.parameters()] == flags
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


def convolutions(*layers, n=8):
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, N_CLASSES))
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), *layers, *head)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(6, 8), nn.Linear(8, N_CLASSES)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        x = self.embed(x[:, 0])
        return self.head(self.attend(x, x, x)[0].mean(1))


class Residual(nn.Module):
    """Its sum is of no rule."""

    def __init__(self):
        super().__init__()
        self.body, self.inner = nn.Linear(36, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, N_CLASSES)

    def forward(self, x):
        x = self.body(x.flatten(1)).relu()
        return self.head(torch.stack([x, self.inner(x).relu()]).sum(0))


def pruned():
    model = mlp()
    prune.l1_unstructured(model.feature_extractor[1], "weight", amount=0.5)
    return model


def parametrised():
    model = mlp()
    nn.utils.parametrizations.weight_norm(model.feature_extractor[1])
    return model


def shared():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 36), nn.ReLU(), nn.Linear(36, 36))
    model[3].weight = model[1].weight
    return model.append(nn.Linear(36, N_CLASSES))


UNSUPPORTED = {
    "group norm": (lambda: convolutions(nn.GroupNorm(2, 8)), "'1', a GroupNorm"),
    "layer norm": (lambda: convolutions(nn.LayerNorm([8, 6, 6])), "'1', a LayerNorm"),
    "instance norm": (lambda: convolutions(nn.InstanceNorm2d(8)), "'1', a InstanceN"),
    "attention": (Attention, "'attend', a MultiheadAttention|'attend.out_proj'"),
    "transposed": (
        lambda: convolutions(nn.ConvTranspose2d(8, 8, 3)),
        "'1', a ConvTranspose2d",
    ),
    "no affine": (
        lambda: convolutions(nn.BatchNorm2d(8, affine=False)),
        "'1', a Batch",
    ),
    "no statistics": (
        lambda: convolutions(nn.BatchNorm2d(8, track_running_stats=False)),
        "'1', a BatchNorm2d, has no",
    ),
    "norm alone": (
        lambda: convolutions(nn.ReLU(), nn.BatchNorm2d(8)),
        "'2', a BatchNorm2d, does not take the very output",
    ),
    "pruned": (pruned, "'feature_extractor.1' is computed"),
    "parametrised": (parametrised, "computed"),
    "shared": (shared, "share their weight"),
    "residual": (Residual, "does not conserve relevance: of 1 at the logits, 2"),
    "two heads": (lambda: task_model(N_CLASSES), "wanted a linear"),
    "multi-head": (
        lambda: FeatureClassifier(toy_extractor(), MultiHeadClassifier(8)),
        "MultiHeadClassifier",
    ),
    "cosine": (toy_model, "wanted a linear"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_models_are_named_and_nothing_is_changed(name):
    make, message = UNSUPPORTED[name]
    torch.manual_seed(0)
    before = make()  # where weights are computed, there is no deep copy
    torch.manual_seed(0)
    model = make()
    optimizer = sgd(model)
    with pytest.raises(ValueError, match=message):
        rerelrp(model, optimizer=optimizer)
    assert_same(model, before)
    assert len(optimizer.param_groups) == 1 and not optimizer.state


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match="model is 3; wanted a Module"):
        ReReLRP(model=3, optimizer=sgd(mlp()), input_shape=SHAPE)


def test_compiled_models_are_refused():
    model = mlp()
    model.feature_extractor.compile()
    with pytest.raises(ValueError, match="compiled; wanted it before torch.compile"):
        rerelrp(model)


@pytest.mark.parametrize(
    "plugin",
    [
        lambda: RelevanceFreezingPlugin(mlp(), input_shape=SHAPE),
        lambda: TaskRecognitionPlugin(lambda strategy: []),
    ],
)
def test_plugins_it_brings_itself_are_refused(plugin):
    with pytest.raises(ValueError, match="which ReReLRP brings itself"):
        rerelrp(plugins=[plugin()])


def test_label_beyond_the_head_is_refused():
    model = FeatureClassifier(toy_extractor(), nn.Linear(8, 3))
    strategy = trained(rerelrp(model), n=1)
    with pytest.raises(ValueError, match=r"classes are \(2, 3\); wanted all below 3"):
        strategy.train(stream_of().train_stream[1])
