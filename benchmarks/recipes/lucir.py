"""LUCIR (Hou et al., CVPR 2019): one recipe a stream."""

from __future__ import annotations

from typing import Any, Literal

from jsonargparse.typing import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from benchmarks.recipes.frame import SMOKE_FRAME, Frame, Network
from benchmarks.recipes.recipe import Device, Evaluator, Setup, Strategy, recipe

SMOKE = {
    **SMOKE_FRAME,
    "network": "small_cnn",
    "train_mb_size": 32,
    "lr": 0.02,
    "milestones": (),
}


@recipe(smoke=SMOKE)
def lucir_digits(**options: Any) -> Setup:
    """LUCIR on scikit-learn's digits: 5 experiences of 2 classes, no download."""
    return _lucir(**options)


@recipe(smoke=SMOKE)
def lucir_mnist(
    *,
    stream: str = "split_mnist",
    class_order: Literal["natural", "icarl"] | None = "natural",
    train_epochs: PositiveInt = 1,
    train_mb_size: PositiveInt = 64,
    lr: PositiveFloat = 0.01,
    distillation_weight: NonNegativeFloat = 1.0,
    imprint: bool = True,
    balanced_finetuning_epochs: NonNegativeInt = 20,
    **options: Any,
) -> Setup:
    """LUCIR on MNIST: 5 experiences of 2 classes, 1 epoch each.

    With one epoch the classifier is what falls behind, hence imprinting and fine-tuning
    on the exemplars; the features hardly drift, hence little distillation.

    Args:
        stream: Name of the stream; the command `list` shows them.
        class_order: natural: 0 and 1 first, then 2 and 3, and so on.
        train_epochs: Passes over each experience.
        train_mb_size: Images of a mini-batch.
        lr: Learning rate at the start of each experience.
        distillation_weight: Base of lambda, the weight of the less-forget loss.
        imprint: Start the prototypes of new classes at their mean feature.
        balanced_finetuning_epochs: Passes over the exemplars after each experience.
    """
    return _lucir(
        stream=stream,
        class_order=class_order,
        train_epochs=train_epochs,
        train_mb_size=train_mb_size,
        lr=lr,
        distillation_weight=distillation_weight,
        imprint=imprint,
        balanced_finetuning_epochs=balanced_finetuning_epochs,
        **options,
    )


@recipe(smoke=SMOKE)
def lucir_cifar100(
    *,
    stream: str = "split_cifar100",
    n_experiences: PositiveInt | None = 6,
    first_experience_classes: PositiveInt | None = 50,
    class_order: Literal["natural", "icarl"] | None = "icarl",
    network: Network = "resnet32",
    train_epochs: PositiveInt = 160,
    train_mb_size: PositiveInt = 128,
    lr: PositiveFloat = 0.1,
    weight_decay: NonNegativeFloat = 5e-4,
    milestones: tuple[PositiveInt, ...] = (80, 120),
    herding: Literal["without_replacement", "lucir"] = "lucir",
    imprint: bool = True,
    **options: Any,
) -> Setup:
    """LUCIR on CIFAR-100: 50 classes, then 5x10, 10x5 or 25x2; the authors' options.

    Args:
        stream: Name of the stream; the command `list` shows them.
        n_experiences: 6 for 50 + 5x10 classes, 11 for 50 + 10x5, 26 for 50 + 25x2.
        first_experience_classes: Classes of the first experience.
        class_order: icarl: that of all papers on this protocol.
        network: resnet32 is LUCIR's; its descendants CwD and BDR use resnet18.
        train_epochs: Passes over each experience.
        train_mb_size: Images of a mini-batch.
        lr: Learning rate at the start of each experience.
        weight_decay: Weight decay of SGD.
        milestones: Epochs after which the learning rate is divided by ten.
        herding: How exemplars are chosen; lucir: as in the authors' code.
        imprint: Start the prototypes of new classes at their mean feature, as the
            authors' scripts do.
    """
    return _lucir(
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
        herding=herding,
        imprint=imprint,
        **options,
    )


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
    precision: Literal["float32", "bfloat16"] = "float32",
    channels_last: bool = False,
    compile: bool = False,
    **frame: Any,
) -> tuple[Frame, dict[str, Any]]:
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
        imprint: Start the prototypes of new classes at their mean feature.
        balanced_finetuning_epochs: Passes over the exemplars after each experience.
        precision: bfloat16 trains under autocast.
        channels_last: Keep images and convolutions in this memory format.
        compile: Compile the network.

    Returns:
        The frame, and the arguments of the strategy.
    """
    method = {k: v for k, v in locals().items() if k != "frame"}
    if memory_size is not None:
        method["exemplars_per_class"] = None
    return Frame(**frame), method


def lucir_setup(strategy: str, frame: Frame, method: dict[str, Any]) -> Setup:
    """Set up LUCIR or a strategy built on it.

    Args:
        strategy: Its name in `avalanche_ext.strategies`.
        frame: All but the method.
        method: Arguments of the strategy.

    Returns:
        What the recipe returns.
    """

    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from avalanche_ext import strategies
        from avalanche_ext.models import CosineClassifier, FeatureClassifier

        extractor = frame.make_feature_extractor()
        model = FeatureClassifier(extractor, CosineClassifier(extractor.feature_size))
        optimizer, schedule = frame.make_optimizer(model)
        return getattr(strategies, strategy)(  # type: ignore[no-any-return]
            model=model,
            optimizer=optimizer,
            plugins=schedule,
            memory_resident=frame.memory_resident,
            evaluator=evaluator,
            device=device,
            **frame.template_options(),
            **method,
        )

    total, each = method["memory_size"], method["exemplars_per_class"]
    memory = f"{total} exemplars in all" if total else f"{each} exemplars a class"
    return frame.setup(make_strategy, memory=memory)
