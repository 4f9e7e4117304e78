"""Interruptions, and everything that latent replay refuses."""

from __future__ import annotations

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskModule
from avalanche.training.supervised import Naive
from cases import (
    N_CLASSES,
    SIDE,
    Images,
    build,
    task_model,
    toy_benchmark,
    toy_extractor,
    toy_model,
)
from torch import nn

from avalanche_ext.models import FeatureClassifier
from avalanche_ext.plugins import LatentReplayPlugin

LAYER = "feature_extractor.3"
SHAPE = (1, SIDE, SIDE)


def plugin_for(model=None, layer=LAYER, **options):
    options = {"input_shape": SHAPE, "memory_size": 30, **options}
    return LatentReplayPlugin(model or toy_model(cosine=False), layer, **options)


def made(*others, model=None, host_options=None, **options):
    model = model or toy_model(cosine=False)
    plugin = plugin_for(model, **options)
    strategy = build(
        Naive, model=model, plugins=[plugin, *others], **(host_options or {})
    )
    return strategy, plugin


def stream_of(change):
    """The toy stream with changed data sets."""
    stream = toy_benchmark("new").train_stream
    return benchmark_from_datasets(
        train=[change(e.dataset) for e in stream]
    ).train_stream


def assert_as_found(model):
    for module in model.modules():
        assert module.training
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert all(p.requires_grad for p in model.parameters())


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
    strategy, plugin = made(error := Raise(callback))
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
    strategy, _ = made()
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
    strategy, plugin = made(Stop(), memory_size=60, **options)
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
    strategy, _ = made(host_options={"eval_every": 1})
    benchmark = toy_benchmark()
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[benchmark.test_stream])
    assert_as_found(strategy.model)


def test_arguments_of_train_are_accepted():
    strategy, plugin = made(memory_resident=False)
    for experience in toy_benchmark().train_stream:
        strategy.train(experience, num_workers=0, shuffle=False, something=3)
    assert len(plugin.buffer) == 30


@pytest.mark.parametrize("size, memory", [(1, 30), (5, 500), (48, 3)])
def test_tiny_experiences_and_memories_are_trained(size, memory):
    strategy, plugin = made(memory_size=memory)
    for experience in stream_of(lambda data: data.subset(list(range(size)))):
        strategy.train(experience)
    assert len(plugin.buffer) == min(memory, 3 * size)
    for value in strategy.model.state_dict().values():
        assert value.isfinite().all()


def test_changed_lower_part_makes_latents_stale():
    strategy, _ = made()
    stream = toy_benchmark().train_stream
    strategy.train(stream[0])
    with torch.no_grad():
        strategy.model.feature_extractor[1].weight[0, 0] += 1e-4
    with pytest.warns(UserWarning, match="latents are stale"):
        strategy.train(stream[1])
    strategy.train(stream[2])  # said once


def test_changed_head_does_not_make_latents_stale():
    strategy, _ = made()
    stream = toy_benchmark().train_stream
    strategy.train(stream[0])
    with torch.no_grad():
        strategy.model.train_classifier.weight += 1
    strategy.train(stream[1])


def test_random_transforms_are_refused_if_latents_are_cached():
    def noise(x):
        return x + torch.rand(())

    stream = stream_of(lambda data: data.replace_current_transform_group((noise, None)))
    strategy, _ = made(cache_current=True)
    with pytest.raises(ValueError, match="random: samples read twice differ"):
        strategy.train(stream[0])
    strategy, _ = made()
    strategy.train(stream[0])


def test_latents_that_are_not_finite_are_refused():
    strategy, plugin = made()
    with torch.no_grad():
        strategy.model.feature_extractor[1].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or inf"):
        strategy.train(toy_benchmark().train_stream[0])
    assert len(plugin.buffer) == 0


def test_batches_too_small_for_old_and_new_are_refused():
    strategy, _ = made(host_options={"train_mb_size": 1})
    with pytest.raises(ValueError, match="train_mb_size is 1; wanted at least 2"):
        strategy.train(toy_benchmark().train_stream[0])


