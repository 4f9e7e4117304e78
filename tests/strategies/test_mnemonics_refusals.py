"""What Mnemonics refuses, before it has changed anything."""

from __future__ import annotations

import copy

import pytest
import torch
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from cases import toy_model
from mnemonics_hosts import conv_model, mnemonics, trained
from torch import nn
from torch.optim import SGD

from avalanche_ext.buffers import HerdingBuffer, MnemonicsBuffer
from avalanche_ext.plugins import (
    BalancedFinetuningPlugin,
    ExemplarReplayPlugin,
    ImprintingPlugin,
    LUCIRPlugin,
    NearestExemplarMeanPlugin,
    ScoreDistillationPlugin,
    WeightTransferPlugin,
)

BUFFER = HerdingBuffer()

REFUSED = [
    ({"optimizer": "sgd"}, "optimizer is 'sgd'; wanted a Optimizer"),
    ({"exemplars_per_class": 0}, "^exemplars_per_class is 0"),
    ({"exemplars_per_class": 2.5}, "per_class is 2.5"),
    ({"memory_size": 0}, "^memory_size is 0"),
    ({"memory_size": 20, "exemplars_per_class": 4}, "wanted one of the two"),
    ({"selection": "first"}, "selection is 'first'"),
    ({"selection": ReservoirSamplingBuffer(9)}, "given with a buffer as selection"),
    ({"optimization": "slow"}, "optimizer is 'slow'; wanted one of 'fast', 'paper'"),
    ({"optimization": 3}, "optimizer is 3; wanted a MnemonicsOptimizer"),
    ({"storage_dtype": "float16"}, "storage_dtype is 'float16'"),
    ({"buffer_transform": lambda x: "x"}, "makes str of a tensor"),
    ({"distillation": "bic"}, "distillation is 'bic'; wanted one of 'lucir', 'icarl'"),
    ({"distillation_weight": -1}, "weight is -1"),
    ({"distillation": "icarl", "distillation_weight": -1}, "weight is -1"),
    ({"weight_transfer": 1}, "weight_transfer is 1; wanted one of True, False"),
    ({"decay_to_one": "yes"}, "decay_to_one is 'yes'"),
    ({"decay_to_one": 1, "weight_transfer": False}, "decay_to_one is 1"),
    ({"decay_to_one": True, "weight_transfer": False}, "wanted both, or neither"),
    ({"finetuning_epochs": -1}, "finetuning_epochs is -1"),
    ({"finetuning_epochs": 1.5}, "finetuning_epochs is 1.5"),
    ({"finetuning_lr": 0}, "finetuning_lr is 0"),
    ({"finetuning_lr": 0, "finetuning_epochs": 0}, "finetuning_lr is 0"),
    ({"predict": "both"}, "predict is 'both'; wanted one of 'linear', 'nearest_mean'"),
    ({"second_view": "flip"}, "second_view is 'flip'"),
    ({"imprint": "x"}, "imprint is 'x'"),
    ({"progress": "bar"}, "progress is 'bar'"),
    ({"memory_resident": "yes"}, "memory_resident is 'yes'"),
    ({"generator": 3}, "generator is 3"),
    ({"train_mb_size": 0}, "train_mb_size is 0"),
    ({"precision": "int8"}, "precision is 'int8'"),
    ({"without_new_classes": "stop"}, "without_new_classes is 'stop'"),
    ({"margin_weight": -1}, "margin_weight is -1"),
    ({"herding": "lucir"}, "herding is 'lucir'; wanted selection instead"),
    ({"buffer": BUFFER}, "buffer is .*; wanted selection instead"),
    ({"balanced_finetuning_epochs": 3}, "is 3; wanted finetuning_epochs instead"),
    ({"balanced_finetuning": {"lr": 1}}, "wanted finetuning_epochs and finetuning_lr"),
    (
        {"distillation": "icarl", "margin": 0.4, "less_forget": False},
        r"\['less_forget', 'margin'\] given with distillation 'icarl'; wanted",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_wrong_arguments_are_refused_and_change_nothing(options, message):
    model = conv_model()
    before = copy.deepcopy(model)
    optimizer = SGD(model.parameters(), lr=0.1)
    wanted = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=message):
        mnemonics(**{"model": model, "optimizer": optimizer, **options})
    assert str(model) == str(before) and optimizer.state_dict() == wanted
    for name, value in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


@pytest.mark.parametrize(
    "plugin",
    [
        WeightTransferPlugin(),
        NearestExemplarMeanPlugin(BUFFER),
        ExemplarReplayPlugin(BUFFER),
        ImprintingPlugin(),
        LUCIRPlugin(),
        BalancedFinetuningPlugin(BUFFER),
    ],
    ids=lambda plugin: type(plugin).__name__,
)
def test_an_own_plugin_given_twice_is_refused(plugin):
    name = type(plugin).__name__
    with pytest.raises(ValueError, match=f"'{name}'.*brings itself"):
        mnemonics(plugins=[plugin])


def test_a_plugin_of_a_part_left_out_is_refused_only_with_that_part():
    distillation = ScoreDistillationPlugin(weight=0.1)
    trained(mnemonics(plugins=[distillation]), 1)
    with pytest.raises(ValueError, match="'ScoreDistillationPlugin'.*Mnemonics brings"):
        mnemonics(plugins=[distillation], distillation="icarl")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: toy_model(cosine=False), "wanted a CosineClassifier"),
        (lambda: nn.Linear(4, 2), "does not expose its features"),
        (toy_model, "has no Conv2d layer; wanted at least one"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_at_construction(model, message):
    with pytest.raises(ValueError, match=message):
        mnemonics(model=model())


def test_a_model_without_convolutions_learns_without_transfer():
    trained(mnemonics(model=toy_model(), weight_transfer=False), 2)


def test_figures_without_exemplars_are_refused():
    with pytest.raises(ValueError, match="no exemplar is known as it was selected"):
        mnemonics().figures([])


def test_figures_of_exemplars_of_unknown_origin_are_refused():
    strategy = mnemonics(selection=HerdingBuffer(per_class=4), exemplars_per_class=None)
    trained(strategy, 1)
    assert isinstance(strategy.buffer, MnemonicsBuffer) and strategy.buffer.images()
    with pytest.raises(ValueError, match="no exemplar is known as it was selected"):
        strategy.figures([])
