"""The data behind the streams: are they there, and the sets Avalanche lacks.

Imports torch and Avalanche: `benchmarks.streams` loads it when a stream is made.
"""

from __future__ import annotations

import shlex
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
from avalanche.benchmarks import (
    benchmark_from_datasets,
    with_classes_timeline,
    with_task_labels,
)
from avalanche.benchmarks.datasets import default_dataset_location
from avalanche.benchmarks.datasets.omniglot import Omniglot
from PIL import Image
from torch.utils.data import Dataset, Subset
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, ImageFolder
from torchvision.transforms import Compose, Grayscale, Pad, Resize

from benchmarks.names import UsageError
from benchmarks.stream_fields import StreamInfo


def data_folder(info: StreamInfo, dataset_root: str | Path | None) -> Path:
    """Folder of a stream's data.

    Args:
        info: The stream.
        dataset_root: The user's choice; ``None`` is Avalanche's default folder.

    Returns:
        The folder, which need not exist.
    """
    if dataset_root is None:
        return Path(default_dataset_location(info.folder))
    return Path(dataset_root).expanduser()


@contextmanager
def data_access(info: StreamInfo, root: Path, download: bool) -> Iterator[None]:
    """Allow the network only if asked, and report what is missing in one error.

    Args:
        info: The stream whose data are read inside the ``with``.
        root: Folder of the data.
        download: Whether missing data may be downloaded.

    Raises:
        FileNotFoundError: If data are missing or damaged and cannot be downloaded.
    """
    missing = [f for f in info.files if not _any_exists(root, f.split(" or "))]
    if missing and not (download and info.automatic_download):
        raise FileNotFoundError(_advice(info, root, f"lacks {', '.join(missing)}"))
    try:
        if download:
            yield
        else:
            with _offline(), redirect_stdout(StringIO()):
                yield
    except (OSError, RuntimeError) as error:
        problem = f"cannot be read ({' '.join(str(error).split())})"
        raise FileNotFoundError(_advice(info, root, problem)) from error


def _any_exists(root: Path, names: list[str]) -> bool:
    return any((root / name).exists() for name in names)


def _advice(info: StreamInfo, root: Path, problem: str) -> str:
    text = f"{info.name} {problem} in {root}. "
    if not info.automatic_download:
        return f"{text}Put there what is missing; source: {info.source} ({info.size})"
    return (
        f"{text}The download from {info.source} is {info.size}; get it with: python "
        f"-m benchmarks run RECIPE --dataset-root {shlex.quote(str(root))} --download"
    )


@contextmanager
def _offline() -> Iterator[None]:
    """Refuse every download: Avalanche's benchmarks start one if a checksum differs."""

    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("a file is damaged or missing, and downloading is off")

    urlopen = urllib.request.urlopen
    urllib.request.urlopen = refuse
    try:
        yield
    finally:
        urllib.request.urlopen = urlopen


def first_of_each_class(benchmark: Any, images_per_class: int) -> Any:
    """Shorten the training experiences of a benchmark.

    Args:
        benchmark: With the streams ``train_stream`` and ``test_stream``.
        images_per_class: Images to keep of each class in an experience, the first ones.

    Returns:
        A benchmark with as many experiences, and the same test images.
    """
    train = []
    for experience in benchmark.train_stream:
        rows = _first_rows(experience.dataset.targets, images_per_class)
        train.append(experience.dataset.subset(rows))
    test = [experience.dataset for experience in benchmark.test_stream]
    made = _from_parts(train, test)
    for name in ("n_classes_per_exp", "classes_order"):  # Avalanche's iCaRL asks
        if hasattr(benchmark, name):
            setattr(made, name, getattr(benchmark, name))
    for experience in made.train_stream:
        experience.benchmark = made
    return made


def first_experiences(benchmark: Any, n_experiences: int, test_step: int) -> Any:
    """Take the beginning of a benchmark, and test on a share of its test images.

    Args:
        benchmark: With the streams ``train_stream`` and ``test_stream``.
        n_experiences: Number of training experiences to keep, the first ones.
        test_step: Every how many-th image is kept of each test experience.

    Returns:
        A benchmark with so many training experiences, and all test experiences.
    """
    tests = [experience.dataset for experience in benchmark.test_stream]
    return _from_parts(
        [e.dataset for e in islice(benchmark.train_stream, n_experiences)],
        [data.subset(list(range(0, len(data), test_step))) for data in tests],
    )


def _from_parts(train: list[Any], test: list[Any]) -> Any:
    made = benchmark_from_datasets(train=train, test=test)
    return with_classes_timeline(with_task_labels(made))


