"""ReReLRP where there is too little of something."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import N_CLASSES
from rerelrp_hosts import cnn, evaluator, mlp, rerelrp, shares, stream_of, trained
from torch import nn


def full(**options):
    """A network of which the first experience needs every unit."""
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, N_CLASSES)
    )
    return rerelrp(model, min_units=4, train_epochs=8, features=4, **options)


def test_a_full_network_still_learns_new_classes_with_one_warning():
    stream, strategy = stream_of(), full(evaluator=evaluator())
    strategy.train(stream.train_stream[0])
    before = strategy.model[1].weight.clone()
    head = strategy.model[3].weight.clone()
    with pytest.warns(
        match="no unit is free, only the head is trained: .*first_fro"
    ) as w:
        strategy.train(stream.train_stream[1])
    assert len([each for each in w if "no unit is free" in str(each.message)]) == 1
    assert torch.equal(strategy.model[1].weight, before)
    assert torch.equal(strategy.model[3].weight[:2], head[:2])
    assert not torch.equal(strategy.model[3].weight[2:4], head[2:4])
    assert shares(strategy.eval(stream.test_stream[:2]))["TaskAware_Acc"] > 0.6


def test_a_full_network_is_refused_if_asked_and_unchanged():
    strategy = trained(full(strict_capacity=True), n=1)
    before = copy.deepcopy(strategy.model)
    with pytest.raises(ValueError, match="no unit is free"):
        strategy.train(stream_of().train_stream[1])
    for name, value in before.state_dict().items():
        assert torch.equal(strategy.model.state_dict()[name], value)
    strategy.eval(stream_of().test_stream)


def test_at_chance_every_layer_keeps_its_fewest_units_with_a_warning():
    model = mlp()
    nn.init.zeros_(model.train_classifier.weight)
    nn.init.zeros_(model.train_classifier.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    strategy = rerelrp(model, optimizer=optimizer, min_units=2)
    with pytest.warns(match="50.0 % of 2 classes, no better than chance"):
        trained(strategy, n=1)
    [keep] = strategy._freezing.submodels.keeps
    assert {int(units.sum()) for units in keep.values()} == {2}


def test_fewer_reference_samples_than_wanted_are_all_taken_with_a_warning():
    strategy = rerelrp(reference_per_class=67)
    with pytest.warns(
        match=r"67 reference .* have fewer, and give all: {0: 17, 1: 17}"
    ):
        trained(strategy, n=1)
    assert len(strategy._detectors.labels[0]) == 34


def test_so_few_reference_samples_that_a_forest_is_constant_are_told():
    strategy = trained(rerelrp(reference_per_class=2, evaluator=evaluator()), n=1)
    with pytest.warns(match="4 reference samples of experience 0; wanted at least 10"):
        strategy.train(stream_of().train_stream[1])
    strategy.eval(stream_of().test_stream)


def test_more_features_than_units_are_told():
    strategy = rerelrp(features=40)
    with pytest.warns(match="features is 40, but there are 26 units"):
        trained(strategy, n=1)


def test_without_validation_samples_training_data_are_used_with_a_warning():
    strategy = rerelrp(validation_fraction=0)
    with pytest.warns(match="validation_fraction 0 of 48 samples are none"):
        trained(strategy, n=1)


def test_validation_samples_so_few_that_none_may_be_lost_are_told():
    strategy = rerelrp(acc_drop=5)
    with pytest.warns(
        match="acc_drop is 5 points, one of 14 validation samples is 7.1"
    ):
        trained(strategy, n=1)


def test_a_validation_stream_of_other_classes_is_refused():
    other = stream_of([2, 3, 0, 1, 4, 5]).test_stream
    with pytest.raises(
        ValueError, match=r"valid_stream has \[2, 3\] as classes of exp"
    ):
        trained(rerelrp(valid_stream=other), n=1)
    short = stream_of().test_stream[:1]
    with pytest.raises(ValueError, match="valid_stream has None as classes of exp.* 1"):
        trained(rerelrp(valid_stream=short), n=2)


def _no_warning():
    return warnings.catch_warnings(action="ignore", category=UserWarning)


class Break(SupervisedPlugin):
    """Of the second experience."""

    def after_training_epoch(self, strategy, **kwargs):
        if strategy.clock.train_exp_counter == 1:
            strategy.model.train_classifier.weight.data[2:] = torch.nan


@pytest.mark.parametrize("selection", ["herding", "random"])
def test_numbers_that_are_not_finite_are_refused(selection):
    strategy = rerelrp(plugins=[Break()], train_epochs=1, reference_selection=selection)
    with _no_warning(), pytest.raises(ValueError, match="not finite"):
        trained(strategy, n=2)
    assert len(strategy._freezing.submodels) == 1


def test_equal_relevances_are_pruned_in_one_step():
    model = cnn()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    strategy = rerelrp(model, optimizer=optimizer, train_epochs=1)
    with _no_warning():
        trained(strategy, n=1)
    assert 2 <= len(strategy._freezing.accuracies) < 24
