"""Images of the streams, and what happens where they are missing."""

from __future__ import annotations

import sys
import urllib.request
from urllib.error import URLError

import numpy as np
import pytest
import torch
from avalanche.benchmarks.datasets.dataset_utils import AVALANCHE_CONFIG
from fake_data import image_folder, lay
from torchvision.datasets import cifar

from benchmarks.names import UsageError
from benchmarks.streams import make_stream
from benchmarks.streams.info import STREAMS

pytestmark = pytest.mark.usefixtures("fake_files")


def test_digits_are_all_there_split_the_same_each_time_and_stratified():
    benchmark = make_stream("split_digits", n_experiences=1, class_order="natural")
    train, test = benchmark.train_stream[0].dataset, benchmark.test_stream[0].dataset
    assert (len(train), len(test)) == (1442, 355)
    share = np.bincount(list(test.targets)) / np.bincount(list(train.targets))
    assert abs(share - 0.25).max() < 0.01
    images = torch.stack([x for x, *_ in train])
    assert abs(images.mean()) < 1e-3 and abs(images.std() - 1) < 1e-3


def test_digits_are_eight_bit_images():
    benchmark = make_stream("split_digits", n_experiences=1, normalize=False)
    images = torch.stack([x for x, *_ in benchmark.train_stream[0].dataset])
    levels = (images * 255).unique()
    assert len(levels) == 17 and (levels[0], levels[-1]) == (0, 255)
    assert torch.equal(levels, levels.round())


def test_pixels_are_normalised_with_the_statistics_of_the_entry(data):
    root = data("split_cifar100")  # all pixels are 100
    benchmark = make_stream("split_cifar100", dataset_root=root)
    info = STREAMS["split_cifar100"]
    wanted = (100 / 255 - torch.tensor(info.mean)) / torch.tensor(info.std)
    image, *_ = benchmark.test_stream[0].dataset[0]
    torch.testing.assert_close(image.mean((1, 2)), wanted)


def test_split_cifar_is_cifar10_then_fifty_classes_of_cifar100(data):
    root = data("split_cifar10_100")
    benchmark = make_stream(
        "split_cifar10_100", class_order="natural", dataset_root=root, task_labels=True
    )
    sizes = [len(e.dataset) for e in benchmark.train_stream]
    assert sizes == [50, 20, 20, 20, 20, 20]  # made files: 5 and 2 images a class
    starts = [min(e.classes_in_this_experience) for e in benchmark.train_stream]
    assert starts == list(range(0, 60, 10))
    assert [e.task_label for e in benchmark.test_stream] == list(range(6))


def test_only_training_images_are_augmented_and_only_if_asked(data):
    root = data("split_cifar100")
    plain = make_stream("split_cifar100", dataset_root=root, augment=False)
    grey = plain.test_stream[0].dataset[0][0]
    assert all(torch.equal(x, grey) for x, *_ in plain.train_stream[0].dataset)
    augmented = make_stream("split_cifar100", dataset_root=root)
    assert torch.equal(augmented.test_stream[0].dataset[0][0], grey)
    train = augmented.train_stream[0].dataset
    assert not all(torch.equal(x, grey) for x, *_ in train)  # black borders
    assert all(torch.equal(x, grey) for x, *_ in train.eval())


def test_omniglot_trains_and_tests_on_the_same_characters(data):
    benchmark = make_stream(
        "split_omniglot", class_order="natural", dataset_root=data("split_omniglot")
    )
    experiences = zip(benchmark.train_stream, benchmark.test_stream, strict=True)
    for train, test in experiences:
        assert len(train.dataset) == len(test.dataset) == 241  # one drawing of each
        assert set(train.dataset.targets) == set(test.dataset.targets)


def test_letters_stand_upright_and_a_is_class_0(data):
    benchmark = make_stream(
        "split_emnist",
        class_order="natural",
        normalize=False,
        dataset_root=data("split_emnist"),
    )
    image, label, _ = benchmark.train_stream[0].dataset[0]
    assert label == 0 and image[0, :, 0].min() == 1 and image[0, :, 1:].max() == 0


def test_house_numbers_keep_their_colours_and_0_is_class_0(data):
    benchmark = make_stream(
        "split_svhn",
        class_order="natural",
        normalize=False,
        dataset_root=data("split_svhn"),
    )
    for experience in benchmark.train_stream:
        for image, label, _ in experience.dataset:
            red, green, blue = (255 * image).round().amax((1, 2)).tolist()
            assert (red, green, blue) == (label or 10, 0, 0)


