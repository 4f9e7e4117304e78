"""The sets of images that Avalanche has no (working) stream for.

Imports torch and Avalanche: `benchmarks.streams` loads it when a stream is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from avalanche.benchmarks.datasets.omniglot import Omniglot
from PIL import Image
from torch.utils.data import Dataset, Subset
from torchvision.datasets import CIFAR10, CIFAR100, EMNIST, MNIST, SVHN, ImageFolder
from torchvision.transforms import Compose, Grayscale, Pad, Resize

from benchmarks.names import UsageError
from benchmarks.streams.data import first_rows


class Pictures(Dataset[tuple[Image.Image, int]]):
    """Images held in memory.

    Args:
        data: Pixels, shape ``(N, H, W)`` or ``(N, H, W, 3)``, uint8.
        targets: N labels.
    """

    deterministic_items = True  # so that `avalanche_ext.loaders` may hold them

    def __init__(self, data: np.ndarray, targets: Sequence[int]) -> None:
        self.data = data
        self.targets = [int(label) for label in targets]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.data[index]), self.targets[index]


def digits(root: Path, **_: Any) -> tuple[Pictures, Pictures]:
    """scikit-learn's handwritten digits as 8-bit grey images.

    Args:
        root: Not needed.

    Returns:
        For training 1442 images, for testing 355, every fifth of each class in the
        order of the file; 8x8, their levels 0-16 spread to 0-255.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    # place of each image among those of its class
    place = np.zeros(len(labels), dtype=int)
    for label in range(10):
        place[labels == label] = np.arange((labels == label).sum())
    pixels = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    test = place % 5 == 4
    train, test = (Pictures(pixels[part], labels[part]) for part in (~test, test))
    return train, test


def emnist_letters(root: Path, *, download: bool, **_: Any) -> tuple[Any, Any]:
    """Letters of EMNIST, both cases of a letter in one class, a is class 0.

    The files have rows and columns exchanged; here letters stand upright.

    Args:
        root: Folder of the data.
        download: Whether they may be downloaded.

    Returns:
        Training and test images.
    """
    parts = (
        EMNIST(str(root), "letters", train=train, download=download)
        for train in (True, False)
    )
    train, test = (
        Pictures(p.data.transpose(1, 2).numpy(), (p.targets - 1).tolist())
        for p in parts
    )
    return train, test


def svhn(root: Path, *, download: bool, **_: Any) -> tuple[Any, Any]:
    """House numbers (Street View), without the easier ``extra`` images.

    Args:
        root: Folder of the data.
        download: Whether they may be downloaded.

    Returns:
        Training and test images.
    """
    parts = (SVHN(str(root), part, download=download) for part in ("train", "test"))
    train, test = (Pictures(p.data.transpose(0, 2, 3, 1), p.labels) for p in parts)
    return train, test


def path_mnist(root: Path, *, download: bool, **_: Any) -> tuple[Any, Any]:
    """PathMNIST; see `_med_mnist`."""
    return _med_mnist("PathMNIST", root, download)


def blood_mnist(root: Path, *, download: bool, **_: Any) -> tuple[Any, Any]:
    """BloodMNIST; see `_med_mnist`."""
    return _med_mnist("BloodMNIST", root, download)


def _med_mnist(name: str, root: Path, download: bool) -> tuple[Any, Any]:
    """Training and test images of a set of MedMNIST, with a border of two pixels.

    Its validation images are not used.
    """
    try:
        import medmnist
    except ImportError as error:
        raise UsageError(
            f"{name} is read by the package medmnist, which is not installed; wanted "
            "it first: python -m pip install -e '.[medmnist]'"
        ) from error
    if download:
        root.mkdir(parents=True, exist_ok=True)
    read = getattr(medmnist, name)
    parts = (
        read(part, root=str(root), download=download) for part in ("train", "test")
    )
    border = ((0, 0), (2, 2), (2, 2), (0, 0))
    train, test = (Pictures(np.pad(p.imgs, border), p.labels[:, 0]) for p in parts)
    return train, test


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
    return train, Subset(test, first_rows(test.targets, 200))


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
    "split_bloodmnist": blood_mnist,
    "split_cifar10_100": cifar10_100,
    "split_digits": digits,
    "split_emnist": emnist_letters,
    "split_omniglot": omniglot,
    "split_pathmnist": path_mnist,
    "split_svhn": svhn,
    "image_folder": image_folder,
}
"""Training and test set of the streams that Avalanche has no (working) function for."""
