"""MNIST as a stream whose classes come back, and as one of few images."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torchvision.datasets import MNIST
from torchvision.transforms.functional import to_tensor

from benchmarks.names import UsageError
from benchmarks.streams import make_stream
from benchmarks.streams.info import STREAMS
from benchmarks.streams.nic import nic_assignment, nic_classes

pytestmark = pytest.mark.usefixtures("fake_files")
TARGETS = list(range(10)) * 220


@pytest.mark.parametrize("seed", range(5))
def test_each_class_appears_in_three_experiences(seed):
    first, *later = nic_classes(seed)
    assert len(first) == 3 and all(len(classes) == 1 for classes in later)
    assert Counter(c for e in [first, *later] for c in e) == dict.fromkeys(range(10), 3)


def test_seed_decides_the_order():
    assert nic_classes(1) == nic_classes(1) != nic_classes(2)
    assert nic_assignment(TARGETS, 1) == nic_assignment(TARGETS, 1)


def test_no_image_is_used_twice_and_each_is_of_its_experience():
    assignment = nic_assignment(TARGETS, 4)
    assert [len(part) for part in assignment] == [300, *[60] * 27]
    used = [i for part in assignment for i in part]
    assert len(set(used)) == len(used)
    for part, classes in zip(assignment, nic_classes(4), strict=True):
        assert sorted({TARGETS[i] for i in part}) == classes


def test_too_few_images_are_refused():
    with pytest.raises(UsageError, match=r"has 219 images; wanted at least 220"):
        nic_assignment(TARGETS[:-10], 0)


def test_stream_brings_the_images_of_the_assignment(data):
    root = data("mnist_nic")
    benchmark = make_stream("mnist_nic", seed=6, dataset_root=root)
    digits = MNIST(str(root), train=True)
    parts = nic_assignment(digits.targets.tolist(), 6)
    mean, std = (
        torch.tensor(getattr(STREAMS["mnist_nic"], key))[:, None, None]
        for key in ("mean", "std")
    )
    for experience, part in zip(benchmark.train_stream, parts, strict=True):
        assert list(experience.dataset.targets) == digits.targets[part].tolist()
        wanted = torch.zeros(1, 32, 32)
        wanted[:, 2:30, 2:30] = to_tensor(digits[part[0]][0])
        image, label, task = experience.dataset[0]
        torch.testing.assert_close(image, (wanted.expand(3, -1, -1) - mean) / std)
        assert (label, task) == (digits[part[0]][1], 0)
    [test] = benchmark.test_stream
    assert set(test.dataset.targets) == set(range(10))


def test_few_new_digits_at_a_time(data):
    root = data("mnist_nc")
    benchmark = make_stream("mnist_nc", seed=2, dataset_root=root)
    for i, experience in enumerate(benchmark.train_stream):
        counts = Counter(list(experience.dataset.targets))
        assert counts == {2 * i: 150, 2 * i + 1: 150}
    fewer = make_stream("mnist_nc", images_per_class=7, dataset_root=root)
    assert [len(e.dataset) for e in fewer.train_stream] == 5 * [14]
