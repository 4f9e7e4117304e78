"""Options that a stream does not have, or that make no sense."""

from __future__ import annotations

import pytest

from benchmarks.names import UsageError
from benchmarks.streams import make_stream

pytestmark = pytest.mark.usefixtures("fake_files")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("split_mnits", {}, "'split_mnits'; did you mean split_mnist"),
        ("split_digits", {"clas_order": 1}, "'clas_order'.*did you mean class_order"),
        ("split_digits", {"class_order": "icral"}, "'icral'; did you mean icarl"),
        ("split_digits", {"class_order": [0, 1]}, r"\[0, 1\].*permutation of 0-9"),
        ("split_digits", {"class_order": [0] * 10}, "permutation of 0-9"),
        ("split_digits", {"n_experiences": 0}, "is 0; wanted an integer >= 1"),
        ("split_digits", {"n_experiences": 2.0}, "is 2.0; wanted an integer >= 1"),
        ("split_digits", {"n_experiences": True}, "is True; wanted an integer >= 1"),
        ("split_digits", {"n_experiences": 3}, "is 3.*wanted one of 1, 2, 5, 10"),
        ("split_digits", {"first_experience_classes": -1}, "is -1; wanted"),
        ("split_digits", {"first_experience_classes": 11}, "is 11; wanted at most 10"),
        (
            "split_digits",
            {"first_experience_classes": 4, "n_experiences": 5},
            "is 5.*6 classes equally after the first 4; wanted one of 2, 3, 4, 7",
        ),
        ("split_digits", {"images_per_class": 0}, "images_per_class is 0; wanted"),
        ("split_digits", {"seed": -1}, "is -1; wanted an integer in 0-"),
        ("split_digits", {"seed": None}, "is None; wanted an integer in 0-"),
        ("split_digits", {"image_size": 9}, "image_size is 9; wanted none"),
        ("image_folder", {"image_size": 0}, "image_size is 0; wanted"),
        ("core50_nc", {"seed": 10}, "is 10; wanted an integer in 0-9"),
        ("core50_nc", {"n_experiences": 10}, "is 10; wanted an integer in 1-9"),
        ("mnist_nic", {"n_experiences": 27}, "is 27; wanted none"),
        ("core50_nc", {"task_labels": True}, "is True; wanted none"),
        ("permuted_mnist", {"class_order": "natural"}, "wanted none"),
        (
            "split_mnist",
            {"first_experience_classes": 5, "n_experiences": 6},
            "is 5, which Avalanche's SplitMNIST cannot express; wanted none",
        ),
        (
            "split_cifar10",
            {"first_experience_classes": 4, "n_experiences": 4},
            "cannot express; wanted 5 or none",
        ),
        ("split_cifar110", {"n_experiences": 10}, "100 classes.*wanted one of 2, 3, 5"),
    ],
)
def test_wrong_options_are_refused_before_any_data_are_read(
    name, options, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        make_stream(name, dataset_root=tmp_path, **options)


def test_the_stream_own_number_of_experiences_may_be_given(data):
    root = data("core50_nc")
    benchmark = make_stream("core50_nc", n_experiences=9, seed=3, dataset_root=root)
    assert len(benchmark.train_stream) == 9


def test_folders_want_a_number_of_experiences(data):
    with pytest.raises(UsageError, match="n_experiences is None"):
        make_stream("image_folder", dataset_root=data("image_folder"))
