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
from avalanche_ext.models.feature_classifier import require_features

if TYPE_CHECKING:
    from avalanche_ext.buffers.mnemonics import MnemonicsBuffer

#: Samples whose pixels are looked at.
_N_SAMPLES = 64


def rehearse(buffer: MnemonicsBuffer, strategy: Any, dataset: Any) -> None:
    """Try on a few samples what the buffer will do once an experience is trained.

    Nothing is kept of it, and nothing drawn from the random generators.

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
    kept, targets = buffer.exemplars, [int(y) for y in dataset.targets]
    n_classes = len(kept.pixels.keys() | set(targets))
    if buffer.per_class is None and n_classes > buffer.max_size:
        raise ValueError(
            f"the total budget (max_size, memory_size) is {buffer.max_size}; wanted at "
            f"least {n_classes}, an exemplar for each class met"
        )
    if buffer.selection.kind == "herding":
        require_features(strategy.model)
    x, y = _some(dataset, targets)
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
        pair = Exemplars(x[:2].to(strategy.device), y[:2].to(strategy.device))
        if len(pair.y) == 2 or short.batchnorm == "eval":
            short.gradient(strategy.model, pair, (pair.x, pair.y))


def _some(dataset: Any, targets: list[int]) -> tuple[Tensor, Tensor]:
    """Samples from all over the data, as the network sees them in evaluation."""
    rows = list(range(0, len(targets), -(-len(targets) // _N_SAMPLES)))
    with torch.random.fork_rng(devices=[]):
        data = dataset.eval()
        images = [data[i][0] for i in rows]
    require_kind(Tensor, **{"an evaluation sample": images[0]})
    return torch.stack(images), torch.tensor([targets[i] for i in rows])
