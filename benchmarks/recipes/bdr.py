"""BDR and CwD on LUCIR (Zhou et al., TIP 2024; Shi et al., CVPR 2022)."""

from __future__ import annotations

from typing import Any, Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)

from benchmarks.recipes.frame import Network
from benchmarks.recipes.lucir import SMOKE, lucir_options, lucir_setup
from benchmarks.recipes.recipe import Setup, recipe


@recipe(smoke=SMOKE)
def bdr_digits(**options: Any) -> Setup:
    """BDR on scikit-learn's digits: 5 experiences of 2 classes, no download."""
    return _bdr(**options)


@recipe(smoke=SMOKE)
def bdr_cifar100(
    *,
    stream: str = "split_cifar100",
    n_experiences: PositiveInt | None = 6,
    first_experience_classes: PositiveInt | None = 50,
    class_order: Literal["natural", "icarl"] | None = "icarl",
    network: Network = "resnet18",
    train_epochs: PositiveInt = 160,
    train_mb_size: PositiveInt = 128,
    lr: PositiveFloat = 0.1,
    weight_decay: NonNegativeFloat = 5e-4,
    milestones: tuple[PositiveInt, ...] = (80, 120),
    **options: Any,
) -> Setup:
    """BDR on CIFAR-100: 50 classes, then 5x10, 10x5 or 25x2; the authors' options.

    With `--cwd false` LUCIR+BDR, with `--bdr false` LUCIR+CwD, with both LUCIR as these
    papers have it: ResNet-18, no imprinting.

    Args:
        stream: Name of the stream; the command `list` shows them.
        n_experiences: 6 for 50 + 5x10 classes, 11 for 50 + 10x5, 26 for 50 + 25x2.
        first_experience_classes: Classes of the first experience.
        class_order: icarl: that of all papers on this protocol.
        network: The papers have resnet18.
        train_epochs: Passes over each experience.
        train_mb_size: Images of a mini-batch.
        lr: Learning rate at the start of each experience.
        weight_decay: Weight decay of SGD.
        milestones: Epochs after which the learning rate is divided by ten.
    """
    return _bdr(
        stream=stream,
        n_experiences=n_experiences,
        first_experience_classes=first_experience_classes,
        class_order=class_order,
        network=network,
        train_epochs=train_epochs,
        train_mb_size=train_mb_size,
        lr=lr,
        weight_decay=weight_decay,
        milestones=milestones,
        **options,
    )


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
