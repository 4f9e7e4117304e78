"""LUCIR (Hou et al., CVPR 2019): one recipe a stream."""

from __future__ import annotations

from typing import Any, Literal

from jsonargparse.typing import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from benchmarks.names import UsageError
from benchmarks.recipes.frame import SMOKE_FRAME
from benchmarks.recipes.half_first import CIFAR100, IMAGENET, IMAGENET_SUBSET, rows
from benchmarks.recipes.recipe import Device, Evaluator, Setup, Strategy, recipe
from benchmarks.recipes.resident_frame import ResidentFrame

SMOKE = {
    **SMOKE_FRAME,
    "network": "small_cnn",
    "train_mb_size": 32,
    "lr": 0.02,
    "first_lr": None,
    "milestones": (),
}
AUTHORS: dict[str, Any] = {"herding": "lucir", "imprint": True}
BASE_ON_IMAGENET = 10.0
MNIST: dict[str, Any] = {
    "stream": "split_mnist",
    "class_order": "natural",
    "train_epochs": 1,
    "train_mb_size": 64,
    "lr": 0.01,
    "distillation_weight": 1.0,
    "imprint": True,
    "balanced_finetuning_epochs": 20,
}


@recipe(smoke=SMOKE)
def lucir_digits(**options: Any) -> Setup:
    """LUCIR on scikit-learn's digits: 5 experiences of 2 classes, no download."""
    return _lucir(**options)


@recipe(smoke=SMOKE, **MNIST)
def lucir_mnist(**options: Any) -> Setup:
    """LUCIR on MNIST: 5 experiences of 2 classes, 1 epoch each.

    With one epoch the classifier is what falls behind, hence imprinting and fine-tuning
    on the exemplars; the features hardly drift, hence little distillation.
    """
    return _lucir(**options)


@recipe(smoke=SMOKE, **CIFAR100, **AUTHORS, network="resnet32")
def lucir_cifar100(**options: Any) -> Setup:
    """LUCIR on CIFAR-100: 50 classes, then 5x10, 10x5 or 25x2; the authors' options."""
    return _lucir(**options)


@recipe(smoke=SMOKE, **IMAGENET_SUBSET, **AUTHORS, distillation_weight=BASE_ON_IMAGENET)
def lucir_imagenet_subset(**options: Any) -> Setup:
    """LUCIR on ImageNet-Subset: 50 classes, then 5x10, 10x5 or 25x2, as the authors."""
    return _lucir(**options)


@recipe(
    smoke=SMOKE,
    **IMAGENET,
    **AUTHORS,
    distillation_weight=BASE_ON_IMAGENET,
    balanced_finetuning_epochs=20,
)
def lucir_imagenet(**options: Any) -> Setup:
    """LUCIR on ImageNet: 500 classes, then 5x100, 10x50 or 25x20, as the authors.

    Here alone their script fine-tunes the classifier on the exemplars.
    """
    return _lucir(**options)


for _base in (lucir_cifar100, lucir_imagenet_subset, lucir_imagenet):
    rows(_base, "lucir", "LUCIR")


def _lucir(**options: Any) -> Setup:
    return lucir_setup("LUCIR", *lucir_options(**options))


def lucir_options(
    *,
    exemplars_per_class: PositiveInt = 20,
    memory_size: PositiveInt | None = None,
    herding: Literal["without_replacement", "lucir"] = "without_replacement",
    distillation_weight: NonNegativeFloat = 5.0,
    distillation_mode: Literal[
        "old_over_new", "new_over_old", "fixed"
    ] = "old_over_new",
    less_forget: bool = True,
    margin_ranking: bool = True,
    margin: NonNegativeFloat = 0.5,
    margin_weight: NonNegativeFloat = 1.0,
    n_negatives: PositiveInt = 2,
    imprint: bool = False,
    balanced_finetuning_epochs: NonNegativeInt = 0,
    without_new_classes: Literal["raise", "keep"] = "raise",
    first_lr: PositiveFloat | None = None,
    **frame: Any,
) -> tuple[ResidentFrame, dict[str, Any]]:
    """Take the options apart.

    Args:
        exemplars_per_class: Exemplars kept of each class.
        memory_size: Exemplars kept in all, in place of so many a class.
        herding: How exemplars are chosen; lucir: as in the authors' code.
        distillation_weight: Base of lambda, the weight of the less-forget loss.
        distillation_mode: How lambda follows the numbers of old and of new classes.
        less_forget: Distil the features; false: the scores (an ablation).
        margin_ranking: Keep exemplars away from the nearest new classes.
        margin: Margin between them, in units of the cosine.
        margin_weight: Weight of that loss.
        n_negatives: Number of new classes that each exemplar is compared with.
        imprint: Start the prototypes of new classes at their mean feature, as the
            authors' scripts do; CwD and BDR do not.
        balanced_finetuning_epochs: Passes over the exemplars after each experience.
        without_new_classes: keep: where an experience brings none, train on with the
            head there is.
        first_lr: Learning rate at the start of the first experience; null: lr.

    Returns:
        The frame, and the arguments of the strategy.
    """
    method = {k: v for k, v in locals().items() if k != "frame"}
    if memory_size is not None:
        method["exemplars_per_class"] = None
    if first_lr is not None and not frame.get("milestones"):
        raise UsageError(
            f"first_lr is {first_lr} without milestones; wanted some: their schedule is "
            "what sets lr anew"
        )
    return ResidentFrame(**frame), method


def lucir_setup(strategy: str, frame: ResidentFrame, method: dict[str, Any]) -> Setup:
    """Set up LUCIR or a strategy built on it.

    Args:
        strategy: Its name in `avalanche_ext.strategies`.
        frame: All but the method.
        method: Arguments of the strategy, and ``first_lr``.

    Returns:
        What the recipe returns.
    """
    arguments = {name: value for name, value in method.items() if name != "first_lr"}

    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from avalanche_ext import strategies
        from avalanche_ext.models import CosineClassifier, FeatureClassifier

        extractor = frame.make_feature_extractor()
        model = FeatureClassifier(extractor, CosineClassifier(extractor.feature_size))
        optimizer, schedule = frame.make_optimizer(model)
        if method["first_lr"] is not None:  # the schedule keeps lr for the next ones
            for group in optimizer.param_groups:
                group["lr"] = method["first_lr"]
        return getattr(strategies, strategy)(  # type: ignore[no-any-return]
            model=model,
            optimizer=optimizer,
            plugins=schedule,
            evaluator=evaluator,
            device=device,
            **frame.template_options(),
            **arguments,
        )

    total, each = method["memory_size"], method["exemplars_per_class"]
    memory = f"{total} exemplars in all" if total else f"{each} exemplars a class"
    return frame.setup(make_strategy, memory=memory)
