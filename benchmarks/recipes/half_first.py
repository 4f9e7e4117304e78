"""The protocol of LUCIR and its descendants: half of the classes, then the rest.

Only what belongs to the stream and its schedule; what belongs to a method stands with
the recipe. CwD numbers the classes of ImageNet-Subset as they are drawn, and not sorted
by folder as LUCIR, Mnemonics and BDR do and these recipes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.recipes.recipe import RECIPES, Setup, row

CIFAR100: dict[str, Any] = {
    "stream": "split_cifar100",
    "n_experiences": 6,
    "first_experience_classes": 50,
    "class_order": "icarl",
    "train_epochs": 160,
    "train_mb_size": 128,
    "lr": 0.1,
    "weight_decay": 5e-4,
    "milestones": (80, 120),
}
IMAGENET_SUBSET: dict[str, Any] = {
    **CIFAR100,
    "stream": "split_imagenet_subset",
    "network": "resnet18_imagenet",
    "train_epochs": 90,
    "weight_decay": 1e-4,
    "milestones": (30, 60),
}
IMAGENET: dict[str, Any] = {
    **IMAGENET_SUBSET,
    "stream": "split_imagenet",
    "first_experience_classes": 500,
}
TITLES = {
    "split_cifar100": "CIFAR-100",
    "split_imagenet_subset": "ImageNet-Subset",
    "split_imagenet": "ImageNet",
}


def rows(base: Callable[..., Setup], method: str, title: str, **defaults: Any) -> None:
    """Register a method on all streams of a data set: 5, 10 and 25 further experiences.

    The names are ``METHOD_DATA``, for 5, ``METHOD_DATA_10x5`` and so on; a recipe that
    exists stays as it is.

    Args:
        base: The recipe of the data set.
        method: First part of the names.
        title: The method in a few words.
        **defaults: Options that make the method of the recipe.
    """
    options = RECIPES[base.__name__].defaults
    stream, first = options["stream"], options["first_experience_classes"]
    for n in (5, 10, 25):
        increments = f"{n}x{first // n}"
        name = f"{method}_{stream.removeprefix('split_')}"
        name += "" if n == 5 else f"_{increments}"
        summary = f"{title} on {TITLES[stream]}: {first} classes, then {increments}."
        if name not in RECIPES:
            row(base, name, summary, n_experiences=n + 1, **defaults)
