"""The data behind the streams: are they there, and how they are cut down.

Imports torch and Avalanche: `benchmarks.streams` loads it when a stream is made.
"""

from __future__ import annotations

import shlex
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.error import URLError

import numpy as np
import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    with_classes_timeline,
    with_task_labels,
)
from avalanche.benchmarks.datasets import default_dataset_location

from avalanche_ext.buffers.held_back import stratified_split
from benchmarks.names import UsageError
from benchmarks.streams.fields import StreamInfo
from benchmarks.streams.stand_in import is_stand_in


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
    generated = is_stand_in(root)
    download = download and not generated  # real images beside generated ones
    missing = [f for f in info.files if not _any_exists(root, f.split(" or "))]
    if missing and not (download and info.automatic_download):
        raise FileNotFoundError(_advice(info, root, f"lacks {', '.join(missing)}"))
    checked = patch("torchvision.datasets.cifar.check_integrity", _any_file)
    try:
        with checked if generated else nullcontext():
            if download:
                yield
            else:
                with _offline(), redirect_stdout(StringIO()):
                    yield
    except (OSError, RuntimeError) as error:
        problem = f"cannot be read ({' '.join(str(error).split())})"
        raise FileNotFoundError(_advice(info, root, problem)) from error


def _any_file(path: str, md5: str | None = None) -> bool:
    """In place of torchvision's look at a checksum, which is that of the real file."""
    return Path(path).is_file()


def _any_exists(root: Path, names: list[str]) -> bool:
    return any((root / name).exists() for name in names)


def _advice(info: StreamInfo, root: Path, problem: str) -> str:
    text = f"{info.name} {problem} in {root}. "
    if is_stand_in(root):
        return (
            f"{text}The images there are generated; delete that folder and let "
            "scripts/stand_in.py write it anew"
        )
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
        rows = first_rows(experience.dataset.targets, images_per_class)
        train.append(experience.dataset.subset(rows))
    return _with_training(benchmark, train=train)


def hold_back(benchmark: Any, fraction: float, seed: int) -> Any:
    """Move a share of the training images of each class to a stream of their own.

    Args:
        benchmark: With the streams ``train_stream`` and ``test_stream``.
        fraction: The share, in (0, 1); each class keeps at least one image.
        seed: Of the draw, >= 0.

    Returns:
        A benchmark with as many experiences, and a stream ``valid`` of the rest.

    Raises:
        UsageError: If that is no image of an experience.
    """
    generator = torch.Generator().manual_seed(seed)
    train, valid = [], []
    for experience in benchmark.train_stream:
        data = experience.dataset
        stay, held = stratified_split(data.targets, fraction, generator)
        if not len(held):
            raise UsageError(
                f"{fraction} of the images of each class are to be held back, but "
                f"{len(data)} images of an experience are too few; wanted more"
            )
        train.append(data.subset(stay.tolist()))
        valid.append(data.subset(held.tolist()).eval())
    return _with_training(benchmark, train=train, valid=valid)


def _with_training(benchmark: Any, **streams: list[Any]) -> Any:
    """A benchmark like another one, but for the training data."""
    test = [experience.dataset for experience in benchmark.test_stream]
    made = _from_parts(test=test, **streams)
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
        train=[e.dataset for e in islice(benchmark.train_stream, n_experiences)],
        test=[data.subset(list(range(0, len(data), test_step))) for data in tests],
    )


def _from_parts(**streams: list[Any]) -> Any:
    made = benchmark_from_datasets(**streams)
    return with_classes_timeline(with_task_labels(made))


def first_rows(targets: Any, images_per_class: int) -> list[int]:
    """Indices of the first images of each class, in order.

    Args:
        targets: Label of each image.
        images_per_class: How many of each class, at most.

    Returns:
        The indices, ascending.

    Example:
        >>> first_rows([5, 5, 3, 5], 2)
        [0, 1, 2]
    """
    labels = np.array(list(targets))
    rows = [np.flatnonzero(labels == c)[:images_per_class] for c in set(labels)]
    return np.sort(np.concatenate(rows)).tolist()
