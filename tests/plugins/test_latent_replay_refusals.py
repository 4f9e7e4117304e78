"""Everything that latent replay refuses."""

from __future__ import annotations

import pytest
import torch
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.supervised import Naive
from cases import (
    N_CLASSES,
    Images,
    build,
    task_model,
    toy_benchmark,
    toy_model,
)
from latent_hosts import SHAPE, hosted, plugin_for, stream_of
from torch import nn
from torchvision.transforms import RandomHorizontalFlip

from avalanche_ext.plugins import LatentReplayPlugin


def test_random_transforms_are_refused_if_latents_are_cached():
    def noise(x):
        return x + torch.rand(())

    stream = stream_of(lambda data: data.replace_current_transform_group((noise, None)))
    strategy, _ = hosted(cache_current=True)
    with pytest.raises(ValueError, match="random: samples read twice differ"):
        strategy.train(stream[0])
    strategy, _ = hosted()
    strategy.train(stream[0])


def test_latents_that_are_not_finite_are_refused():
    strategy, plugin = hosted()
    with torch.no_grad():
        strategy.model.feature_extractor[1].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or inf"):
        strategy.train(toy_benchmark().train_stream[0])
    assert len(plugin.buffer) == 0


def test_random_transforms_are_found_with_small_batches():
    flips = RandomHorizontalFlip(0.2), None
    stream = stream_of(lambda data: data.replace_current_transform_group(flips))
    for seed in range(5):
        torch.manual_seed(seed)
        strategy, _ = hosted(cache_current=True, host_options={"train_mb_size": 2})
        with pytest.raises(ValueError, match="random: samples read twice differ"):
            strategy.train(stream[0])


def test_latent_that_is_not_finite_nor_chosen_is_refused_in_8_bits():
    def one(x):
        return x / 0 if bool((x == first).all()) else x

    first = toy_benchmark("new").train_stream[0].dataset[0][0]
    stream = stream_of(lambda data: data.replace_current_transform_group((one, None)))
    strategy, plugin = hosted(latent_dtype="uint8", memory_size=1)
    plugin.buffer.choose = lambda n, experience: torch.tensor([n - 1])
    with pytest.raises(ValueError, match="latents hold NaN or inf"):
        strategy.train(stream[0], shuffle=False)


@pytest.mark.parametrize("other", [plugin_for, ReplayPlugin])
def test_another_replay_beside_it_is_refused(other):
    strategy, _ = hosted(other())
    with pytest.raises(ValueError, match="wanted one LatentReplayPlugin"):
        strategy.train(toy_benchmark().train_stream[0])


def test_state_of_something_else_is_refused():
    with pytest.raises(ValueError, match="state is without buffer"):
        plugin_for().load_state_dict({}, [])


def test_batches_too_small_for_old_and_new_are_refused():
    strategy, _ = hosted(host_options={"train_mb_size": 1})
    with pytest.raises(ValueError, match="train_mb_size is 1; wanted at least 2"):
        strategy.train(toy_benchmark().train_stream[0])


def test_published_rules_refuse_what_they_cannot_do():
    strategy, _ = hosted(order="published", memory_size=2000)
    stream = toy_benchmark().train_stream
    strategy.train(stream[0])
    message = "memory_size is 2000, train_mb_size 16 .* divide by zero.*'shuffled'"
    with pytest.raises(ValueError, match=message):
        strategy.train(stream[1])
    strategy, _ = hosted(replacement="published", memory_size=200)
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
    strategy, _ = hosted()
    strategy.train(toy_benchmark("new").train_stream[0])
    with pytest.raises(ValueError, match="batches have 3 fields, unlike"):
        strategy.train(toy_benchmark("old").train_stream[1])


def test_model_is_probed_at_once_or_when_it_has_classes():
    close = "close names are feature_extractor.3"
    with pytest.raises(ValueError, match=f"{close}.*; the model can be cut at feature"):
        plugin_for(layer="features_extractor.3")
    with pytest.raises(ValueError, match=f"{close}[^;]*$"):
        plugin_for(task_model(), layer="features_extractor.3")
    with pytest.raises(ValueError, match="nothing to train above"):
        plugin_for(layer="train_classifier")
    with pytest.raises(ValueError, match="cannot run on inputs of shape"):
        plugin_for(input_shape=(1, 3, 3))
    later = task_model()
    strategy, plugin = hosted(model=later, layer="train_classifier")
    with pytest.raises(ValueError, match="no classes yet"):
        _ = plugin.cut
    with pytest.raises(ValueError, match="nothing to train above"):
        strategy.train(toy_benchmark().train_stream[0])


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
        ({"memory_size": -1}, "memory_size is -1"),
        ({"latent_dtype": "int8"}, "^latent_dtype is 'int8'"),
        ({"freeze_first": 2}, "freeze_first is 2"),
        ({"below": "trained"}, "below is 'trained'"),
        ({"order": "random"}, "order is 'random'"),
        ({"replacement": "oldest"}, "replacement is 'oldest'"),
        ({"cache_current": "yes"}, "cache_current is 'yes'"),
        ({"cache_current": True, "below": "adapt"}, "wanted one of them"),
        ({"input_shape": (1, -3)}, r"input_shape is \(1, -3\)"),
        ({"input_shape": 16}, r"input_shape is 16; wanted a shape such as \(3, 32, 32"),
        ({"layer": 5}, "latent_layer is 5; wanted a str"),
        ({"model": "net"}, "model is 'net'; wanted a Module"),
        ({"generator": 1}, "generator is 1"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plugin_for(**options)


def test_images_of_the_toy_stream_are_of_the_shape_used_here():
    assert Images(1, 0)[0][0].shape == SHAPE