def test_images_of_medmnist_have_a_border_and_tissues_come_in_unequal_parts(data):
    options = {"class_order": "natural", "normalize": False}
    root = data("split_pathmnist")
    benchmark = make_stream("split_pathmnist", dataset_root=root, **options)
    sizes = [sorted(e.classes_in_this_experience) for e in benchmark.train_stream]
    assert sizes == [[0, 1, 2], [3, 4], [5, 6], [7, 8]]
    image = benchmark.test_stream[0].dataset[0][0]
    assert image[:, 2:30, 2:30].min() == 1 and image.sum() == 3 * 28**2
    equal = make_stream("split_pathmnist", n_experiences=3, dataset_root=root)
    assert equal.n_classes_per_exp == [3, 3, 3]


def test_medmnist_says_how_to_install_it(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "medmnist", None)
    with pytest.raises(UsageError, match=r"medmnist.*not installed.*pip install"):
        make_stream("split_bloodmnist", dataset_root=data("split_bloodmnist"))


def test_augmentation_may_be_that_of_another_name(data):
    name = "random resized crop to 32x32 after padding by 4, horizontal flip"
    root = data("split_cifar10")
    benchmark = make_stream("split_cifar10", augment=name, dataset_root=root)
    train = benchmark.train_stream[0].dataset
    start = train[0][0]
    assert start.shape == (3, 32, 32)
    assert not all(torch.equal(x, start) for x, *_ in train)
    plain = benchmark.test_stream[0].dataset[0][0]
    assert all(torch.equal(x, plain) for x, *_ in train.eval())
    assert len(plain.unique()) == 3  # one shade a channel


@pytest.mark.parametrize("name", ["horizontal flop", "random 32x32 crop after padding"])
def test_augmentation_of_no_name_or_another_size_is_refused(name):
    with pytest.raises(UsageError, match=f"augment is '{name}'.*horizontal flip"):
        make_stream("split_fmnist", augment=name)


def test_folders_are_classes_and_images_are_resized(data):
    benchmark = make_stream(
        "image_folder",
        n_experiences=2,
        class_order=[3, 0, 1, 2],
        image_size=12,
        normalize=False,
        dataset_root=str(data("image_folder")),
    )
    [fox, cat] = benchmark.test_stream[0].dataset
    assert fox[0].shape == (3, 12, 12)
    shades = {label: round(float(x.max()) * 255) for x, label, _ in (fox, cat)}
    assert shades == {0: 180, 1: 0}  # fox is the first class now


def test_folders_with_different_classes_are_refused(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "test/cat").rename(tmp_path / "test/cow")
    with pytest.raises(UsageError, match="only one of train/ and test/: cat, cow"):
        make_stream("image_folder", n_experiences=2, dataset_root=tmp_path)


@pytest.mark.parametrize("name", [n for n in STREAMS if STREAMS[n].files])
def test_missing_data_are_named_with_their_size_and_how_to_get_them(name, tmp_path):
    info = STREAMS[name]
    root = tmp_path / "my data"
    options = {"n_experiences": 2} if info.n_experiences is None else {}
    with pytest.raises(FileNotFoundError) as error:
        make_stream(name, dataset_root=root, **options)
    text = str(error.value)
    assert all(file in text for file in info.files)
    assert str(root) in text and info.size in text and info.source in text
    command = f"python -m benchmarks run RECIPE --dataset-root '{root}' --download"
    assert (command in text) == info.automatic_download
    assert not root.exists()


@pytest.mark.parametrize("name", ["split_imagenet", "image_folder"])
def test_what_cannot_be_downloaded_is_asked_of_the_user(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="Put there what is missing"):
        make_stream(name, n_experiences=2, dataset_root=tmp_path, download=True)


def test_damaged_data_are_reported_and_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "check_integrity", lambda path, md5=None: False)
    lay("split_cifar10", tmp_path)
    with pytest.raises(FileNotFoundError, match="cannot be read.*downloading is off"):
        make_stream("split_cifar10", dataset_root=tmp_path)


def test_a_download_that_fails_is_reported(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(FileNotFoundError, match="cannot be read.*no network"):
        make_stream("split_mnist", dataset_root=tmp_path, download=True)


def test_the_default_folder_is_avalanches(monkeypatch, tmp_path):
    monkeypatch.setitem(AVALANCHE_CONFIG, "dataset_location", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "cifar100")):
        make_stream("split_cifar100")
