"""Mnemonics (Liu et al., CVPR 2020): one recipe a stream."""

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
from benchmarks.recipes.lucir import BASE_ON_IMAGENET
from benchmarks.recipes.recipe import Device, Evaluator, Setup, Strategy, recipe
from benchmarks.recipes.resident_frame import ResidentFrame
from benchmarks.streams import STREAMS

SMOKE = {
    **SMOKE_FRAME,
    "network": "small_cnn",
    "train_mb_size": 32,
    "lr": 0.02,
    "milestones": (),
    "exemplars_per_class": 5,
    "outer_steps": 3,
    "inner_steps": 2,
    "finetuning_epochs": 2,
}


@recipe(smoke=SMOKE, outer_steps=5, inner_steps=3)
def mnemonics_digits(**options: Any) -> Setup:
    """Mnemonics on scikit-learn's digits: 5 experiences of 2 classes, no download."""
    return _mnemonics(**options)


@recipe(
    smoke=SMOKE,
    stream="split_mnist",
    class_order="natural",
    train_epochs=1,
    train_mb_size=64,
    exemplars_per_class=5,
    outer_steps=50,
    inner_steps=5,
)
def mnemonics_mnist(**options: Any) -> Setup:
    """Mnemonics on MNIST: 5 experiences of 2 classes, 1 epoch each."""
    return _mnemonics(**options)


@recipe(smoke=SMOKE, **CIFAR100, network="resnet32", optimization="paper")
def mnemonics_cifar100(**options: Any) -> Setup:
    """Mnemonics on CIFAR-100: 50 classes, then 5x10, 10x5 or 25x2; the paper's options.

    With them one step on 1,000 exemplars costs as much as 50 epochs over them, four or
    five times over: hours on a GPU. --optimization fast is a matter of minutes. The
    released code has 2,000 exemplars in all, `--memory_size 2000`, the paper 20 a class.
    """
    return _mnemonics(**options)


@recipe(
    smoke=SMOKE,
    **IMAGENET_SUBSET,
    optimization="paper",
    distillation_weight=BASE_ON_IMAGENET,
)
def mnemonics_imagenet_subset(**options: Any) -> Setup:
    """Mnemonics on ImageNet-Subset: 50 classes, then 5x10, 10x5 or 25x2, as the paper.

    Exemplars are pixels to be learned: 0.6 MB each, a quarter with `--storage_dtype
    uint8`.
    """
    return _mnemonics(**options)


@recipe(
    smoke=SMOKE,
    **IMAGENET,
    optimization="paper",
    distillation_weight=BASE_ON_IMAGENET,
)
def mnemonics_imagenet(**options: Any) -> Setup:
    """Mnemonics on ImageNet: 500 classes, then 5x100, 10x50 or 25x20, as the paper.

    20,000 exemplars of 0.6 MB, a quarter with `--storage_dtype uint8`.
    """
    return _mnemonics(**options)


# One run makes both of the paper's rows with the old distillation: with `--metrics
# nearest_exemplar_mean` an LwF row tells the accuracies of the iCaRL row as well.
_LWF = {"distillation": "icarl", "distillation_weight": None}
_ICARL = {**_LWF, "predict": "nearest_mean"}
_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "mnemonics": ("Mnemonics", {}),
    "mnemonics_lwf": ("Mnemonics with iCaRL's loss, linear (LwF),", _LWF),
    "mnemonics_icarl": ("Mnemonics with iCaRL's loss and nearest means", _ICARL),
}
for _base in (mnemonics_cifar100, mnemonics_imagenet_subset, mnemonics_imagenet):
    for _method, (_title, _options) in _METHODS.items():
        rows(_base, _method, _title, **_options)

# What the released code does, of which its README has figures: 2,000 exemplars in all,
# herded, moved by one epoch of first-order steps; and the baseline, where they stay.
_RELEASED = {
    "selection": "herding",
    "memory_size": 2000,
    "optimization": "released",
    "storage_dtype": "uint8",
    "finetuning_epochs": 0,
}
_BASELINE = {**_RELEASED, "optimization": None, "weight_transfer": False}
for _kind, _options in {"released": _RELEASED, "baseline": _BASELINE}.items():
    for _name, _loss in {"lwf": _LWF, "icarl": _ICARL}.items():
        _title = f"Mnemonics' released code, {_name} {_kind}"
        rows(
            mnemonics_cifar100,
            f"mnemonics_{_name}_{_kind}",
            _title,
            **_loss,
            **_options,
        )


