"""From the options of `benchmarks.streams.make_stream` to a call of Avalanche.

Imports torch and Avalanche: `benchmarks.streams` loads it when a stream is made.
"""

from __future__ import annotations

import random
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from avalanche.benchmarks import classic, nc_benchmark, ni_benchmark
from avalanche.benchmarks.datasets import TinyImagenet

from benchmarks.names import UsageError, nearest
from benchmarks.streams import data as stream_data
from benchmarks.streams.class_orders import TINY_IMAGENET_BY_FOLDER, by_folder
from benchmarks.streams.fields import ClassOrder, StreamInfo
from benchmarks.streams.nic import nic_assignment
from benchmarks.streams.sets import DATA_SETS
from benchmarks.streams.transforms import make_transforms

_PAPERS_SEED = 1993  # NumPy's, of the class orders since iCaRL
_SAME_CLASSES = ("PermutedMNIST", "RotatedMNIST")


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What is asked of a stream; see `benchmarks.streams.make_stream`."""

    n_experiences: int | None
    first_experience_classes: int | None
    class_order: str | Sequence[int] | None
    seed: int
    task_labels: bool
    image_size: int | None
    images_per_class: int | None
    augment: bool | str
    normalize: bool


def build(
    info: StreamInfo,
    options: StreamOptions,
    *,
    dataset_root: str | Path | None,
    download: bool,
) -> Any:
    """Check the options, then the data, and call Avalanche.

    Args:
        info: The stream.
        options: What was asked.
        dataset_root: Folder of the data; ``None`` is Avalanche's default.
        download: Whether missing data may be downloaded.

    Returns:
        The benchmark.

    Raises:
        UsageError: If an option does not apply or has a wrong value.
        FileNotFoundError: If the data are missing.
    """
    _check(info, options)
    train, evaluation = make_transforms(
        info, augment=options.augment, normalize=options.normalize
    )
    if info.n_classes is not None:  # wrong options are reported before missing data
        arguments = _arguments(info, options, info.n_classes)
    root = stream_data.data_folder(info, dataset_root)
    with stream_data.data_access(info, root, download):
        if info.classic in ("nc_benchmark", "ni_benchmark"):
            size = options.image_size or info.image_shape[-1]
            read = DATA_SETS[info.name]
            data = read(root, image_size=size, download=download)
            n_classes = info.n_classes or len(data[0].classes)
            arguments = _arguments(info, options, n_classes)
            make = nc_benchmark
            if info.classic == "ni_benchmark":
                make = ni_benchmark
                assignment = nic_assignment(data[0].targets, options.seed)
                arguments["fixed_exp_assignment"] = assignment
            benchmark = make(
                *data, train_transform=train, eval_transform=evaluation, **arguments
            )
            return _shortened(benchmark, info, options)
        roots = ["dataset_root"]
        if info.classic == "SplitCIFAR110":
            roots = ["dataset_root_cifar10", "dataset_root_cifar100"]
        if options.class_order == "ewc_fr_replay":
            folders = TinyImagenet(root, train=False).id2label
            names = [folders[label] for label in range(info.n_classes or 0)]
            order = by_folder(arguments["fixed_class_order"], names)
            arguments["fixed_class_order"] = order
        benchmark = getattr(classic, info.classic)(
            **dict.fromkeys(roots, root),
            train_transform=train,
            eval_transform=evaluation,
            **arguments,
        )
        return _shortened(benchmark, info, options)


def _shortened(benchmark: Any, info: StreamInfo, options: StreamOptions) -> Any:
    if info.classic == "CORe50":
        n = options.n_experiences or info.n_experiences or 0
        benchmark = stream_data.first_experiences(benchmark, n, info.test_step)
    if few := options.images_per_class or info.images_per_class:
        benchmark = stream_data.first_of_each_class(benchmark, few)
    if share := info.validation_fraction:
        benchmark = stream_data.hold_back(benchmark, share, options.seed)
    return benchmark


def _check(info: StreamInfo, options: StreamOptions) -> None:
    """Refuse options that do not apply, and numbers out of range."""
    for option in info.refused:
        value = getattr(options, option)
        own = option == "n_experiences" and value == info.n_experiences
        if value is not None and value is not False and not own:
            raise UsageError(
                f"{info.name}: {option} is {value!r}; wanted none, since Avalanche's "
                f"{info.classic} does not take it"
            )
    core50 = info.classic == "CORe50"
    longest = info.n_experiences if core50 else None
    _check_number(info, "n_experiences", options.n_experiences, 1, longest)
    _check_number(info, "first_experience_classes", options.first_experience_classes, 1)
    _check_number(info, "image_size", options.image_size, 1)
    _check_number(info, "images_per_class", options.images_per_class, 1)
    most = 9 if core50 else 2**32 - 1
    _check_number(info, "seed", options.seed, 0, most)


def _check_number(
    info: StreamInfo, option: str, value: object, low: int, high: int | None = None
) -> None:
    if value is None and option != "seed":
        return
    wanted = f"an integer >= {low}" if high is None else f"an integer in {low}-{high}"
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < low
        or (high is not None and value > high)
    ):
        raise UsageError(f"{info.name}: {option} is {value!r}; wanted {wanted}")


def _arguments(
    info: StreamInfo, options: StreamOptions, n_classes: int
) -> dict[str, Any]:
    """The options in the words of Avalanche's function."""
    if info.classic == "CORe50":
        scenario = info.name.removeprefix("core50_")
        mini = scenario.startswith("mini_")
        scenario = scenario.removeprefix("mini_")
        return {"scenario": scenario, "mini": mini, "run": options.seed}
    n_experiences = options.n_experiences or info.n_experiences
    if n_experiences is None:
        raise UsageError(f"{info.name}: n_experiences is None; wanted an integer >= 1")
    arguments: dict[str, Any] = {"n_experiences": n_experiences}
    if "task_labels" not in info.refused:
        plain = info.classic == "nc_benchmark"
        arguments["task_labels" if plain else "return_task_id"] = options.task_labels
    if info.classic == "ni_benchmark":
        return arguments
    if info.classic in _SAME_CLASSES:
        return {**arguments, "seed": options.seed}
    return {
        **arguments,
        **_first_experience(info, options, n_experiences, n_classes),
        "fixed_class_order": _class_order(info, options, n_classes),
        "class_ids_from_zero_from_first_exp": True,
    }


