"""Streams by name."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from avalanche import benchmarks
from avalanche.benchmarks import classic

from benchmarks.streams import make_stream
from benchmarks.streams.info import STREAMS

ICARL_100 = [
    68,
    56,
    78,
    8,
    23,
    84,
    90,
    65,
    74,
    76,
    40,
    89,
    3,
    92,
    55,
    9,
    26,
    80,
    43,
    38,
]
SEED = 3  # also the run of the fake CORe50
pytestmark = pytest.mark.usefixtures("fake_files")


def random_states():
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )


def classes(benchmark):
    return [sorted(e.classes_in_this_experience) for e in benchmark.train_stream]


@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_is_what_its_entry_says(name, data):
    info = STREAMS[name]
    options = {"n_experiences": 2} if info.n_experiences is None else {}
    before = random_states()
    benchmark = make_stream(name, seed=SEED, dataset_root=data(name), **options)
    assert random_states() == before
    assert len(benchmark.train_stream) == (info.n_experiences or 2)
    image, label, task = benchmark.train_stream[0].dataset[0]
    assert image.shape == info.image_shape and image.dtype == torch.float32
    assert isinstance(label, int) and task == 0
    if info.n_classes is not None and not name.startswith("core50"):
        assert len(set().union(*classes(benchmark))) == info.n_classes


@pytest.mark.parametrize("name", STREAMS)
def test_every_entry_is_complete(name):
    info = STREAMS[name]
    assert hasattr(benchmarks, info.classic) or hasattr(classic, info.classic)
    assert len(info.mean) == len(info.std) == info.image_shape[0]
    assert info.name == name and info.description and info.source and info.size
    options = make_stream.__kwdefaults__
    assert set(info.refused) <= set(options)


def test_importing_streams_is_light():
    code = "import sys, benchmarks.streams; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "avalanche", "numpy"} & set(result.stdout.split())


def test_fifty_classes_then_ten_at_a_time_in_the_papers_order(data):
    benchmark = make_stream(
        "split_cifar100",
        n_experiences=6,
        first_experience_classes=50,
        class_order="icarl",
        dataset_root=data("split_cifar100"),
    )
    assert benchmark.classes_order_original_ids[:20] == ICARL_100
    wanted = [list(range(50)), *(list(range(n, n + 10)) for n in range(50, 100, 10))]
    assert classes(benchmark) == wanted  # labels in order of appearance


@pytest.mark.golden("mnemonics", "protocol.json")
def test_the_papers_class_order_agrees_with_the_authors(golden, data):
    root = data("split_cifar100")
    benchmark = make_stream("split_cifar100", class_order="icarl", dataset_root=root)
    order = list(benchmark.classes_order_original_ids)
    assert order == golden["class_order_seed_1993"]


@pytest.mark.parametrize("order", [list(range(9, -1, -1)), np.arange(9, -1, -1)])
def test_a_class_order_given_is_the_order_of_appearance(order):
    benchmark = make_stream("split_digits", class_order=order)
    assert benchmark.classes_order_original_ids == list(range(9, -1, -1))
    assert benchmark.original_classes_in_exp[0] == {9, 8}
    assert classes(benchmark)[0] == [0, 1]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("split_mnist", lambda root: classic.SplitMNIST(5, seed=8, dataset_root=root)),
        (
            "split_tiny_imagenet",
            lambda root: classic.SplitTinyImageNet(10, seed=8, dataset_root=root),
        ),
        (
            "split_cifar110",
            lambda root: classic.SplitCIFAR110(
                11, seed=8, dataset_root_cifar10=root, dataset_root_cifar100=root
            ),
        ),
    ],
)
def test_the_class_order_of_a_seed_is_the_one_that_avalanche_draws(name, call, data):
    benchmark = make_stream(name, seed=8, dataset_root=data(name))
    theirs = call(data(name)).classes_order_original_ids
    assert benchmark.classes_order_original_ids == theirs


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("permuted_mnist", classic.PermutedMNIST),
        ("rotated_mnist", classic.RotatedMNIST),
    ],
)
def test_the_images_of_a_seed_are_those_that_avalanche_makes(name, function, data):
    ours = make_stream(name, n_experiences=2, seed=8, dataset_root=data(name))
    theirs = function(2, seed=8, dataset_root=data(name))
    for mine, other in zip(ours.test_stream, theirs.test_stream, strict=True):
        for i in range(10):
            assert torch.equal(mine.dataset[i][0], other.dataset[i][0])


def test_the_subset_of_imagenet_is_numbered_in_the_papers_order(data):
    benchmark = make_stream(
        "split_imagenet_subset",
        n_experiences=11,
        first_experience_classes=50,
        class_order="icarl",
        dataset_root=data("split_imagenet_subset"),
    )
    np_random = np.random.RandomState(1993)
    names = sorted(f"n{i:08d}" for i in np_random.choice(1000, 100, replace=False))
    wanted = [int(names[i][1:]) for i in ICARL_100]
    assert benchmark.classes_order_original_ids[:20] == wanted
    assert benchmark.n_classes_per_exp == [50] + 10 * [5]


@pytest.mark.parametrize("name", ["split_fmnist", "split_cifar10"])
def test_half_of_the_classes_may_come_first(name, data):
    benchmark = make_stream(
        name, n_experiences=6, first_experience_classes=5, dataset_root=data(name)
    )
    assert benchmark.n_classes_per_exp == [5, 1, 1, 1, 1, 1]


def test_equal_experiences_may_be_asked_by_the_size_of_the_first(data):
    root = data("split_mnist")
    benchmark = make_stream(
        "split_mnist", first_experience_classes=2, dataset_root=root
    )
    assert benchmark.n_classes_per_exp == [2, 2, 2, 2, 2]


@pytest.mark.parametrize("name", ["split_digits", "split_mnist", "permuted_mnist"])
def test_task_labels_number_the_experiences(name, data):
    root = data(name)
    with_labels = make_stream(name, task_labels=True, dataset_root=root)
    n = len(with_labels.train_stream)
    assert [e.task_label for e in with_labels.train_stream] == list(range(n))
    without = make_stream(name, dataset_root=root)
    assert [e.task_label for e in without.test_stream] == n * [0]


@pytest.mark.parametrize("task_labels", [False, True])
@pytest.mark.parametrize("name", ["split_digits", "split_cifar10"])
def test_training_may_be_cut_to_some_images_of_each_class(name, task_labels, data):
    options = {
        "class_order": "natural",
        "task_labels": task_labels,
        "dataset_root": data(name),
    }
    whole, few = (make_stream(name, images_per_class=n, **options) for n in (None, 2))
    assert classes(few) == classes(whole)
    for ours, theirs in zip(few.train_stream, whole.train_stream):
        targets = list(theirs.dataset.targets)
        wanted = [i for i, y in enumerate(targets) if targets[:i].count(y) < 2]
        assert list(ours.dataset.targets) == [targets[i] for i in wanted]
        assert torch.equal(
            ours.dataset.eval()[0][0], theirs.dataset.eval()[wanted[0]][0]
        )
        assert ours.task_labels == theirs.task_labels
    for ours, theirs in zip(few.test_stream, whole.test_stream):
        assert len(ours.dataset) == len(theirs.dataset)
