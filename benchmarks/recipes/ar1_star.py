"""AR1* with latent replay (Pellegrini et al., IROS 2020): one recipe a stream."""

from __future__ import annotations

from typing import Any, Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from benchmarks.recipes.frame import SMOKE_FRAME, Frame, Network
from benchmarks.recipes.recipe import Device, Evaluator, Setup, Strategy, recipe
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


@recipe(smoke=SMOKE)
def ar1_star_digits(
    *,
    latent_layer: str | None = "layers.4",
    freeze_first: bool = False,
    memory_size: NonNegativeInt = 200,
    train_epochs: PositiveInt = 6,
    lr: PositiveFloat = 0.02,
    later_lr: PositiveFloat | None = 0.02,
    **options: Any,
) -> Setup:
    """AR1* on scikit-learn's digits: 5 experiences of 2 classes, no download.

    Args:
        latent_layer: Name of the last layer below the stored activations.
        freeze_first: Freeze what is below from the first experience on.
        memory_size: Latents in memory.
        train_epochs: Passes over each experience.
        lr: Learning rate of the first experience.
        later_lr: Learning rate of later ones; null: the same.
    """
    return _ar1_star(
        latent_layer=latent_layer,
        freeze_first=freeze_first,
        memory_size=memory_size,
        train_epochs=train_epochs,
        lr=lr,
        later_lr=later_lr,
        **options,
    )


@recipe(smoke=SMOKE)
def ar1_star_mnist(
    *,
    stream: str = "mnist_nc",
    network: Network = "mobilenet_cifar",
    latent_layer: str | None = "conv3_1.sep",
    memory_size: NonNegativeInt = 300,
    train_epochs: PositiveInt = 4,
    lr: PositiveFloat = 0.02,
    later_lr: PositiveFloat | None = 0.005,
    weight_decay: NonNegativeFloat = 5e-4,
    **options: Any,
) -> Setup:
    """AR1* on MNIST at 32x32: a small MobileNet, pretrained by the command `pretrain`.

    The streams mnist_nc (new classes) and mnist_nic (new instances and classes).

    Args:
        stream: mnist_nc, or mnist_nic with 150 latents in memory.
        network: mobilenet_cifar has 11 blocks.
        latent_layer: Name of the last layer below the stored activations.
        memory_size: Latents in memory.
        train_epochs: Passes over each experience.
        lr: Learning rate of the first experience.
        later_lr: Learning rate of later ones; null: the same.
        weight_decay: Weight decay of SGD.
    """
    return _ar1_star(
        stream=stream,
        network=network,
        latent_layer=latent_layer,
        memory_size=memory_size,
        train_epochs=train_epochs,
        lr=lr,
        later_lr=later_lr,
        weight_decay=weight_decay,
        **options,
    )


@recipe(smoke=SMOKE)
def ar1_star_core50(
    *,
    stream: str = "core50_nicv2_391",
    network: Network = "mobilenet",
    latent_layer: str | None = "conv5_4.dw",
    memory_size: NonNegativeInt = 1500,
    train_epochs: PositiveInt = 4,
    train_mb_size: PositiveInt = 128,
    lr: PositiveFloat = 1e-3,
    later_lr: PositiveFloat | None = 5e-5,
    weight_decay: NonNegativeFloat = 5e-4,
    **options: Any,
) -> Setup:
    """AR1*-free with latent replay on CORe50 NICv2, with the authors' options.

    `--stream_seed` is the run, 0 to 9. ImageNet weights: `--weights pytorchcv`, which
    fetches them, or a file of theirs.

    Args:
        stream: core50_nicv2_391, _196 or _79.
        network: mobilenet is MobileNetV1.
        latent_layer: conv5_4.dw is the paper's choice; see the table of layers.
        memory_size: Latents in memory.
        train_epochs: Passes over each experience.
        train_mb_size: New images and latents of a mini-batch.
        lr: Learning rate of the first experience.
        later_lr: Learning rate of later ones; null: the same.
        weight_decay: Weight decay of SGD.
    """
    return _ar1_star(
        stream=stream,
        network=network,
        latent_layer=latent_layer,
        memory_size=memory_size,
        train_epochs=train_epochs,
        train_mb_size=train_mb_size,
        lr=lr,
        later_lr=later_lr,
        weight_decay=weight_decay,
        **options,
    )


def _ar1_star(
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
    renorm_momentum: tuple[ClosedUnitInterval, ClosedUnitInterval] = (0.01, 5e-5),
    cwr_repeat: Literal["once", "per_pattern"] = "once",
    mask_unseen: bool = False,
    si: Literal["none", "penalty", "learning_rate"] = "none",
    si_strength: NonNegativeFloat = 1.0,
    precision: Literal["float32", "bfloat16"] = "float32",
    channels_last: bool = False,
    **frame: Any,
) -> Setup:
    """Set up AR1* with latent replay.

    Args:
        latent_layer: Name of the last layer below the stored activations; null: with
            about 30 % of the multiply-accumulates above.
        memory_size: Latents in memory.
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
        renorm_momentum: Of the running statistics, in the first experience and later.
        cwr_repeat: per_pattern consolidates as the published code does.
        mask_unseen: Never predict classes without a past.
        si: Synaptic Intelligence; AR1* without it is AR1*-free.
        si_strength: Its weight.
        precision: bfloat16 trains under autocast.
        channels_last: Keep images and convolutions in this memory format.
    """
    own = {"latent_layer", "renorm_momentum", "frame"}
    method = {k: v for k, v in locals().items() if k not in own | {"own"}}
    protocol = Frame(**frame)

    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from avalanche_ext.strategies import AR1Star

        model = protocol.make_one_head()
        optimizer, schedule = protocol.make_optimizer(model)
        cut = None if latent_layer is None else f"feature_extractor.{latent_layer}"
        return AR1Star(
            model=model,
            optimizer=optimizer,
            input_shape=STREAMS[protocol.stream].image_shape,
            latent_layer=cut,
            momentum=renorm_momentum,
            plugins=schedule,
            memory_resident=protocol.memory_resident,
            evaluator=evaluator,
            device=device,
            **protocol.template_options(),
            **method,
        )

    where = latent_layer or "30 % of the computation"
    memory = f"{memory_size} latents ({latent_dtype}) after {where}"
    return protocol.setup(make_strategy, memory=memory)