def _first_experience(
    info: StreamInfo, options: StreamOptions, n_experiences: int, n_classes: int
) -> dict[str, Any]:
    """The argument for the size of the first experience, if one is needed."""
    first = options.first_experience_classes
    if first is None and n_experiences == info.n_experiences:
        first = info.first_experience_classes
    if info.classic == "SplitCIFAR110":
        first = 10  # CIFAR-10, whatever is asked
    rest = n_classes - (first or 0)
    if rest < 0:
        raise UsageError(
            f"{info.name}: first_experience_classes is {first}; wanted at most "
            f"{n_classes}"
        )
    valid = [n + bool(first) for n in range(1, rest + 1) if rest % n == 0] or [1]
    if n_experiences not in valid:
        raise UsageError(
            f"{info.name}: n_experiences is {n_experiences}, which do not share "
            f"{rest} classes equally{f' after the first {first}' if first else ''}; "
            f"wanted one of {', '.join(map(str, valid))}"
        )
    if info.classic == "SplitCIFAR110":
        return {}
    if first is None or first * n_experiences == n_classes:
        return {}
    if info.first_option == "per_exp_classes":
        return {"per_exp_classes": {0: first}}
    if info.first_option and 2 * first == n_classes:
        return {info.first_option: True}
    choice = f"{n_classes // 2} or none" if info.first_option else "none"
    raise UsageError(
        f"{info.name}: first_experience_classes is {first}, which Avalanche's "
        f"{info.classic} cannot express; wanted {choice}"
    )


def _class_order(info: StreamInfo, options: StreamOptions, n_classes: int) -> list[int]:
    """Original class ids in the order in which they are to appear."""
    if info.classic == "SplitCIFAR110":
        n_classes = 100  # only CIFAR-100's are ordered
    order = _permutation(info, options, n_classes)
    if sorted(order) != list(range(n_classes)):
        raise UsageError(
            f"{info.name}: class_order is {reprlib.repr(order)}; wanted a permutation of "
            f"0-{n_classes - 1}"
        )
    if info.name == "split_imagenet_subset":
        drawn = np.random.RandomState(_PAPERS_SEED).choice(1000, 100, replace=False)
        subset = sorted(drawn.tolist())
        return [subset[place] for place in order]
    return order


def _permutation(info: StreamInfo, options: StreamOptions, n_classes: int) -> list[int]:
    order = options.class_order
    if order is None and info.classic == "SplitCIFAR110":
        return random.Random(options.seed).sample(range(n_classes), n_classes)
    if order is None:  # what Avalanche draws, but not from the global generator
        generator = torch.Generator().manual_seed(options.seed)
        return torch.randperm(n_classes, generator=generator).tolist()
    if not isinstance(order, str):
        return [int(label) for label in order]
    if order == "natural":
        return list(range(n_classes))
    if order == "icarl":
        return np.random.RandomState(_PAPERS_SEED).permutation(n_classes).tolist()
    if order == "ewc_fr_replay" and info.classic == "SplitTinyImageNet":
        return list(TINY_IMAGENET_BY_FOLDER)
    if order == "ewc_fr_replay":
        raise UsageError(
            f"{info.name}: class_order is {order}, of Tiny-ImageNet; wanted natural or "
            "icarl"
        )
    advice = nearest(order, get_args(ClassOrder))
    raise UsageError(f"{info.name}: class_order is {order!r}; {advice}")
