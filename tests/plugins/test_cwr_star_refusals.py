"""What CWR* refuses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from cases import N_CLASSES, naive_with, task_model, toy_benchmark, toy_extractor
from torch import nn

from avalanche_ext.models import CosineClassifier, FeatureClassifier
from avalanche_ext.plugins import CWRStarPlugin


def a_model(n_outputs=N_CLASSES):
    return FeatureClassifier(toy_extractor(), nn.Linear(8, n_outputs))


def trained(*plugins, model, n=2):
    strategy = naive_with(*plugins, model=model)
    strategy.train(toy_benchmark().train_stream[:n])
    return strategy


class Overwrite(SupervisedPlugin):
    def __init__(self, callback, change):
        super().__init__()
        setattr(self, callback, lambda strategy, **kwargs: change(strategy.model))


def replace_head(model):
    model.train_classifier = nn.Linear(8, N_CLASSES)


def break_head(model):
    model.train_classifier.weight.data[0, 0] = torch.inf


LOST = SimpleNamespace(labels=torch.tensor([5]))


@pytest.mark.parametrize(
    ("plugins", "model", "message"),
    [
        ([CWRStarPlugin("fc")], a_model(), "head is 'fc'; wanted the name of a linear"),
        ([CWRStarPlugin()], task_model(), "the last layer of .* a ParameterList; want"),
        (
            [CWRStarPlugin("feature_extractor.4")],
            a_model(),
            "'feature_extractor.4' has 8 outputs, the model 6; wanted the layer",
        ),
        (
            [CWRStarPlugin()],
            FeatureClassifier(toy_extractor(), CosineClassifier(8)),
            "the last layer of FeatureClassifier with weights is .* wanted a linear",
        ),
        ([CWRStarPlugin()], a_model(n_outputs=1), "labels are from 0 to 1; wanted 0"),
        ([CWRStarPlugin(buffer=LOST)], a_model(), r"the memory holds classes \[5\]"),
        (
            [CWRStarPlugin(), ReplayPlugin(12)],
            a_model(),
            "neither in the data nor in the memory .* wanted what is replayed as buffer",
        ),
        (
            [Overwrite("before_training_iteration", replace_head), CWRStarPlugin()],
            a_model(),
            "the layer 'train_classifier' was replaced within an experience",
        ),
        (
            [Overwrite("after_training_exp", break_head), CWRStarPlugin()],
            a_model(),
            "the weights of 'train_classifier' are not finite after experience 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused(plugins, model, message):
    with pytest.raises(ValueError, match=message):
        trained(*plugins, model=model)


def test_a_head_that_shrank_is_refused():
    cwr = CWRStarPlugin()
    strategy = trained(cwr, model=a_model(), n=1)
    strategy.model.train_classifier = nn.Linear(8, 4)
    with pytest.raises(ValueError, match=r"shape \(4, 8\); wanted one that grew from"):
        strategy.train(toy_benchmark().train_stream[1])


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="repeat is 'always'; wanted one of 'once'"):
        CWRStarPlugin(repeat="always")
    with pytest.raises(ValueError, match="mask_unseen is 'yes'; wanted one of"):
        CWRStarPlugin(mask_unseen="yes")
    with pytest.raises(ValueError, match=r"buffer is \[1\]; wanted an object with lab"):
        CWRStarPlugin(buffer=[1])