def _mnemonics(
    *,
    exemplars_per_class: PositiveInt = 20,
    memory_size: PositiveInt | None = None,
    selection: Literal["random", "herding"] = "random",
    optimization: Literal["fast", "paper", "released"] | None = "fast",
    objective: Literal["bilevel", "bilevel_head", "ncm"] | None = None,
    outer_steps: PositiveInt | None = None,
    outer_lr: PositiveFloat | None = None,
    inner_steps: PositiveInt | None = None,
    inner_lr: PositiveFloat | None = None,
    adjust_old: bool | None = None,
    storage_dtype: Literal["float32", "uint8"] = "float32",
    distillation: Literal["lucir", "icarl"] = "lucir",
    distillation_weight: NonNegativeFloat | None = None,
    weight_transfer: bool = True,
    decay_to_one: bool = False,
    finetuning_epochs: NonNegativeInt = 50,
    finetuning_lr: PositiveFloat = 0.01,
    predict: Literal["linear", "nearest_mean"] = "linear",
    imprint: bool = True,
    **frame: Any,
) -> Setup:
    """Set up Mnemonics.

    Args:
        exemplars_per_class: Exemplars kept of each class.
        memory_size: Exemplars kept in all, in place of so many a class.
        selection: What exemplars start from.
        optimization: Setting of the optimisation; null: exemplars stay as selected.
        objective: What it minimises; null, as in the following: as in the setting.
        outer_steps: Steps on the exemplars after each experience.
        outer_lr: Their rate, in units of normalised pixels.
        inner_steps: Steps of the model on all exemplars within each of them.
        inner_lr: Their rate.
        adjust_old: Whether to optimise exemplars of earlier experiences too.
        storage_dtype: uint8 takes a quarter of the bytes.
        distillation: Loss that keeps what was learned.
        distillation_weight: Its weight; null: 5 for lucir, 1 for icarl.
        weight_transfer: Scale kernels instead of training them, after the first
            experience.
        decay_to_one: Weight decay pulls the scales to 1 and not to 0.
        finetuning_epochs: Passes over all exemplars after each experience.
        finetuning_lr: Their learning rate.
        predict: Classifier that the accuracies are of; the other: --metrics
            nearest_exemplar_mean.
        imprint: Start the prototypes of new classes at their mean feature.
    """
    method: dict[str, Any] = {
        "exemplars_per_class": None if memory_size else exemplars_per_class,
        "memory_size": memory_size,
        "selection": selection,
        "storage_dtype": storage_dtype,
        "distillation": distillation,
        "distillation_weight": distillation_weight,
        "weight_transfer": weight_transfer,
        "decay_to_one": decay_to_one,
        "finetuning_epochs": finetuning_epochs,
        "finetuning_lr": finetuning_lr,
        "predict": predict,
        "imprint": imprint,
    }
    own = {"objective": objective, "outer_lr": outer_lr, "inner_lr": inner_lr}
    unused = [n for n, v in {**own, "adjust_old": adjust_old}.items() if v is not None]
    if optimization is None and unused:
        raise UsageError(
            f"{', '.join(unused)} given with optimization null, which changes no "
            "exemplar; wanted optimization fast, paper or released"
        )
    given: dict[str, Any] = {
        "objective": objective,
        "lr": outer_lr,
        "steps": outer_steps,
        "inner_lr": inner_lr,
        "inner_steps": inner_steps,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if outer_steps is not None:
        changes["epochs"] = None
    if inner_steps is not None:
        changes["inner_epochs"] = None
    if adjust_old is not None:
        changes["adjust_old"] = "sequential" if adjust_old else None
    protocol = ResidentFrame(**frame)
    info = STREAMS[protocol.stream]
    # exemplars have their final size: what is cut out of larger images has to be named
    resized = "resized" in info.augmentation

    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from avalanche_ext.buffers import MnemonicsOptimizer
        from avalanche_ext.models import CosineClassifier, FeatureClassifier
        from avalanche_ext.strategies import Mnemonics
        from benchmarks.streams.transforms import augmentation

        extractor = protocol.make_feature_extractor()
        model = FeatureClassifier(extractor, CosineClassifier(extractor.feature_size))
        optimizer, schedule = protocol.make_optimizer(model)
        setting = None
        if optimization is not None:
            setting = getattr(MnemonicsOptimizer, optimization)(**changes)
        return Mnemonics(
            model=model,
            optimizer=optimizer,
            optimization=setting,
            buffer_transform=augmentation(info) if resized else "auto",
            plugins=schedule,
            evaluator=evaluator,
            device=device,
            **protocol.template_options(),
            **method,
        )

    size = f"{memory_size} in all" if memory_size else f"{exemplars_per_class} a class"
    kind = selection if optimization is None else f"{selection}, optimised"
    memory = f"exemplars {size}, {kind}, {storage_dtype}"
    return protocol.setup(make_strategy, memory=memory)
