"""BDR and CwD on LUCIR (Zhou et al., TIP 2024; Shi et al., CVPR 2022)."""

from __future__ import annotations

from typing import Any, Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat

from benchmarks.recipes.half_first import CIFAR100, IMAGENET, IMAGENET_SUBSET, rows
from benchmarks.recipes.lucir import (
    BASE_ON_IMAGENET,
    MNIST,
    SMOKE,
    lucir_options,
    lucir_setup,
)
from benchmarks.recipes.recipe import Setup, recipe


@recipe(smoke=SMOKE)
def bdr_digits(**options: Any) -> Setup:
    """BDR on scikit-learn's digits: 5 experiences of 2 classes, no download."""
    return _bdr(**options)


@recipe(smoke=SMOKE, **MNIST)
def bdr_mnist(**options: Any) -> Setup:
    """BDR on MNIST: 5 experiences of 2 classes, 1 epoch each; see lucir_mnist."""
    return _bdr(**options)


@recipe(smoke=SMOKE, **CIFAR100, network="resnet18")
def bdr_cifar100(**options: Any) -> Setup:
    """BDR on CIFAR-100: 50 classes, then 5x10, 10x5 or 25x2; the authors' options.

    With `--cwd false` LUCIR+BDR, with `--bdr false` LUCIR+CwD, with both LUCIR as these
    papers have it: ResNet-18, no imprinting.
    """
    return _bdr(**options)


@recipe(
    smoke=SMOKE,
    **IMAGENET_SUBSET,
    distillation_weight=BASE_ON_IMAGENET,
    cwd_coef=0.75,
    first_lr=0.2,
)
def bdr_imagenet_subset(**options: Any) -> Setup:
    """BDR on ImageNet-Subset: 50 classes, then 5x10, 10x5 or 25x2; CwD's options.

    Those of BDR are published for CIFAR-100 only; here they are the same. Without CwD
    the first experience has the rate of the others, `--first_lr null`.
    """
    return _bdr(**options)


@recipe(
    smoke=SMOKE,
    **IMAGENET,
    distillation_weight=BASE_ON_IMAGENET,
    cwd_coef=1.5,
    balanced_finetuning_epochs=20,
)
def bdr_imagenet(**options: Any) -> Setup:
    """BDR on ImageNet: 500 classes, then 5x100, 10x50 or 25x20; CwD's options.

    With the fine-tuning of LUCIR's script: by CwD's author it is worth 3 points. The
    options of BDR are published for CIFAR-100 only; here they are the same.
    """
    return _bdr(**options)


_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "bdr": ("BDR", {}),
    "lucir_bdr": ("LUCIR+BDR, without CwD,", {"cwd": False, "first_lr": None}),
    "cwd": ("LUCIR+CwD", {"bdr": False}),
    "lucir18": (
        "LUCIR with ResNet-18, without imprinting,",
        {"cwd": False, "bdr": False, "first_lr": None},
    ),
}
for _base in (bdr_cifar100, bdr_imagenet_subset, bdr_imagenet):
    for _method, (_title, _switches) in _METHODS.items():
        rows(_base, _method, _title, **_switches)


def _bdr(
    *,
    cwd: bool = True,
    cwd_coef: NonNegativeFloat = 0.5,
    cwd_normalization: Literal["code", "paper"] = "code",
    bdr: bool = True,
    m1: ClosedUnitInterval = 0.8,
    m2: ClosedUnitInterval = 0.8,
    momentum_of_offsets: ClosedUnitInterval = 0.99,
    tro: NonNegativeFloat = 1.0,
    dispersion_weights: Literal["per_class", "last_class"] = "per_class",
    **options: Any,
) -> Setup:
    """Set up BDR.

    Args:
        cwd: Decorrelate the features of each class in the first experience.
        cwd_coef: Weight of that loss.
        cwd_normalization: As in the code, or as in the paper.
        bdr: Adjust the logits in the training loss of all later experiences.
        m1: Weight of the class frequency at the start of an experience.
        m2: The same in the updates.
        momentum_of_offsets: Momentum of these updates.
        tro: Exponent of the mixture of frequency and compactness.
        dispersion_weights: last_class reproduces a slip of the published code.
    """
    frame, method = lucir_options(**options)
    method |= {
        "cwd": cwd,
        "cwd_coef": cwd_coef,
        "cwd_normalization": cwd_normalization,
        "bdr": bdr,
        "m1": m1,
        "m2": m2,
        "momentum": momentum_of_offsets,
        "tro": tro,
        "dispersion_weights": dispersion_weights,
    }
    return lucir_setup("BDR", frame, method)
