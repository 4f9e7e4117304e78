"""What EWC of the left-out points refuses, and its options about data."""

from __future__ import annotations

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from cases import APIS, SIDE, Images, naive_with, task_model, toy_benchmark, toy_model

from avalanche_ext.buffers import MemorablePastBuffer
from avalanche_ext.functional.fisher import diagonal_fisher
from avalanche_ext.plugins import (
    ExemplarReplayPlugin,
    FunctionalPriorPlugin,
    LeftOutEWCPlugin,
)


def filling(buffer):
    return {
        "FunctionalPriorPlugin": FunctionalPriorPlugin(buffer),
        "ExemplarReplayPlugin": ExemplarReplayPlugin(buffer),
        "ReplayPlugin": ReplayPlugin(buffer.max_size, storage_policy=buffer),
    }


FILLING = list(filling(MemorablePastBuffer(6)))


@pytest.mark.parametrize("name", FILLING)
def test_a_memory_filled_too_late_is_refused_before_any_work(name):
    buffer = MemorablePastBuffer(6)
    ewc = LeftOutEWCPlugin(buffer=buffer)
    strategy = naive_with(ewc, filling(buffer)[name])
    before = [p.clone() for p in strategy.model.parameters()]
    with pytest.raises(
        ValueError, match=f"{name}, which fills the memory, comes after"
    ):
        strategy.train(toy_benchmark().train_stream)
    assert all(torch.equal(a, b) for a, b in zip(strategy.model.parameters(), before))


@pytest.mark.parametrize("name", FILLING)
def test_whatever_fills_the_memory_first_has_its_points_left_out(name):
    buffer = MemorablePastBuffer(48)
    ewc = LeftOutEWCPlugin(buffer=buffer)
    fills = filling(buffer)[name]
    strategy = naive_with(fills, ewc, model=toy_model(cosine=False))
    strategy.train(toy_benchmark().train_stream[:1])
    assert ewc.importance and all((h == 0).all() for h in ewc.importance.values())


def test_the_order_does_not_matter_to_another_memory():
    prior = FunctionalPriorPlugin(MemorablePastBuffer(6))
    for ewc in (LeftOutEWCPlugin(), LeftOutEWCPlugin(buffer=MemorablePastBuffer(6))):
        strategy = naive_with(ewc, prior, model=toy_model(cosine=False))
        strategy.train(toy_benchmark().train_stream[:1])
        assert ewc.anchor


def test_after_a_memory_is_given_up_all_points_count():
    buffer = MemorablePastBuffer(48)
    ewc = LeftOutEWCPlugin(buffer=buffer)
    prior = FunctionalPriorPlugin(buffer)
    strategy = naive_with(prior, ewc, model=task_model())
    stream = toy_benchmark().train_stream
    strategy.train(stream[0])
    buffer.resize(strategy, 0)
    strategy.train(stream[1])
    assert [len(p) for p in buffer.positions] == [0, 0]
    assert all(h.abs().sum() > 0 for h in ewc.importance.values())


@pytest.mark.parametrize("transform", ["eval", "train"])
def test_the_fisher_sees_the_images_it_is_told_to(transform):
    data = as_classification_dataset(
        Images(4, seed=1), transform_groups={"train": (torch.neg, None), "eval": None}
    )
    ewc = LeftOutEWCPlugin(fisher_transform=transform)
    model = toy_model(cosine=False)
    naive_with(ewc, model=model).train(
        benchmark_from_datasets(train=[data]).train_stream
    )
    sign = -1 if transform == "train" else 1
    x, y = Images(4, seed=1).tensors
    wanted = diagonal_fisher(model.eval(), sign * x, y)
    other = diagonal_fisher(model.eval(), -sign * x, y)
    for name, h in ewc.importance.items():
        torch.testing.assert_close(h, wanted[name], rtol=1e-4, atol=1e-6)
        assert not torch.allclose(h, other[name], rtol=1e-2)
    assert x.shape[-1] == SIDE


class Break(SupervisedPlugin):
    """Puts a number into the extractor at the first chance in an experience."""

    def __init__(self, value, experience, callback):
        super().__init__()
        self.value, self.experience = value, experience
        setattr(self, callback, self.act)

    def act(self, strategy, **kwargs):
        if strategy.clock.train_exp_counter == self.experience:
            strategy.model.feature_extractor[1].weight.data.fill_(self.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("experience", [0, 1])
def test_a_fisher_that_is_not_finite_is_reported_by_experience_and_name(
    value, experience
):
    breaking = Break(value, experience, "after_training_epoch")
    strategy = naive_with(LeftOutEWCPlugin(), breaking, train_epochs=1)
    message = f"Fisher of experience {experience} is not finite for feature_extractor"
    with pytest.raises(ValueError, match=message):
        strategy.train(toy_benchmark().train_stream)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_penalty_that_is_not_finite_is_reported_by_its_name(value):
    strategy = naive_with(LeftOutEWCPlugin(), Break(value, 1, "before_forward"))
    with pytest.raises(ValueError, match="the penalty of EWC is not finite; wanted"):
        strategy.train(toy_benchmark().train_stream)


def test_all_outputs_need_one_classifier_of_all_tasks():
    strategy = naive_with(LeftOutEWCPlugin(fisher_outputs="all"))
    message = "classifier of FeatureClassifier is a CosineClassifier; wanted a TaskCl"
    with pytest.raises(ValueError, match=message):
        strategy.train(toy_benchmark().train_stream)


@pytest.mark.parametrize("strength", [0.0, [0.0], [0, None]])
def test_with_strength_zero_nothing_is_computed(strength):
    ewc = LeftOutEWCPlugin(strength)
    naive_with(ewc).train(toy_benchmark(APIS[1]).train_stream)
    assert ewc.importance == {} and ewc.anchor == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1}, "strength is -1; wanted a number, at least 0"),
        ({"strength": None}, "strength is None; wanted a number"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"strength": float("inf")}, "strength is inf"),
        ({"strength": "1"}, "wanted a number"),
        ({"strength": []}, r"strengths are \[\] and the experience 1; wanted a number"),
        ({"strength": [None, 1.0]}, "wanted a number first"),
        ({"strength": [1.0, -2.0]}, r"strength\[1\] is -2.0; wanted a number"),
        ({"prior_precision": -0.1}, "prior_precision is -0.1"),
        ({"fisher": "exact"}, "'exact'; wanted one of 'empirical', 'ggn', 'none'"),
        ({"fisher_outputs": "own"}, "'own'; wanted one of 'head', 'all'"),
        ({"fisher_transform": 1}, "fisher_transform is 1; wanted one of 'eval'"),
        ({"buffer": [1]}, r"buffer is \[1\]; wanted a MemorablePastBuffer"),
        ({"chunk": 0}, "chunk is 0; wanted a whole number, at least 1"),
    ],
)
def test_bad_arguments_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        LeftOutEWCPlugin(**options)
