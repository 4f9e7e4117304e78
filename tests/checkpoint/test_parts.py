"""Order of sets, and references to samples of the stream."""

from __future__ import annotations

import random

import pytest
import torch
from avalanche.benchmarks.utils import as_classification_dataset
from cases import SIDE, Images

from avalanche_ext.checkpoint.insertion import insertion_order
from avalanche_ext.checkpoint.kinds import StateError
from avalanche_ext.checkpoint.samples import StreamSamples


@pytest.mark.parametrize(
    "history", [[[523, 17], [999, 491, 8]], [[8, 0], [72, 40, 104]]]
)
def test_sets_come_out_in_their_old_order(history):
    numbers: set[int] = set()
    for some in history:
        numbers.update(some)
    anew = set()
    for number in insertion_order(numbers):
        anew.add(number)
    assert list(anew) == list(numbers)


def test_order_of_a_set_is_found_where_copying_it_fails():
    rng, found = random.Random(0), 0
    for _ in range(100):
        numbers: set[int] = set()
        for number in rng.sample(range(1000), 12):
            numbers.add(number)
        in_order = list(numbers)
        found += list(set(in_order)) != in_order
        assert list(set(insertion_order(numbers))) == in_order
    assert found > 10  # else the test shows nothing


class Permutation:
    def __init__(self, rng: torch.Generator) -> None:
        self.order = torch.randperm(SIDE * SIDE, generator=rng)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten()[self.order].view(x.shape)


def test_references_tell_experiences_of_the_same_images_apart(rng):
    data = as_classification_dataset(Images(4, seed=1))
    experiences = []
    for _ in range(3):
        groups = {"train": (Permutation(rng), None), "eval": (None, None)}
        permuted = as_classification_dataset(Images(4, seed=1), transform_groups=groups)
        permuted._flat_data._datasets = data._flat_data._datasets
        experience = type("Experience", (), {"dataset": permuted})()
        experiences.append(experience)
    samples = StreamSamples(experiences)
    parts = [e.dataset.subset([7, 3]) for e in experiences]
    mixed = parts[2].concat(parts[0]).concat(parts[1]).subset([5, 0, 2, 1])
    reference = samples.refer(mixed.eval())
    assert reference["rows"].tolist() == [[1, 3], [2, 7], [0, 7], [2, 3]]
    again = samples.take(reference)
    assert list(again.targets) == list(mixed.targets)
    for ours, wanted in zip(again.train(), mixed, strict=True):
        assert torch.equal(ours[0], wanted[0])
    for ours, wanted in zip(again, mixed.eval(), strict=True):
        assert torch.equal(ours[0], wanted[0])


def test_references_refuse_data_of_elsewhere():
    here, elsewhere = (as_classification_dataset(Images(4, seed=s)) for s in (1, 2))
    samples = StreamSamples([type("Experience", (), {"dataset": here})()])
    with pytest.raises(StateError, match="sample 0 is not in the stream"):
        samples.refer(elsewhere.subset([3]))
    changed = here.subset([3]).replace_current_transform_group(lambda x: -x)
    with pytest.raises(StateError, match="sample 0 is not in the stream"):
        samples.refer(changed)
