"""AR1* with latent replay (Pellegrini et al., IROS 2020): one recipe a stream."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from benchmarks.recipes.frame import SMOKE_FRAME
from benchmarks.recipes.recipe import (
    Device,
    Evaluator,
    Module,
    Setup,
    Strategy,
    recipe,
)
from benchmarks.recipes.resident_frame import ResidentFrame
from benchmarks.streams import STREAMS

SMOKE = {
    **SMOKE_FRAME,
    "network": "mobilenet_cifar",
    "latent_layer": "conv3_1.sep",
    "memory_size": 100,
    "first_epochs": None,
    "train_mb_size": 32,
    "lr": 0.02,
    "later_lr": 0.02,
    "freeze_first": False,
    "weights": None,
}


@recipe(
    smoke=SMOKE,
    latent_layer="layers.4",
    freeze_first=False,
    memory_size=200,
    train_epochs=6,
    later_lr=0.02,
)
def ar1_star_digits(**options: Any) -> Setup:
    """AR1* on scikit-learn's digits: 5 experiences of 2 classes, no download."""
    return ar1_star_setup(**options)


@recipe(
    smoke=SMOKE,
    stream="mnist_nc",
    network="mobilenet_cifar",
    latent_layer="conv3_1.sep",
    memory_size=300,
    train_epochs=4,
    later_lr=0.005,
    weight_decay=5e-4,
)
def ar1_star_mnist(**options: Any) -> Setup:
    """AR1* on MNIST at 32x32: a small MobileNet, pretrained by the command `pretrain`.

    The streams mnist_nc (new classes) and mnist_nic (new instances and classes; with
    150 latents in memory).
    """
    return ar1_star_setup(**options)


def ar1_star_setup(
    *,
    latent_layer: str | None = None,
    memory_size: NonNegativeInt = 1500,
    latent_dtype: Literal["float32", "float16", "uint8"] = "float32",
    freeze_first: bool = True,
    below: Literal["frozen", "adapt"] = "frozen",
    freeze_depthwise: bool = False,
    cache_current: bool = False,
    order: Literal["shuffled", "published"] = "shuffled",
    replacement: Literal["fill", "published"] = "fill",
    later_lr: PositiveFloat | None = None,
    head_lr_mult: PositiveFloat = 1.0,
    first_epochs: PositiveInt | None = None,
    batch_renorm: bool = True,
    r_max: PositiveFloat = 1.25,
    d_max: NonNegativeFloat = 0.5,
    growth: NonNegativeFloat = 4.1e-5,
    limits: Literal["clamp", "overshoot"] = "clamp",
    std: Literal["with_eps", "legacy"] = "with_eps",
    renorm_momentum: tuple[ClosedUnitInterval, ClosedUnitInterval] = (0.01, 5e-5),
    cwr_repeat: Literal["once", "per_pattern"] = "once",
    mask_unseen: bool = False,
    si: Literal["none", "penalty", "learning_rate"] = "none",
    si_strength: NonNegativeFloat = 1.0,
    si_trajectory: Literal["gradient", "update"] = "gradient",
    **frame: Any,
) -> Setup:
    """Set up AR1* with latent replay.

    Args:
        latent_layer: Name of the last layer below the stored activations; images:
            store the images themselves; null: with about 30 % of the
            multiply-accumulates above.
        memory_size: Latents in memory; they and new images make up a mini-batch.
        latent_dtype: What they are stored as.
        freeze_first: Freeze what is below from the first experience on.
        below: adapt: statistics of norm layers below go on adapting.
        freeze_depthwise: Let depthwise convolutions above rest, too, later.
        cache_current: Compute latents of new images once an experience.
        order: published reads the memory as it lies there.
        replacement: published replaces although the memory is not full.
        later_lr: Learning rate of later experiences; null: the same.
        head_lr_mult: Factor of the head's learning rate in later experiences.
        first_epochs: Passes over the first experience; null: train_epochs.
        batch_renorm: Batch Renormalization in place of batch normalisation.
        r_max: Limit of r.
        d_max: Limit of d.
        growth: Growth of both limits with each image of the first experience.
        limits: overshoot: they may exceed r and d by a step, as in the published code.
        std: legacy: no epsilon in the first standard deviations, as in the same.
        renorm_momentum: Of the running statistics, in the first experience and later.
        cwr_repeat: per_pattern consolidates as the published code does.
        mask_unseen: Never predict classes without a past.
        si: Synaptic Intelligence; AR1* without it is AR1*-free.
        si_strength: Its weight.
        si_trajectory: update: as in the Caffe code.
        **frame: Options of `ResidentFrame`.

    Returns:
        What the recipe returns.
    """
    own = {"latent_layer", "renorm_momentum", "frame"}
    method = {k: v for k, v in locals().items() if k not in own | {"own"}}
    protocol = ResidentFrame(**frame)

    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from torch.nn import Identity, Sequential

        from avalanche_ext.strategies import AR1Star

        model: Module = protocol.make_one_head()
        optimizer, schedule = protocol.make_optimizer(model)
        cut = None if latent_layer is None else f"feature_extractor.{latent_layer}"
        if latent_layer == "images":  # nothing is below
            model, cut = Sequential(OrderedDict(images=Identity(), net=model)), "images"
        return AR1Star(
            model=model,
            optimizer=optimizer,
            input_shape=STREAMS[protocol.stream].image_shape,
            latent_layer=cut,
            momentum=renorm_momentum,
            plugins=schedule,
            evaluator=evaluator,
            device=device,
            **protocol.template_options(),
            **method,
        )

    where = (
        f"latents ({latent_dtype}) after {latent_layer or '30 % of the computation'}"
    )
    what = f"images ({latent_dtype})" if latent_layer == "images" else where
    memory = f"{memory_size} {what}" if memory_size else "no memory"
    return protocol.setup(make_strategy, memory=memory)
