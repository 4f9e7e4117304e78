"""What AR1* refuses, before it has changed anything."""

from __future__ import annotations

import copy

import pytest
import torch
from ar1_hosts import SHAPE, ar1, network, sgd, train
from cases import N_CLASSES, task_model, toy_benchmark, toy_model
from torch import nn

from avalanche_ext.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from avalanche_ext.models import FeatureClassifier
from avalanche_ext.plugins import (
    CWRStarPlugin,
    LatentReplayPlugin,
    LeftOutEWCPlugin,
    SynapticIntelligencePlugin,
)

REFUSED = [
    ({"input_shape": 3}, "input_shape is 3; wanted a Sequence"),
    ({"input_shape": (1, 0)}, r"input_shape is \(1, 0\)"),
    ({"latent_layer": "bb"}, "does not have; close names are b"),
    ({"latent_layer": ""}, "latent_layer is ''"),
    ({"latent_layer": "head"}, "nothing to train above it; wanted a module where"),
    ({"latent_layer": 3}, "latent_layer is 3"),
    ({"memory_size": -1}, "memory_size is -1"),
    ({"latent_dtype": "int8"}, "latent_dtype is 'int8'"),
    ({"freeze_first": 2}, "freeze_first is 2"),
    ({"below": "trained"}, "below is 'trained'"),
    ({"freeze_depthwise": "no"}, "freeze_depthwise is 'no'"),
    ({"cache_current": True, "below": "adapt"}, "wanted one of them"),
    ({"order": "random"}, "order is 'random'"),
    ({"replacement": "oldest"}, "replacement is 'oldest'"),
    ({"later_lr": 0}, "later_lr is 0"),
    ({"later_lr": float("nan")}, "later_lr is nan"),
    ({"head_lr_mult": 0.0}, "head_lr_mult is 0.0"),
    ({"head_lr_mult": 2.0, "head": "tail"}, "head is 'tail'; wanted the name of"),
    ({"first_epochs": 0}, "first_epochs is 0"),
    ({"first_epochs": 1.5}, "first_epochs is 1.5"),
    ({"batch_renorm": "yes"}, "batch_renorm is 'yes'"),
    ({"momentum": 0.1}, "momentum is 0.1; wanted two numbers"),
    ({"momentum": (0.1,)}, r"momentum is \(0.1,\); wanted two numbers"),
    ({"momentum": (0.1, 1.1)}, r"momentum\[1\] is 1.1"),
    ({"r_max": 0.5}, "max_r_max is 0.5"),
    ({"d_max": -1.0}, "max_d_max is -1.0"),
    ({"growth": -0.1}, "growth is -0.1"),
    ({"limits": "wrap"}, "limits is 'wrap'"),
    ({"std": "var"}, "std is 'var'"),
    ({"cwr_repeat": "always"}, "repeat is 'always'"),
    ({"mask_unseen": 3}, "mask_unseen is 3"),
    ({"si": "yes"}, "si is 'yes'; wanted one of 'none', 'penalty', 'learning_rate'"),
    ({"si": "penalty", "si_strength": -1.0}, "strength is -1.0"),
    ({"si": "penalty", "si_trajectory": "loss"}, "trajectory is 'loss'"),
    ({"si": "learning_rate", "si_min_importance": None}, "min_importance is None"),
    ({"memory_resident": "yes"}, "memory_resident is 'yes'"),
    ({"generator": 3}, "generator is 3"),
    ({"optimizer": "sgd"}, "optimizer is 'sgd'"),
    ({"train_mb_size": 0}, "train_mb_size is 0"),
    ({"precision": "int8", "head_lr_mult": 2.0}, "precision is 'int8'"),
]


@pytest.mark.parametrize("options, message", REFUSED)
def test_wrong_arguments_are_refused_and_change_nothing(options, message):
    model = network()
    before, optimizer = copy.deepcopy(model), sgd(model)
    with pytest.raises(ValueError, match=message):
        ar1(model, **{"optimizer": optimizer, **options})
    assert str(model) == str(before) and len(optimizer.param_groups) == 1
    ours, theirs = model.state_dict(), before.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