def _first_rows(targets: Any, images_per_class: int) -> list[int]:
    """Indices of the first images of each class, in order."""
    labels = np.array(list(targets))
    rows = [np.flatnonzero(labels == c)[:images_per_class] for c in set(labels)]
    return np.sort(np.concatenate(rows)).tolist()


class Digits(Dataset[tuple[Image.Image, int]]):
    """scikit-learn's handwritten digits as 8-bit grey images.

    Every fifth image of each class, in the order of the file, is for testing (355),
    the others are for training (1442).

    Args:
        train: Which part.

    Attributes:
        data: Pixels, shape ``(N, 8, 8)``, uint8; the original 0-16 is spread to 0-255.
        targets: N labels in 0-9.
    """

    deterministic_items = True  # so that `avalanche_ext.loaders` may hold them

    def __init__(self, *, train: bool) -> None:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        # place of each image among those of its class
        place = np.zeros(len(labels), dtype=int)
        for label in range(10):
            place[labels == label] = np.arange((labels == label).sum())
        part = (place % 5 != 4) if train else (place % 5 == 4)
        pixels = np.round(images[part].reshape(-1, 8, 8) * (255 / 16))
        self.data = pixels.astype(np.uint8)
        self.targets: list[int] = labels[part].tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.data[index]), self.targets[index]


def digits(root: Path, **_: Any) -> tuple[Digits, Digits]:
    """scikit-learn's digits; see `Digits`."""
    return Digits(train=True), Digits(train=False)


def omniglot(root: Path, *, download: bool, **_: Any) -> tuple[Any, Any]:
    """Omniglot's background set, split by drawing.

    Avalanche's ``SplitOmniglot`` tests on other characters than it trains on, and
    fails (KeyError) since there are fewer of them.

    Args:
        root: Folder of the data.
        download: Whether they may be downloaded.

    Returns:
        Drawings 1-15 of each character for training, 16-20 for testing.
    """
    every = Omniglot(str(root), train=True, download=download)
    every.deterministic_items = True
    # files are called CHARACTER_DRAWING.png
    drawing = [int(n[:-4].split("_")[1]) for n, _ in every._flat_character_images]
    return (
        Subset(every, [i for i, d in enumerate(drawing) if d <= 15]),
        Subset(every, [i for i, d in enumerate(drawing) if d > 15]),
    )


def cifar10_100(root: Path, *, download: bool, **_: Any) -> tuple[Any, Any]:
    """CIFAR-10 as classes 0-9, the first 50 classes of CIFAR-100 as 10-59.

    Args:
        root: Folder of both.
        download: Whether they may be downloaded.

    Returns:
        Training and test images, each as one data set of torchvision's.
    """
    return tuple(_both_cifars(root, train, download) for train in (True, False))


def _both_cifars(root: Path, train: bool, download: bool) -> CIFAR10:
    both = CIFAR10(str(root), train=train, download=download)
    more = CIFAR100(str(root), train=train, download=download)
    kept = [i for i, label in enumerate(more.targets) if label < 50]
    both.data = np.concatenate([both.data, more.data[kept]])
    both.targets = [*both.targets, *(10 + more.targets[i] for i in kept)]
    return both


def mnist_rgb(root: Path, *, download: bool, **_: Any) -> tuple[Any, Any]:
    """MNIST with a border of two pixels, in three equal channels.

    Args:
        root: Folder of the data.
        download: Whether they may be downloaded.

    Returns:
        All training images; for testing, the first 200 of each class.
    """
    fit = Compose([Pad(2), Grayscale(3)])
    train, test = (
        MNIST(str(root), train=part, transform=fit, download=download)
        for part in (True, False)
    )
    for part in (train, test):  # of tensors, Avalanche finds no class in a Subset
        part.targets = part.targets.tolist()
    return train, Subset(test, _first_rows(test.targets, 200))


def image_folder(root: Path, *, image_size: int, **_: Any) -> tuple[Any, Any]:
    """The user's images, read when needed and resized to squares.

    Args:
        root: Folder with ``train/CLASS/`` and ``test/CLASS/``.
        image_size: Height and width, in pixels, > 0.

    Returns:
        Training and test images, RGB; classes are numbered in alphabetical order.

    Raises:
        UsageError: If the two parts have different classes.
    """
    resize = Resize((image_size, image_size))
    train, test = (ImageFolder(str(root / p), resize) for p in ("train", "test"))
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise UsageError(
            f"{root} has classes in only one of train/ and test/: {', '.join(odd)}; "
            "wanted the same in both"
        )
    return train, test


DATA_SETS = {
    "mnist_nc": mnist_rgb,
    "mnist_nic": mnist_rgb,
    "split_cifar10_100": cifar10_100,
    "split_digits": digits,
    "split_omniglot": omniglot,
    "image_folder": image_folder,
}
"""Training and test set of the streams that Avalanche has no (working) function for."""