def test_published_rules_refuse_what_they_cannot_do():
    strategy, _ = made(order="published", memory_size=2000)
    stream = toy_benchmark().train_stream
    strategy.train(stream[0])
    with pytest.raises(ValueError, match="divide by zero"):
        strategy.train(stream[1])
    strategy, _ = made(replacement="published", memory_size=200)
    few = stream_of(lambda data: data.subset(list(range(20))))
    strategy.train(few[0])
    with pytest.raises(ValueError, match="holds 20 latents, .* replace 48"):
        strategy.train(toy_benchmark("new").train_stream[1])


def test_another_model_is_refused():
    model = toy_model(cosine=False)
    strategy = build(Naive, model=model, plugins=[plugin_for()])
    with pytest.raises(ValueError, match="trains another FeatureClassifier"):
        strategy.train(toy_benchmark().train_stream[0])


def test_task_labels_that_come_later_are_refused():
    strategy, _ = made()
    strategy.train(toy_benchmark("new").train_stream[0])
    with pytest.raises(ValueError, match="batches have 3 fields, unlike"):
        strategy.train(toy_benchmark("old").train_stream[1])


def test_model_is_probed_at_once_or_when_it_has_classes():
    with pytest.raises(ValueError, match="close names are feature_extractor.3"):
        plugin_for(layer="features_extractor.3")
    with pytest.raises(ValueError, match="close names are feature_extractor.3"):
        plugin_for(task_model(), layer="features_extractor.3")
    with pytest.raises(ValueError, match="nothing to train above"):
        plugin_for(layer="train_classifier")
    with pytest.raises(ValueError, match="cannot run on inputs of shape"):
        plugin_for(input_shape=(1, 3, 3))
    later = task_model()
    strategy, plugin = made(model=later, layer="train_classifier")
    with pytest.raises(ValueError, match="no classes yet"):
        _ = plugin.cut
    with pytest.raises(ValueError, match="nothing to train above"):
        strategy.train(toy_benchmark().train_stream[0])


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
    strategy, plugin = made(model=HeadsTogether())
    for experience in toy_benchmark("old_task_labels").train_stream:
        strategy.train(experience)
    assert sorted(plugin.buffer.task_labels.unique().tolist()) == [0, 1, 2]


def test_model_that_takes_the_batch_apart_is_refused():
    strategy, _ = made(model=Heads())
    with pytest.raises(ValueError, match="Heads takes the batch apart by task label"):
        strategy.train(toy_benchmark("old_task_labels").train_stream[0])


def test_growing_head_of_avalanche_is_trained():
    model = FeatureClassifier(toy_extractor(), IncrementalClassifier(8))
    strategy, plugin = made(model=model)
    for experience in toy_benchmark().train_stream:
        strategy.train(experience)
    assert len(plugin.buffer) == 30
    assert_as_found(model)


def test_inputs_of_another_size_are_refused():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, N_CLASSES),
    )
    plugin = LatentReplayPlugin(model, "1", input_shape=SHAPE, memory_size=30)
    strategy = build(Naive, model=model, plugins=[plugin])
    strategy.train(toy_benchmark("new").train_stream[0])
    smaller = (lambda x: x[:, :5, :5], None)
    stream = stream_of(lambda data: data.replace_current_transform_group(smaller))
    with pytest.raises(ValueError, match=r"shape \(4, 3, 3\); wanted \(4, 4, 4\)"):
        strategy.train(stream[1])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"memory_size": -1}, "max_size is -1"),
        ({"latent_dtype": "int8"}, "dtype is 'int8'"),
        ({"freeze_first": 2}, "freeze_first is 2"),
        ({"below": "trained"}, "below is 'trained'"),
        ({"order": "random"}, "order is 'random'"),
        ({"replacement": "oldest"}, "replacement is 'oldest'"),
        ({"cache_current": "yes"}, "cache_current is 'yes'"),
        ({"cache_current": True, "below": "adapt"}, "wanted one of them"),
        ({"input_shape": (1, -3)}, r"input_shape is \(1, -3\)"),
        ({"generator": 1}, "generator is 1"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plugin_for(**options)


def test_images_of_the_toy_stream_are_of_the_shape_used_here():
    assert Images(1, 0)[0][0].shape == SHAPE
