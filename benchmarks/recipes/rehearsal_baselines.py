"""Avalanche's own strategies with exemplars, in the frame of the methods.

Their memory is a number of images, or as many as fit into the bytes that another
method keeps. Bytes are counted as `avalanche_ext.metrics.memory` does.
"""

from __future__ import annotations

from math import prod
from typing import Any

from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt

from benchmarks.names import UsageError
from benchmarks.recipes.baselines import SMOKE, baseline, require_one_head
from benchmarks.recipes.frame import Frame
from benchmarks.recipes.memory_bytes import number_that_fits, stored_bytes
from benchmarks.recipes.recipe import Device, Evaluator, Setup, Strategy, recipe
from benchmarks.streams import STREAMS

FLOAT_BYTES = 4


@recipe(smoke=SMOKE)
def replay(
    *,
    exemplars: PositiveInt = 200,
    memory_bytes: PositiveInt | None = None,
    **frame: Any,
) -> Setup:
    """Avalanche's Replay with a linear classifier: half of each batch is memory.

    Args:
        exemplars: Images in memory, shared by the experiences seen so far.
        memory_bytes: In place of exemplars: as many images as fit; null: exemplars.
    """
    protocol = Frame(**frame)
    if memory_bytes is not None:
        exemplars = number_that_fits(memory_bytes, stored_bytes(protocol.stream))
    memory = f"{exemplars} exemplars in all"
    return baseline("Replay", protocol, {"mem_size": exemplars}, memory)


@recipe(smoke=SMOKE)
def der(
    *,
    exemplars: PositiveInt = 200,
    memory_bytes: PositiveInt | None = None,
    alpha: NonNegativeFloat = 0.1,
    beta: NonNegativeFloat = 0.5,
    **frame: Any,
) -> Setup:
    """Avalanche's DER++ with a head of full width: remembers images and logits.

    Half of each batch is memory, less while there are fewer images in it. Logits are
    noted after each experience, of images as they look in evaluation.

    Args:
        exemplars: Images in memory, shared by the classes seen so far.
        memory_bytes: In place of exemplars: as many images, each with its logits, as
            fit; null: exemplars.
        alpha: Weight of the distance to the logits noted.
        beta: Weight of the cross-entropy of the memory; 0: DER.
    """
    protocol = Frame(**frame)
    require_one_head("der", protocol)
    n_classes = _require_known_classes("der", protocol)
    if memory_bytes is not None:
        each = stored_bytes(protocol.stream) + FLOAT_BYTES * n_classes
        exemplars = number_that_fits(memory_bytes, each)

    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from torch.nn import Linear, Sequential

        from avalanche_ext.plugins.memory_resident import MemoryResidentPlugin
        from benchmarks.training.der_host import SmallMemoryDER

        extractor = protocol.make_feature_extractor()
        model = Sequential(extractor, Linear(extractor.feature_size, n_classes))
        optimizer, schedule = protocol.make_optimizer(model)
        resident = MemoryResidentPlugin(memory_resident=protocol.memory_resident)
        return SmallMemoryDER(
            model=model,
            optimizer=optimizer,
            mem_size=exemplars,
            alpha=alpha,
            beta=beta,
            plugins=[resident, *schedule],
            evaluator=evaluator,
            device=device,
            **protocol.template_options(),
        )

    memory = f"{exemplars} exemplars in all, with logits"
    return protocol.setup(make_strategy, memory=memory)


@recipe(smoke=SMOKE)
def icarl(
    *,
    exemplars: PositiveInt = 200,
    memory_bytes: PositiveInt | None = None,
    lr: PositiveFloat = 0.2,
    **frame: Any,
) -> Setup:
    """Avalanche's iCaRL: herded exemplars, distillation, nearest class mean.

    Its loss is a binary cross-entropy averaged over the classes, which wants a larger
    learning rate than the others' does. Exemplars are kept as they look in evaluation
    and augmented as the stream's images are. Avalanche counts classes not yet trained
    as means of zero: an image far from all means can be taken for one.

    Args:
        exemplars: Images in memory, shared by the classes seen so far; Avalanche rounds
            the share of a class up.
        memory_bytes: In place of exemplars: as many as fit, beside the class means, in
            whole images a class; null: exemplars.
        lr: Learning rate at the start of each experience.
    """
    protocol = Frame(lr=lr, **frame)
    require_one_head("icarl", protocol)
    info = STREAMS[protocol.stream]
    if info.n_classes is None or "class_order" in info.refused:
        raise UsageError(
            f"stream is {info.name}; wanted one whose experiences bring new classes, "
            "of a number known beforehand, as Avalanche's iCaRL does"
        )
    n_classes = info.n_classes

    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from avalanche.training.supervised import ICaRL
        from torch.nn import Linear, ModuleList

        from avalanche_ext.plugins.memory_resident import MemoryResidentPlugin
        from benchmarks.streams.transforms import augmentation

        extractor = protocol.make_feature_extractor()
        head = Linear(extractor.feature_size, n_classes)
        optimizer, plugins = protocol.make_optimizer(ModuleList([extractor, head]))
        plugins.insert(
            0, MemoryResidentPlugin(memory_resident=protocol.memory_resident)
        )
        number = exemplars
        if memory_bytes is not None:
            from benchmarks.training.icarl_shares import WholeShares

            number = number_that_fits(
                memory_bytes,
                prod(info.image_shape) + FLOAT_BYTES,  # and its place in the herding
                besides=FLOAT_BYTES * n_classes * extractor.feature_size,
                at_least=n_classes,
            )
            plugins.append(WholeShares(number))
        return ICaRL(
            feature_extractor=extractor,
            classifier=head,
            optimizer=optimizer,
            memory_size=number,
            buffer_transform=augmentation(info),
            fixed_memory=True,
            plugins=plugins,
            evaluator=evaluator,
            device=device,
            **protocol.template_options(),
        )

    size = f"{exemplars} exemplars in all"
    if memory_bytes is not None:
        size = f"exemplars in {memory_bytes} bytes"
    return protocol.setup(make_strategy, memory=size)


def _require_known_classes(name: str, frame: Frame) -> int:
    """Number of classes of the stream; refuse one that does not tell."""
    if frame.n_classes is None:
        raise UsageError(
            f"stream is {frame.stream}; wanted one that tells its number of classes, "
            f"as {name} has a head of full width from the start"
        )
    return frame.n_classes
