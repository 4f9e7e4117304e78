"""The published rows of EWC+FR+Replay: methods and sizes of memory.

lambda and tau are those of the authors' configuration. At some sizes of memory on
ImageNet they set tau to 0, which turns FR and Replay off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.recipes.ewc_fr_replay import ewc_fr_replay_cifar
from benchmarks.recipes.ewc_fr_replay_imagenet import (
    ewc_fr_replay_imagenet,
    ewc_fr_replay_tiny_imagenet,
)
from benchmarks.recipes.recipe import Setup, row

_TITLES = {
    "fr": "FR",
    "fr_replay": "FR+Replay",
    "ewc_fr": "EWC+FR",
    "ewc_fr_replay": "EWC+FR+Replay",
}
_NO_EWC = (0.0,)

CIFAR: dict[str, dict[str, Any]] = {
    "fr": {"strength": _NO_EWC, "replay_fraction": 0.0, "tau": 0.1, "tau2": 1.0},
    "fr_replay": {"strength": _NO_EWC, "tau": 0.1, "tau2": 1.0},
    "ewc_fr": {"replay_fraction": 0.0},
    "ewc_fr_replay": {},
}
CIFAR_SIZES = (100, 200, 500, 1000, 2000, 5000)

TINY_SIZES = (50, 100, 200, 500, 1000, 2000, 4000)
TINY_TAUS = {
    "fr": (16.0, 16.0, 16.0, 2.0, 2.0, 16.0, 12.0),
    "ewc_fr": (16.0, 16.0, 16.0, 32.0, 16.0, 16.0, 12.0),
}

#: By method, then by size of memory: (lambda, tau).
IMAGENET: dict[str, dict[int, tuple[float, float]]] = {
    "fr": dict.fromkeys((200, 500, 1000, 2000, 5000), (0.0, 0.16)),
    "fr_replay": dict.fromkeys((500, 1000, 2000, 5000, 10000), (0.0, 0.16)),
    "ewc_fr": dict.fromkeys((1000, 2000, 5000, 10000), (0.5, 0.16)),
    "ewc_fr_replay": {5000: (0.5, 0.16), 10000: (0.5, 0.16)},
}
IMAGENET["fr"] |= {10000: (0.0, 2.0)}
IMAGENET["fr_replay"] |= {200: (0.0, 0.12)}
IMAGENET["ewc_fr"] |= {200: (1.0, 0.0), 500: (1.1, 0.0)}
IMAGENET["ewc_fr_replay"] |= {200: (1.0, 0.0), 500: (1.2, 0.0)}

#: Rows that a recipe is itself.
_BASES = {"ewc_fr_replay_cifar_200", "ewc_fr_replay_imagenet_10000"}


def _row(
    base: Callable[..., Setup],
    data: tuple[str, str],
    method: str,
    size: int,
    defaults: Mapping[str, Any],
) -> None:
    name, title = data
    if f"{method}_{name}_{size}" in _BASES:
        return
    text = f"{_TITLES[method]} on {title}: {size} points a task"
    if defaults.get("tau") == 0:
        text += " (with the published tau of 0, so plain EWC)"
    own = {**defaults, "memory_size": size}
    row(base, f"{method}_{name}_{size}", f"{text}.", **own)


for _method, _options in CIFAR.items():
    for _size in CIFAR_SIZES:
        _row(ewc_fr_replay_cifar, ("cifar", "Split-CIFAR"), _method, _size, _options)
row(
    ewc_fr_replay_cifar,
    "ewc_cifar",
    "EWC on Split-CIFAR (the published 78.4 is of code that trained on all outputs).",
    strength=(10.0,),
    memory_size=0,
)
row(
    ewc_fr_replay_cifar,
    "joint_cifar",
    "Joint training on Split-CIFAR: all tasks so far, fresh weights at each.",
    strength=_NO_EWC,
    tau=1.0,
    replay_fraction=1.0,
    memory_size=50000,
    on_small="clip",
    fresh_weights=True,
)

for _method, _taus in TINY_TAUS.items():
    for _size, _tau in zip(TINY_SIZES, _taus, strict=True):
        _row(
            ewc_fr_replay_tiny_imagenet,
            ("tiny_imagenet", "Tiny-ImageNet"),
            _method,
            _size,
            {"tau": _tau, "replay_fraction": 0.0}
            | ({"strength": _NO_EWC} if _method == "fr" else {}),
        )
row(
    ewc_fr_replay_tiny_imagenet,
    "ewc_tiny_imagenet",
    "EWC on Tiny-ImageNet.",
    memory_size=0,
    validate_past=False,
)
row(
    ewc_fr_replay_tiny_imagenet,
    "joint_tiny_imagenet",
    "Joint training on Tiny-ImageNet: all tasks so far, fresh weights at each.",
    strength=_NO_EWC,
    tau=1.0,
    replay_fraction=1.0,
    memory_size=8000,
    fresh_weights=True,
)

for _method, _points in IMAGENET.items():
    for _size, (_strength, _tau) in sorted(_points.items()):
        _row(
            ewc_fr_replay_imagenet,
            ("imagenet", "ImageNet"),
            _method,
            _size,
            {"strength": (_strength,), "tau": _tau}
            | ({} if "replay" in _method else {"replay_fraction": 0.0}),
        )
row(
    ewc_fr_replay_imagenet,
    "ewc_imagenet",
    "EWC on ImageNet.",
    strength=(1.0,),
    memory_size=0,
    label_smoothing=0.0,
)
