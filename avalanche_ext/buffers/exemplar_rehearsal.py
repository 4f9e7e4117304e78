"""What a buffer of optimised exemplars would refuse, found before training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from avalanche_ext._checks import require_kind
from avalanche_ext.buffers.exemplar_images import ExemplarImages
from avalanche_ext.buffers.exemplar_level import require_one_head
from avalanche_ext.buffers.exemplar_steps import Exemplars
from avalanche_ext.loaders import batches_of, values_of
from avalanche_ext.models.feature_classifier import require_features

if TYPE_CHECKING:
    from avalanche_ext.buffers.mnemonics import MnemonicsBuffer
    from avalanche_ext.buffers.mnemonics_optimizer import MnemonicsOptimizer

#: Samples whose pixels are looked at.
_N_SAMPLES = 64


def rehearse(buffer: MnemonicsBuffer, strategy: Any, dataset: Any) -> None:
    """Try on a few samples what the buffer will do once an experience is trained.

    Nothing is drawn from the random generators. The optimisation is tried again only
    where the layers of the model, which of them are trained, or the images' shape differ
    from the last trial.

    Args:
        buffer: The buffer; found as it was.
        strategy: Its model has been adapted to the experience; found as it was.
        dataset: The data of the experience.

    Raises:
        ValueError: If `MnemonicsBuffer.post_adapt` would raise it, or a class would
            have no place in the total budget.
        RuntimeError: If an operation of the model cannot be differentiated twice.
    """
    require_one_head(strategy.model)
    kept, targets = buffer.exemplars, [int(y) for y in values_of(dataset.targets)]
    n_classes = len(kept.pixels.keys() | set(targets))
    if buffer.per_class is None and n_classes > buffer.max_size:
        raise ValueError(
            f"the total budget (max_size, memory_size) is {buffer.max_size}; wanted at "
            f"least {n_classes}, an exemplar for each class met"
        )
    if buffer.selection.kind == "herding":
        require_features(strategy.model)
    rows = list(range(0, len(targets), -(-len(targets) // _N_SAMPLES)))
    x, y = (
        _inputs(buffer, strategy, dataset.subset(rows).eval()),
        torch.tensor(targets)[rows],
    )
    trial = ExemplarImages(buffer.storage_dtype)
    trial.space = kept.space
    trial.augment = kept.augment
    trial.prepare(dataset, x, buffer.mean, buffer.std, buffer.buffer_transform)
    assert trial.space is not None  # prepared just now
    trial.space.pixels(x)
    if buffer.optimizer is not None:
        short = replace(
            buffer.optimizer, inner_steps=1, inner_epochs=None, truncate=None
        )
        _try(short, buffer, strategy, Exemplars(x[:2], y[:2]))


def _try(
    short: MnemonicsOptimizer, buffer: MnemonicsBuffer, strategy: Any, pair: Exemplars
) -> None:
    """Try a step, unless one on such layers and images was tried before."""
    if len(pair.y) < 2 and short.batchnorm != "eval":
        return
    layers = [
        (name, type(layer), any(p.requires_grad for p in layer.parameters(False)))
        for name, layer in strategy.model.named_modules()
    ]
    seen = short, pair.x.shape[1:], layers
    if seen != buffer.rehearsed:
        pair = Exemplars(*(each.to(strategy.device) for each in pair))
        short.gradient(strategy.model, pair, (pair.x, pair.y))
        buffer.rehearsed = seen


def _inputs(buffer: MnemonicsBuffer, strategy: Any, data: Any) -> Tensor:
    """Few samples as the network sees them."""
    with torch.random.fork_rng(devices=[]):
        require_kind(Tensor, **{"an evaluation sample": data[0][0]})
        batches = batches_of(
            data,
            strategy.device,
            batch_size=_N_SAMPLES,
            memory_resident=buffer.memory_resident,
        )
        return torch.cat([x for x, *_ in batches]).cpu()
