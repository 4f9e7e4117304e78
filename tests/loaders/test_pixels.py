"""Stored pixels become the inputs and the augmented images of training."""

from __future__ import annotations

import random

import fake_data
import numpy as np
import pytest
import torch
from avalanche.benchmarks.classic.cmnist import PixelsPermutation
from avalanche.benchmarks.utils import TransformGroups, make_avalanche_dataset
from avalanche.benchmarks.utils.classification_dataset import (
    _make_taskaware_tensor_classification_dataset as make_tensors,
)
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms as T
from torchvision.datasets import CIFAR10, cifar
from torchvision.transforms import v2

from avalanche_ext.loaders import (
    ResidentLoader,
    make_loader,
    normalization_of,
    tensor_transforms_of,
)
from benchmarks.streams import make_stream

MEAN, STD = (0.5, 0.25, 0.75), (0.125, 0.5, 0.25)
V1 = [T.ToTensor(), T.Normalize(MEAN, STD)]
V2 = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
AUGMENTED = [T.RandomCrop(8, padding=2), T.RandomHorizontalFlip()]


class Colour(CIFAR10):
    """CIFAR-10's class over random images of 8x8."""

    def __init__(self, n=6, transform=None):
        pixels = np.random.RandomState(0).randint(0, 256, (n, 8, 8, 3), np.uint8)
        self.data, self.targets = pixels, list(range(n))
        self.transform, self.target_transform = transform, None


class Own(Dataset):
    """A class of the user's own, with a transform that nobody else applies."""

    transform = T.Normalize(MEAN, STD)

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return self.transform(torch.full((3, 8, 8), float(i))), i


def data(train=(), evaluation=(), leaf=None):
    """Avalanche data with these transforms."""
    chains = {"train": T.Compose(train), "eval": T.Compose(evaluation)}
    groups = TransformGroups({k: (v, None) for k, v in chains.items()})
    return make_avalanche_dataset(leaf or Colour(), transform_groups=groups)


def frozen(transform, train, evaluation):
    groups = TransformGroups({k: (transform, None) for k in ("train", "eval")})
    inner = make_avalanche_dataset(Colour(), frozen_transform_groups=groups)
    return data(train, evaluation, leaf=inner)


def raw(leaf=None):
    """The same images between 0 and 1."""
    return torch.stack([T.ToTensor()(image) for image, *_ in leaf or Colour()])


def kinds(dataset):
    """Names and libraries of the transforms kept."""
    kept = tensor_transforms_of(dataset)
    return [] if kept is None else [type(t) for t in kept.transforms]


@pytest.mark.parametrize("end", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("place", ["group", "leaf", "subsets of both"])
def test_pixels_times_deviation_plus_mean_are_the_images_between_0_and_1(place, end):
    if place == "leaf":
        dataset = data(leaf=Colour(transform=T.Compose(end)))
    else:
        dataset = data([], end)
    if place == "subsets of both":
        other = data([], V1, leaf=Colour())
        dataset = dataset.subset([1, 4]).concat(other.subset([3]))
    for group in ("eval", "train") if place == "leaf" else ("eval",):
        mean, std = normalization_of(dataset, group)
        assert (mean.tolist(), std.tolist()) == (list(MEAN), list(STD))
        assert mean.dtype == std.dtype == torch.float32
    inputs = torch.stack([item[0] for item in dataset.eval()])
    wanted = raw()[[1, 4, 3] if place == "subsets of both" else slice(None)]
    back = inputs * std.view(-1, 1, 1) + mean.view(-1, 1, 1)
    assert_close(back, wanted, rtol=0, atol=2e-7)


def test_without_a_normalisation_mean_is_0_and_deviation_1():
    pixels = TensorDataset(torch.rand(3, 1, 8, 8), torch.arange(3))
    for dataset in (pixels, data(leaf=pixels), data(V1, V1[:1]), Colour()):
        for numbers, wanted in zip(normalization_of(dataset), (0.0, 1.0)):
            assert numbers.tolist() == [wanted] and numbers.dtype == torch.float32


def test_one_number_for_all_channels_stays_one_unless_the_other_has_more():
    one = data([], [T.ToTensor(), T.Normalize(0.5, 0.25)])
    assert [n.tolist() for n in normalization_of(one)] == [[0.5], [0.25]]
    more = data([], [T.ToTensor(), T.Normalize(MEAN, 0.25)])
    assert [n.tolist() for n in normalization_of(more)] == [list(MEAN), [0.25] * 3]


@pytest.mark.parametrize("name", ["split_mnist", "split_cifar10", "split_digits"])
def test_every_experience_of_the_streams_tells_its_normalisation(
    name, tmp_path, monkeypatch
):
    monkeypatch.setattr(cifar, "check_integrity", lambda path, md5=None: True)
    fake_data.lay(name, tmp_path)
    root = None if name == "split_digits" else tmp_path
    stream = make_stream(name, dataset_root=root).train_stream
    found = [normalization_of(e.dataset) for e in stream]
    channels = 3 if "cifar" in name else 1
    assert len(found) == 5
    assert all(len(n) == channels for pair in found for n in pair)
    assert all(torch.equal(a, b) for pair in found for a, b in zip(pair, found[0]))
    x, *_ = stream[2].dataset.eval()[0]
    mean, std = (n.view(-1, 1, 1) for n in found[2])
    levels = (x * std + mean) * 255
    assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    assert -0.001 < levels.min() and levels.max() < 255.001
    wanted = [T.RandomCrop, T.RandomHorizontalFlip] if "cifar" in name else []
    assert kinds(stream[2].dataset) == wanted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data([], [*V1, T.RandomHorizontalFlip()]),
         r"eval transform RandomHorizontalFlip\(p=0.5\) follows Normalize"),
        (lambda: data([], [*V1, V1[1]]), "eval transform Normalize.* follows Normalize"),
        (lambda: data([], V1).concat(data([], V1[:1])), "samples are normalised by"),
        (lambda: data(leaf=Own()), r"Own has a transform of its own, Normalize\("),
        (lambda: data([], V1).subset([]), "the dataset is empty; wanted at least one"),
    ],
)  # fmt: skip
def test_normalization_of_refuses_what_has_no_one_answer(make, message):
    with pytest.raises(ValueError, match=message):
        normalization_of(make())
    with pytest.raises(ValueError, match="group is 'test'; wanted one of 'train', 'ev"):
        normalization_of(data(), "test")


