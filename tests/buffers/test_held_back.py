"""Validation data are taken out of those trained, evenly, or out of a stream."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from avalanche.benchmarks.utils import concat_datasets
from cases import APIS, toy_benchmark
from hypothesis import given
from hypothesis import strategies as st

from avalanche_ext.buffers.held_back import HeldBack, stratified_split


def adapted(experience):
    """A strategy whose data are adapted, as far as is looked at."""
    data = experience.dataset.train()
    return SimpleNamespace(experience=experience, adapted_dataset=data)


def images(data):
    return [tuple(item[0].flatten().tolist()) for item in data]


def labels(data):
    return [int(y) for y in data.targets]


@pytest.mark.parametrize("api", APIS)
def test_a_share_of_each_class_moves_from_training_to_validation(api):
    for experience in toy_benchmark(api).train_stream:
        strategy = adapted(experience)
        whole = images(experience.dataset)
        held = HeldBack(0.25).take(strategy)
        own = sorted(set(labels(experience.dataset)))
        assert [labels(held).count(label) for label in own] == [6, 6]
        assert [labels(strategy.adapted_dataset).count(c) for c in own] == [18, 18]
        both = images(held) + images(strategy.adapted_dataset)
        assert sorted(both) == sorted(whole)
        assert len(experience.dataset) == 48  # itself as it was


@pytest.mark.parametrize("api", APIS)
def test_what_other_plugins_have_appended_stays(api):
    first, second = toy_benchmark(api).train_stream[:2]
    strategy = adapted(second)
    memory = first.dataset.subset(range(9))
    strategy.adapted_dataset = concat_datasets([second.dataset, memory]).train()
    held = HeldBack(0.5).take(strategy)
    left = images(strategy.adapted_dataset)
    assert left[24:] == images(memory)
    assert sorted(left[:24] + images(held)) == sorted(images(second.dataset))


def test_the_draw_follows_its_generator_and_leaves_torchs_own_alone():
    experience = toy_benchmark().train_stream[0]

    def held(seed):
        own = torch.Generator().manual_seed(seed)
        return images(HeldBack(0.25, generator=own).take(adapted(experience)))

    state = torch.random.get_rng_state()
    assert held(1) == held(1) != held(2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_whoever_comes_second_gets_the_same_until_they_are_released():
    first, second = toy_benchmark().train_stream[:2]
    shared, strategy = HeldBack(0.25), adapted(first)
    held, left = shared.take(strategy), strategy.adapted_dataset
    assert shared.take(strategy) is held and strategy.adapted_dataset is left
    again = shared.take(adapted(first))  # the experience comes back
    assert len(again) == len(held) and images(again) != images(held)
    assert labels(shared.take(adapted(second))) == [2] * 6 + [3] * 6
    shared.release()
    assert shared._taken is None


@pytest.mark.parametrize("fraction", [0, 0.01])
def test_where_none_are_held_back_all_are_used_with_a_warning(fraction):
    experience = toy_benchmark().train_stream[0]
    strategy = adapted(experience)
    message = f"^validation_fraction {fraction} of 48 samples are none: training"
    with pytest.warns(UserWarning, match=message):
        held = HeldBack(fraction).take(strategy)
    assert images(held) == images(experience.dataset)
    assert images(strategy.adapted_dataset) == images(experience.dataset)


@pytest.mark.parametrize("api", APIS)
def test_of_a_stream_the_experience_of_the_same_number_is_taken(api):
    benchmark = toy_benchmark(api)
    for k, experience in enumerate(benchmark.train_stream):
        strategy = adapted(experience)
        data = strategy.adapted_dataset
        held = HeldBack(stream=benchmark.test_stream).take(strategy)
        assert held is benchmark.test_stream[k].dataset
        assert strategy.adapted_dataset is data  # nothing to be taken out


def test_streams_that_do_not_fit_are_refused():
    train, test = (getattr(toy_benchmark(), f"{n}_stream") for n in ("train", "test"))
    with pytest.raises(
        ValueError, match=r"has \[0, 1\] as classes of .* 1; wanted \[2"
    ):
        HeldBack(stream=[test[0], test[0]]).take(adapted(train[1]))
    with pytest.raises(ValueError, match=r"has None as classes of .* 2; wanted \[4, 5"):
        HeldBack(stream=test[:2]).take(adapted(train[2]))


def test_data_changed_by_others_are_refused():
    first, second = toy_benchmark().train_stream[:2]
    for data in (
        concat_datasets([first.dataset, second.dataset]),
        second.dataset.subset(range(20)),
    ):
        strategy = SimpleNamespace(experience=second, adapted_dataset=data)
        with pytest.raises(ValueError, match="does not begin with the experience's"):
            HeldBack(0.2).take(strategy)
        assert strategy.adapted_dataset is data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": -0.1}, "validation_fraction is -0.1; wanted a number from 0 to"),
        ({"fraction": 1}, "validation_fraction is 1; wanted less, to train on"),
        ({"fraction": "some"}, "validation_fraction is 'some'; wanted a number"),
        ({"generator": 3}, "generator is 3; wanted a Generator"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HeldBack(**options)


@given(
    st.lists(st.sampled_from([0, 3, 41]), max_size=60),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 5),
)
def test_a_split_is_even_disjoint_and_leaves_each_class_one(targets, fraction, seed):
    generator = torch.Generator().manual_seed(seed)
    stay, drawn = (
        part.tolist() for part in stratified_split(targets, fraction, generator)
    )
    assert sorted(stay + drawn) == list(range(len(targets)))
    assert stay == sorted(stay) and drawn == sorted(drawn)
    for label in set(targets):
        n = targets.count(label)
        left = sum(targets[i] == label for i in stay)
        assert left >= 1
        assert abs((n - left) - fraction * n) <= 0.5 or left == 1


def test_every_sample_may_be_drawn():
    drawn = set()
    for seed in range(40):
        own = torch.Generator().manual_seed(seed)
        drawn |= set(stratified_split([1] * 8, 0.25, own)[1].tolist())
    assert drawn == set(range(8))
