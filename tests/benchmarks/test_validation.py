"""Images that a stream holds back, and what looks at them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin

from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.streams import STREAMS, make_stream
from benchmarks.streams.data import first_of_each_class, hold_back
from benchmarks.training.validation import ValidationStream

ORDER = {"class_order": "natural", "task_labels": True}


def digits(fraction=0.2, seed=0, few=20):
    benchmark = make_stream("split_digits", **ORDER)
    return hold_back(first_of_each_class(benchmark, few), fraction, seed)


def images(data):
    """Bytes of each image, to tell them apart."""
    return [x.numpy().tobytes() for x, *_ in data]


def test_what_is_held_back_and_what_stays_are_the_images_there_were():
    whole = first_of_each_class(make_stream("split_digits", **ORDER), 20)
    made = digits()
    streams = made.train_stream, made.streams["valid"], whole.train_stream
    for stay, held, both in zip(*streams, strict=True):
        parts = images(stay.dataset), images(held.dataset)
        assert sorted([*parts[0], *parts[1]]) == sorted(images(both.dataset))
        assert [len(p) for p in parts] == [32, 8]
        assert list(held.dataset.targets).count(held.dataset.targets[0]) == 4
        assert held.dataset.targets_task_labels.uniques == {
            both.current_experience,
        }
    assert len(made.test_stream) == 5


def test_the_draw_depends_on_the_seed_alone():
    first, again, other = (
        [images(e.dataset) for e in digits(seed=seed).train_stream]
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_too_few_images_to_hold_any_back_are_refused():
    with pytest.raises(UsageError, match="4 images of an experience are too few"):
        digits(few=2)


@pytest.mark.parametrize("past", [False, True])
def test_validation_is_of_this_experience_or_of_all_so_far(past):
    benchmark = digits()
    taken = ValidationStream(past=past)
    strategy = type("Strategy", (), {})()
    for t, experience in enumerate(benchmark.train_stream):
        strategy.experience = experience
        valid = list(benchmark.streams["valid"])
        wanted = [i for e in valid[0 if past else t : t + 1] for i in images(e.dataset)]
        assert images(taken.take(strategy)) == wanted


def test_a_stream_that_holds_nothing_back_is_refused():
    strategy = type("Strategy", (), {})()
    strategy.experience = make_stream("split_digits").train_stream[0]
    with pytest.raises(UsageError, match="split_tiny_imagenet_validated"):
        ValidationStream().take(strategy)


def test_no_validation_image_becomes_a_memorable_point(monkeypatch):
    """And training stops by the loss on them."""
    info = replace(STREAMS["split_digits"], validation_fraction=0.2)
    monkeypatch.setitem(STREAMS, "split_digits", info)
    recipe = RECIPES["ewc_fr_replay_tiny_imagenet"]
    small = {**recipe.smoke, "early_stopping": True, "train_epochs": 13}
    small |= {"images_per_class": 20, "memory_size": 32}
    setup = recipe.setup(**small)
    benchmark = make_stream(setup.stream, **setup.stream_options)
    torch.manual_seed(0)
    strategy = setup.make_strategy(
        evaluator=EvaluationPlugin(), device=torch.device("cpu")
    )
    assert type(strategy.plugins[0]).__name__ == "PlateauPlugin"
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience)
        assert len(strategy.plugins[0].losses) == 3  # from the 11th epoch on
    memory = set(images(strategy.buffer.buffer.eval()))
    held = {i for e in benchmark.streams["valid"] for i in images(e.dataset)}
    assert len(memory) == 64 and not memory & held
    assert strategy.buffer.data_sizes == [32, 32]
