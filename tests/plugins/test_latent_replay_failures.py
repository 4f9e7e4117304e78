"""Interruptions, tiny experiences and unusual models of latent replay."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskModule
from cases import (
    toy_benchmark,
    toy_extractor,
)
from latent_hosts import SHAPE, assert_as_found, hosted, stream_of

from avalanche_ext.models import FeatureClassifier


class Raise(SupervisedPlugin):
    """An error in one callback of the fifth batch of all."""

    def __init__(self, callback):
        super().__init__()
        self.armed, self.n = True, 0
        setattr(self, callback, self.strike)

    def strike(self, strategy, **kwargs):
        self.n += 1
        if self.armed and self.n == 5:
            raise RuntimeError("no more memory")


class Stop(SupervisedPlugin):
    """Stops in the second batch of every experience."""

    def after_training_iteration(self, strategy, **kwargs):
        if strategy.clock.train_exp_iterations == 1:
            strategy.stop_training()

    def before_training_exp(self, strategy, **kwargs):
        strategy._stop_training = False


@pytest.mark.parametrize(
    "callback", ["before_forward", "after_forward", "after_update"]
)
def test_training_goes_on_after_an_error(callback):
    strategy, plugin = hosted(error := Raise(callback))
    stream, test = toy_benchmark().train_stream, toy_benchmark().test_stream
    with pytest.raises(RuntimeError, match="no more memory"):
        strategy.train(stream)
    error.armed = False
    strategy.eval(test)
    assert len(strategy.model(torch.zeros(2, *SHAPE))) == 2
    strategy.train(stream[1])
    assert_as_found(strategy.model)
    assert len(plugin.buffer) == 30


def test_error_inside_the_model_leaves_no_latents_behind():
    strategy, _ = hosted()
    stream = toy_benchmark().train_stream
    strategy.train(stream[0])

    def fail(*_):
        raise RuntimeError("no more memory")

    handle = strategy.model.feature_extractor[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="no more memory"):
        strategy.train(stream[1])
    handle.remove()
    assert len(strategy.model(torch.zeros(2, *SHAPE))) == 2


@pytest.mark.parametrize("options", [{}, {"cache_current": True}])
def test_memory_is_filled_although_training_stopped_in_the_first_epoch(options):
    strategy, plugin = hosted(Stop(), memory_size=60, **options)
    for n, experience in enumerate(toy_benchmark().train_stream):
        strategy.train(experience)
        assert len(plugin.buffer) == min(60, 48 * (n + 1))
        assert plugin.buffer.labels[
            plugin.buffer.experiences == n
        ].unique().tolist() == [
            2 * n,
            2 * n + 1,
        ]
    assert_as_found(strategy.model)


def test_evaluation_inside_an_experience_sees_no_latents():
    strategy, _ = hosted(host_options={"eval_every": 1})
    benchmark = toy_benchmark()
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[benchmark.test_stream])
    assert_as_found(strategy.model)


def test_arguments_of_train_are_accepted():
    strategy, plugin = hosted(memory_resident=False)
    for experience in toy_benchmark().train_stream:
        strategy.train(experience, num_workers=0, shuffle=False, something=3)
    assert len(plugin.buffer) == 30


@pytest.mark.parametrize("size, memory", [(1, 30), (5, 500), (48, 3)])
def test_tiny_experiences_and_memories_are_trained(size, memory):
    strategy, plugin = hosted(memory_size=memory)
    for experience in stream_of(lambda data: data.subset(list(range(size)))):
        strategy.train(experience)
    assert len(plugin.buffer) == min(memory, 3 * size)
    for value in strategy.model.state_dict().values():
        assert value.isfinite().all()


def test_changed_lower_part_makes_latents_stale():
    strategy, _ = hosted()
    stream = toy_benchmark().train_stream
    strategy.train(stream[0])
    with torch.no_grad():
        strategy.model.feature_extractor[1].weight[0, 0] += 1e-4
    with pytest.warns(UserWarning, match="latents are stale"):
        strategy.train(stream[1])
    strategy.train(stream[2])  # said once


def test_changed_head_does_not_make_latents_stale():
    strategy, _ = hosted()
    stream = toy_benchmark().train_stream
    strategy.train(stream[0])
    with torch.no_grad():
        strategy.model.train_classifier.weight += 1
    strategy.train(stream[1])


class Heads(MultiTaskModule):
    """A head a task; Avalanche's own forward() takes the batch apart."""

    def __init__(self):
        super().__init__()
        self.feature_extractor = toy_extractor()
        self.head = MultiHeadClassifier(8)

    def forward_single_task(self, x, task_label):
        return self.head.forward_single_task(self.feature_extractor(x), task_label)


class HeadsTogether(Heads):
    """The same, with the features computed for the whole batch."""

    def forward(self, x, task_labels):
        return self.head(self.feature_extractor(x), task_labels)


def test_models_of_avalanche_with_a_head_a_task_are_trained():
    strategy, plugin = hosted(model=HeadsTogether())
    for experience in toy_benchmark("old_task_labels").train_stream:
        strategy.train(experience)
    assert sorted(plugin.buffer.task_labels.unique().tolist()) == [0, 1, 2]


def test_growing_head_of_avalanche_is_trained():
    model = FeatureClassifier(toy_extractor(), IncrementalClassifier(8))
    strategy, plugin = hosted(model=model)
    for experience in toy_benchmark().train_stream:
        strategy.train(experience)
    assert len(plugin.buffer) == 30
    assert_as_found(model)


def test_model_that_takes_the_batch_apart_is_refused():
    strategy, _ = hosted(model=Heads())
    with pytest.raises(ValueError, match="Heads takes the batch apart by task label"):
        strategy.train(toy_benchmark("old_task_labels").train_stream[0])