def outcomes(images):
    return {image.numpy().tobytes() for image in images}


@pytest.mark.parametrize("library", [T, v2], ids=["v1", "v2"])
@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize("late", [False, True], ids=["on bytes", "on floats"])
def test_augmented_pixels_are_the_training_images_before_normalisation(
    library, mode, late
):
    leaf = Colour(1)
    steps = [
        library.RandomCrop(8, padding=(1, 0, 0, 1), padding_mode=mode),
        library.RandomVerticalFlip(0.5),
    ]
    chain = [T.ToTensor(), *steps] if late else [*steps, T.ToTensor()]
    dataset = data([*chain, V1[1]], V1, leaf=leaf)
    augment = tensor_transforms_of(dataset)
    assert augment.transforms == steps
    before = data(chain, [], leaf=leaf).train()  # no normalisation
    theirs = outcomes(before[0][0] for _ in range(150))
    ours = outcomes(augment(raw(leaf)[0]) for _ in range(150))
    assert ours == theirs and len(ours) == 8


def test_stored_pixels_with_the_transforms_and_normalisation_are_held_resident(rng):
    stored = TensorDataset(raw(), torch.arange(6))
    dataset = data([*AUGMENTED, *V1], V1)
    augment = tensor_transforms_of(dataset)
    mean, std = normalization_of(dataset)
    buffer = data([augment, T.Normalize(mean, std)], leaf=stored)
    loader = make_loader(
        buffer, batch_size=6, shuffle=False, device="cpu", generator=rng
    )
    assert isinstance(loader, ResidentLoader)
    ((x, _),) = loader
    assert x.shape == (6, 3, 8, 8)


def test_only_augmentations_are_kept_in_their_order():
    assert tensor_transforms_of(data(V1, V1)) is None
    assert tensor_transforms_of(Colour()) is None
    assert kinds(data([*AUGMENTED, *V1], V1)) == [T.RandomCrop, T.RandomHorizontalFlip]
    assert kinds(data([v2.RandomVerticalFlip(), *V2], V1)) == [v2.RandomVerticalFlip]
    assert kinds(data([*V1, T.RandomVerticalFlip()], V1)) == [T.RandomVerticalFlip]
    reflecting = T.RandomCrop(8, padding=1, padding_mode="reflect")
    assert kinds(data([*V1, reflecting], V1)) == [T.RandomCrop]
    nested = [T.Compose([T.Compose(AUGMENTED[1:]), T.Compose(V1)])]
    assert kinds(data(nested, V1)) == [T.RandomHorizontalFlip]
    both = data(AUGMENTED + V1, V1).concat(data(AUGMENTED + V2, V1))
    assert kinds(both) == [T.RandomCrop, T.RandomHorizontalFlip]


