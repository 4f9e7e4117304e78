"""Avalanche's own AR1 (AR1* with latent replay), in the frame of the methods."""

from __future__ import annotations

from typing import Any

from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt

from benchmarks.names import UsageError
from benchmarks.recipes.baselines import require_one_head
from benchmarks.recipes.frame import SMOKE_FRAME, Frame, Network
from benchmarks.recipes.memory_bytes import number_that_fits
from benchmarks.recipes.recipe import Device, Evaluator, Setup, Strategy, recipe
from benchmarks.streams import STREAMS

SMOKE = {
    **SMOKE_FRAME,
    "network": "mobilenet_cifar",
    "latent_layer": "conv3_1.sep",
    "memory_size": 100,
    "weights": None,
}


@recipe(smoke=SMOKE)
def avalanche_ar1(
    *,
    stream: str = "mnist_nc",
    network: Network = "mobilenet_cifar",
    latent_layer: str = "conv3_1.sep",
    memory_size: PositiveInt = 300,
    memory_bytes: PositiveInt | None = None,
    train_epochs: PositiveInt = 4,
    lr: PositiveFloat = 1e-3,
    inc_lr: PositiveFloat = 5e-5,
    weight_decay: NonNegativeFloat = 5e-4,
    init_update_rate: PositiveFloat = 0.01,
    inc_update_rate: PositiveFloat = 5e-5,
    max_r_max: PositiveFloat = 1.25,
    max_d_max: PositiveFloat = 0.5,
    inc_step: NonNegativeFloat = 4.1e-5,
    ewc_lambda: NonNegativeFloat = 0.0,
    **frame: Any,
) -> Setup:
    """Avalanche's AR1 around our MobileNet, as it is: latents with shuffled labels.

    Args:
        stream: Name of the stream; the command `list` shows them.
        network: mobilenet or mobilenet_cifar.
        latent_layer: Name of the last layer below the stored activations.
        memory_size: Activations in memory, at most as many as images come first; at
            least a mini-batch.
        memory_bytes: In place of memory_size: as many as fit; null: memory_size.
        train_epochs: Passes over each experience.
        lr: Learning rate of the first experience.
        inc_lr: Learning rate of later ones.
        weight_decay: Weight decay of SGD.
        init_update_rate: Of the statistics of Batch Renormalization, at first.
        inc_update_rate: The same in later experiences.
        max_r_max: Limit of r.
        max_d_max: Limit of d.
        inc_step: Growth of both limits with each image of the first experience.
        ewc_lambda: Weight of Synaptic Intelligence.
    """
    method = {
        "inc_lr": inc_lr,
        "init_update_rate": init_update_rate,
        "inc_update_rate": inc_update_rate,
        "max_r_max": max_r_max,
        "max_d_max": max_d_max,
        "inc_step": inc_step,
        "ewc_lambda": ewc_lambda,
    }
    protocol = Frame(
        stream=stream,
        network=network,
        train_epochs=train_epochs,
        lr=lr,
        weight_decay=weight_decay,
        **frame,
    )
    n_classes = _require_what_ar1_can(protocol)
    if memory_bytes is None and memory_size < protocol.train_mb_size:
        raise UsageError(
            f"memory_size is {memory_size}; wanted at least train_mb_size, which is "
            f"{protocol.train_mb_size}, as Avalanche's AR1 divides by their quotient"
        )

    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from torch.nn import Linear

        from avalanche_ext.plugins.memory_resident import MemoryResidentPlugin
        from benchmarks.training.ar1_host import make_ar1, row_bytes, split_mobilenet

        extractor = protocol.make_feature_extractor()
        head = Linear(extractor.feature_size, n_classes, bias=False)
        network = split_mobilenet(extractor, latent_layer, head)
        _, plugins = protocol.make_optimizer(head)  # AR1 makes its own optimizer
        number = memory_size
        if memory_bytes is not None:
            each = row_bytes(network, STREAMS[protocol.stream].image_shape)
            number = number_that_fits(
                memory_bytes, each, at_least=protocol.train_mb_size
            )
        return make_ar1(  # type: ignore[no-any-return]
            network,
            rm_sz=number,
            lr=protocol.lr,
            momentum=protocol.momentum,
            l2=protocol.weight_decay,
            # leaves training as it is, and keeps evaluation from drawing numbers
            plugins=[MemoryResidentPlugin(memory_resident=False), *plugins],
            evaluator=evaluator,
            device=device,
            **protocol.template_options(),
            **method,
        )

    size = f"{memory_size} activations"
    if memory_bytes is not None:
        size = f"activations in {memory_bytes} bytes"
    return protocol.setup(make_strategy, memory=f"{size} after {latent_layer}")


def _require_what_ar1_can(frame: Frame) -> int:
    """Number of classes; refuse a frame that Avalanche's AR1 cannot take."""
    require_one_head("avalanche_ar1", frame)
    if frame.network not in ("mobilenet", "mobilenet_cifar"):
        raise UsageError(
            f"network is {frame.network}; wanted mobilenet or mobilenet_cifar, which "
            "have layers to cut after"
        )
    if frame.n_classes is None or frame.optimizer != "sgd" or frame.milestones:
        raise UsageError(
            f"stream is {frame.stream}, optimizer {frame.optimizer}, milestones "
            f"{list(frame.milestones)}; wanted a stream of known classes, sgd and "
            "none, as Avalanche's AR1 does"
        )
    return frame.n_classes