class TwoHeads(nn.Module):
    """Which of them gives the logits, only the forward pass tells."""

    def __init__(self):
        super().__init__()
        self.body = network()[:-1]
        self.first, self.second = nn.Linear(32, N_CLASSES), nn.Linear(32, N_CLASSES)

    def forward(self, x):
        return self.first(self.body(x))


def test_one_of_two_heads_is_named():
    model = TwoHeads()
    second = model.second.weight.detach().clone()
    with pytest.raises(ValueError, match="first"):
        ar1(model, latent_layer="body.b")
    strategy = ar1(model, latent_layer="body.b", head="first", si="penalty")
    train(strategy, visits=[0, 1])
    assert model.first.weight[:4].abs().sum(1).all() and not model.first.bias.any()
    assert torch.equal(model.second.weight, second)


@pytest.mark.parametrize(
    "model, layer, message",
    [
        (toy_model(), "feature_extractor.3", "wanted a linear"),
        (task_model(N_CLASSES), "feature_extractor.3", "ParameterList"),
        (nn.Sequential(nn.Conv2d(1, 6, 6), nn.BatchNorm2d(6)), "0", "wanted a linear"),
    ],
)
def test_models_without_one_linear_head_are_refused(model, layer, message):
    before = str(model)
    with pytest.raises(ValueError, match=message):
        ar1(model, latent_layer=layer)
    assert str(model) == before


def test_normalisation_that_cannot_be_replaced_is_refused_and_nothing_changed():
    model = network()
    model.d.norm = nn.BatchNorm2d(8, track_running_stats=False)
    before = str(model)
    with pytest.raises(ValueError, match="d.norm has no running statistics"):
        ar1(model, head_lr_mult=2.0)
    assert str(model) == before


@pytest.mark.parametrize(
    "plugin",
    [
        lambda: CWRStarPlugin(),
        lambda: SynapticIntelligencePlugin(),
        lambda: LatentReplayPlugin(network(), "b", input_shape=SHAPE),
    ],
)
def test_plugins_it_brings_itself_are_refused(plugin):
    with pytest.raises(ValueError, match="which AR1Star brings itself"):
        ar1(plugins=[plugin()], si="penalty")


def test_plugin_list_of_the_caller_is_unchanged():
    given = [LeftOutEWCPlugin(1.0)]
    plugins = list(given)
    train(ar1(plugins=plugins), visits=[0])
    assert plugins == given


@pytest.mark.parametrize("api", ["old", "new"])
def test_label_beyond_the_head_is_refused(api):
    model = FeatureClassifier(network()[:-1], nn.Linear(32, 3))
    strategy = ar1(model, latent_layer="feature_extractor.b")
    train(strategy, api, visits=[0])
    with pytest.raises(ValueError, match="labels are from 2 to 3; wanted 0 to 2"):
        train(strategy, api, visits=[1])


def test_a_step_that_diverges_is_refused():
    model = network()
    strategy = ar1(model, later_lr=1e30)
    train(strategy, visits=[0])
    with pytest.raises(ValueError, match="not finite"):
        train(strategy, visits=[1])


@pytest.mark.parametrize(
    "other",
    [
        {"head_lr_mult": 10.0},
        {"later_lr": 0.1},
        {"r_max": 2.0},
        {"batch_renorm": False},
    ],
)
def test_a_checkpoint_of_other_arguments_is_refused(other, tmp_path):
    stream = toy_benchmark().train_stream
    save_checkpoint(tmp_path / "c.pt", train(ar1(), visits=[0]), stream)
    [(name, value)] = other.items()
    with pytest.raises(CheckpointError, match=f"with AR1Star.{name} = .* has {value}"):
        load_checkpoint(tmp_path / "c.pt", ar1(**other), stream)