@pytest.mark.parametrize(
    "fixed",
    [T.Resize(8), T.CenterCrop(8), T.Pad(0), T.RandomRotation((90, 90))],
    ids=lambda t: type(t).__name__,
)
def test_what_evaluation_also_does_at_first_is_left_out(fixed):
    assert kinds(data([fixed, *AUGMENTED[1:], *V1], [fixed, *V1])) == [
        T.RandomHorizontalFlip
    ]
    leaf = Colour(transform=fixed)
    assert kinds(data([*AUGMENTED, *V1], V1, leaf=leaf)) == [
        T.RandomCrop,
        T.RandomHorizontalFlip,
    ]
    with pytest.raises(ValueError, match=f"training transform {type(fixed).__name__}"):
        tensor_transforms_of(data([fixed, *V1], V1))
    with pytest.raises(ValueError, match=f"training transform {type(fixed).__name__}"):
        tensor_transforms_of(data([*AUGMENTED, fixed, *V1], [fixed, *V1]))


def test_permuted_pixels_are_left_out_since_evaluation_permutes_alike():
    permutation = PixelsPermutation(torch.randperm(192))
    permuted = T.Compose([T.ToTensor(), permutation])
    dataset = frozen(permuted, [T.RandomHorizontalFlip(), V1[1]], V1[1:])
    assert kinds(dataset) == [T.RandomHorizontalFlip]
    assert normalization_of(dataset)[0].tolist() == list(MEAN)


REFUSED = {
    "resized crop": ([T.RandomResizedCrop(8), *V1], "RandomResizedCrop.* not known"),
    "rotation": ([T.RandomRotation(9), *V1], "RandomRotation.* is not known"),
    "affine": ([T.RandomAffine(9), *V1], "RandomAffine.* is not known"),
    "jitter": ([T.ColorJitter(0.1), *V1], "ColorJitter.* is not known"),
    "lambda": ([T.Lambda(abs), *V1], "Lambda.* is not known"),
    "subclass": ([type("Mine", (T.RandomHorizontalFlip,), {})(), *V1], "Mine.* is not"),
    "another size": ([T.RandomCrop(7, padding=1), *V1], r"to their own size \(8, 8\)"),
    "no padding": ([T.RandomCrop(8), *V1], "no crop of padded images"),
    "pad if needed": ([T.RandomCrop(8, 1, pad_if_needed=True), *V1], "is not known"),
    "grey padding": ([T.RandomCrop(8, 1, fill=9), *V1], "pads with another colour"),
    "colour padding": ([T.RandomCrop(8, 1, fill=(1, 2, 3)), *V1], "is not known"),
    "late padding": ([*V1, T.RandomCrop(8, 1)], "pads with another colour"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_training_transforms_are_named_and_the_way_out_too(name):
    chain, reason = REFUSED[name]
    with pytest.raises(ValueError, match=f"training transform .*{reason}.*buffer_tr"):
        tensor_transforms_of(data(chain, V1))


def test_tensor_transforms_of_refuses_what_has_no_one_answer():
    mixed = data([*AUGMENTED, *V1], V1).concat(data(V1, V1))
    with pytest.raises(ValueError, match=r"augmented by \[\[RandomCrop.*\], \[\]\]"):
        tensor_transforms_of(mixed)
    with pytest.raises(ValueError, match="Own has a transform of its own"):
        tensor_transforms_of(data(leaf=Own()))
    with pytest.raises(ValueError, match="evaluation image is Image; wanted a Tensor"):
        tensor_transforms_of(data([*AUGMENTED, *V1]))


def test_no_random_number_is_drawn():
    groups = TransformGroups({"train": (T.Compose([*AUGMENTED, *V1]), None)})
    dataset = make_avalanche_dataset(Colour(), transform_groups=groups)
    before = torch.get_rng_state(), random.getstate()
    normalization_of(dataset)
    assert len(tensor_transforms_of(dataset).transforms) == 2  # evaluation: the same
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


@pytest.mark.parametrize(
    "first",
    [T.ConvertImageDtype(torch.float32), v2.ToDtype(torch.float32, scale=True)],
    ids=["v1", "v2"],
)
@pytest.mark.parametrize("avalanche", [False, True])
def test_bytes_of_tensor_data_become_the_same_floats_item_by_item(first, avalanche):
    pixels = torch.arange(768).view(4, 3, 8, 8) % 256
    x, y = pixels.to(torch.uint8), torch.arange(4)
    leaf = make_tensors(x, y, task_labels=0) if avalanche else TensorDataset(x, y)
    chain = [first, T.RandomHorizontalFlip(1.0), V1[1]]
    dataset = data(chain, leaf=leaf).train()
    ours = make_loader(dataset, batch_size=3, shuffle=False, device="cpu")
    assert isinstance(ours, ResidentLoader)
    assert len(ours._content.groups) == 1 and ours._content.groups[0].images is x
    for mine, other in zip(ours, DataLoader(dataset, batch_size=3), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
        assert mine[0].dtype == torch.float32
    before = torch.empty_like(x).copy_(pixels)
    assert torch.equal(x, before)  # not overwritten
