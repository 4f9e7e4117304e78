"""Tiny files in the layouts that Avalanche and torchvision read."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from core50_folder import lay_core50
from PIL import Image
from scipy.io import savemat


def dump(path: Path, content: object) -> None:
    write(path, pickle.dumps(content))


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def picture(mode: str, size: tuple[int, int], shade: int = 0) -> bytes:
    """An image file of one shade."""
    file = BytesIO()
    Image.new(mode, size, shade if mode == "L" else (shade,) * 3).save(file, "PNG")
    return file.getvalue()


def mnist(root: Path, folder: str = "MNIST") -> None:
    """220 training images, as many as ``mnist_nic`` wants, and 2 test images a class."""
    for part, copies in (("train", 220), ("t10k", 2)):
        labels = np.tile(np.arange(10, dtype=np.uint8), copies)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        idx(root / folder / "raw", part, images, labels)


def idx(folder: Path, part: str, images: np.ndarray, labels: np.ndarray) -> None:
    """The two files of a part, in the format of MNIST."""
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = np.array([0x0800 + array.ndim, *array.shape], ">i4")
        write(folder / f"{part}-{kind}-ubyte", header.tobytes() + array.tobytes())


def emnist(root: Path) -> None:
    """2 training images and 1 test image a letter; lit is the file's first row."""
    for part, copies in (("train", 2), ("test", 1)):
        labels = np.tile(np.arange(1, 27, dtype=np.uint8), copies)
        images = np.zeros((len(labels), 28, 28), np.uint8)
        images[:, 0] = 255
        idx(root / "EMNIST/raw", f"emnist-letters-{part}", images, labels)


def svhn(root: Path) -> None:
    """2 training images and 1 test image a digit; 0 is 10 in the files."""
    for part, copies in (("train", 2), ("test", 1)):
        labels = np.tile(np.arange(1, 11, dtype=np.uint8), copies)
        images = np.zeros((32, 32, 3, len(labels)), np.uint8)
        images[:, :, 0] = labels  # red is the label
        savemat(root / f"{part}_32x32.mat", {"X": images, "y": labels[:, None]})


def medmnist(root: Path, name: str, n_classes: int) -> None:
    """2 images a class in each part, white."""
    labels = np.tile(np.arange(n_classes, dtype=np.uint8), 2)[:, None]
    images = np.full((len(labels), 28, 28, 3), 255, np.uint8)
    parts = {f"{p}_images": images for p in ("train", "val", "test")}
    parts |= {f"{p}_labels": labels for p in ("train", "val", "test")}
    np.savez(root / f"{name}.npz", **parts)


def cifar10(root: Path) -> None:
    """One image of each class in each of the six batches."""
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        images = np.full((10, 3072), 100, np.uint8)
        batch = {"data": images, "labels": list(range(10))}
        dump(root / "cifar-10-batches-py" / name, batch)
    dump(root / "cifar-10-batches-py/batches.meta", {"label_names": list("abcdefghij")})


def cifar100(root: Path) -> None:
    """Two training images and one test image of each class."""
    for name, copies in (("train", 2), ("test", 1)):
        labels = list(range(100)) * copies
        images = np.full((len(labels), 3072), 100, np.uint8)
        content = {"data": images, "fine_labels": labels}
        dump(root / "cifar-100-python" / name, content)
    names = [str(label) for label in range(100)]
    dump(root / "cifar-100-python/meta", {"fine_label_names": names})


def cifar110(root: Path) -> None:
    cifar10(root)
    cifar100(root)


cifar10_100 = cifar110


def tiny_imagenet(root: Path) -> None:
    """Three images of each class for training, one for testing; classes unsorted."""
    root = root / "tiny-imagenet-200"
    names = [f"n{label:08d}" for label in range(200)]
    image = picture("RGB", (64, 64))
    for name in names:
        for file in "abc":
            write(root / "train" / name / "images" / f"{file}.JPEG", image)
        write(root / "val/images" / f"{name}.JPEG", image)
    (root / "wnids.txt").write_text("\n".join(names[7:] + names[:7]))
    lines = "\n".join(f"{name}.JPEG\t{name}\t0\t0\t0\t0" for name in names)
    (root / "val/val_annotations.txt").write_text(lines)


def imagenet(root: Path) -> None:
    """One image of each class in both parts."""
    names = [f"n{label:08d}" for label in range(1000)]
    image = picture("RGB", (9, 8))
    for part in ("train", "val"):
        for name in names:
            write(root / part / name / "a.JPEG", image)
    torch.save(({name: (name,) for name in names}, []), root / "meta.bin")


def core50(root: Path, scenario: str) -> None:
    """Few images of each object, run 3."""
    size = 32 if scenario.startswith("mini_") else 128
    lay_core50(root, scenario.removeprefix("mini_"), run=3, size=size)


def omniglot(root: Path) -> None:
    """Two drawings, one of them for testing, of each of 964 characters."""
    root = root / "omniglot-py/omniglot-py"
    image = picture("L", (105, 105))
    for label in range(964):
        folder = f"alphabet{label // 40:02d}/character{label % 40:02d}"
        for drawing in (1, 16):
            file = f"{label:04d}_{drawing:02d}.png"
            write(root / "images_background" / folder / file, image)
    write(root / "images_background.zip", b"")


def image_folder(root: Path) -> None:
    """Images of different sizes; 2 for training and 1 for testing of each class."""
    for shade, name in enumerate(("cat", "dog", "emu", "fox")):
        for file in ("train/{}/a.png", "train/{}/b.png", "test/{}/a.png"):
            image = picture("RGB", (10 + shade, 20), 60 * shade)
            write(root / file.format(name), image)


def lay(name: str, root: Path) -> None:
    """Lay out what a stream reads."""
    if name.startswith("core50"):
        core50(root, name.removeprefix("core50_"))
    elif name in ("split_pathmnist", "split_bloodmnist"):
        medmnist(root, name.removeprefix("split_"), 9 if "path" in name else 8)
    elif "mnist" in name and name != "split_emnist":
        mnist(root, "FashionMNIST" if "fmnist" in name else "MNIST")
    elif name.startswith("split_imagenet"):
        imagenet(root)
    elif name.startswith("split_tiny_imagenet"):
        tiny_imagenet(root)
    elif name != "split_digits":
        globals()[name.removeprefix("split_")](root)
