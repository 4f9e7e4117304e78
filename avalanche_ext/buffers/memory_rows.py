"""Memorable points inside mini-batches: which ones, in which role, at what weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from avalanche_ext.buffers.memorable_past import MemorablePastBuffer
from avalanche_ext.functional.functional_prior import (
    FUNCTION,
    MASKED,
    NEW,
    mixed_losses,
    soft_targets,
)
from avalanche_ext.functional.precision import at_least_float32
from avalanche_ext.loaders import batches_of
from avalanche_ext.models.past_data import of_width, summed_gradient

_ROW = "memory_row"


class MemoryRows:
    """The points of a buffer for one experience, row by row.

    Samples of a joint data set carry the row of their point, new data the row -1: the
    last one, so that one look-up serves both and no batch waits for the device.

    Args:
        buffer: The memory; M points.
        logits: Of all points by the model to remember, ``(M, K)``.
        weights: :math:`\\tau_k` of each past experience.
        temperature: T > 0 of the functional regulariser.
        device: Where batches are.

    Attributes:
        field: Place of the rows in a mini-batch.
    """

    def __init__(
        self,
        buffer: MemorablePastBuffer,
        logits: Tensor,
        weights: Sequence[float],
        temperature: float,
        device: torch.device,
    ) -> None:
        self.buffer, self.logits, self.temperature = buffer, logits, temperature
        sizes = torch.tensor([len(p) for p in buffer.positions])
        self.roles = torch.cat([*buffer.roles, torch.tensor([NEW])]).to(device)
        taus = torch.tensor(weights).repeat_interleave(sizes)
        self.weights = torch.cat([taus, torch.ones(1)]).to(device)
        self.field = -1
        self._soft: tuple[Tensor, Tensor] | None = None

    def joined_to(self, dataset: AvalancheDataset) -> AvalancheDataset:
        """New data and memory as one data set whose items carry their rows.

        Args:
            dataset: The new data.

        Returns:
            Both, the memory behind, in its training transforms.
        """
        # Avalanche takes the last field of a mini-batch for the task labels
        self.field = -2 if "targets_task_labels" in dataset._data_attributes else -1
        memory = self.buffer.buffer.train()
        numbered = _numbered(dataset, [-1] * len(dataset))
        return numbered.concat(_numbered(memory, list(range(len(memory)))))

    def loss(
        self,
        rows: Tensor,
        logits: Tensor,
        targets: Tensor,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Weighted mean of the losses of a batch.

        Args:
            rows: Of each sample, ``(B,)``.
            logits: Shape ``(B, W)``.
            targets: Class ids, ``(B,)``.
            label_smoothing: See `mixed_losses`.

        Returns:
            Scalar.
        """
        losses = self._losses(
            rows, logits, targets, self.temperature, label_smoothing=label_smoothing
        )
        return (self.weights[rows] * losses).mean()

    def gradient(
        self,
        model: nn.Module,
        role: int,
        scale: Literal["trained", "unit"],
        batch_size: int,
        *,
        residual: bool = False,
    ) -> dict[str, Tensor]:
        """Gradient of the summed losses of the points in one role.

        Args:
            model: Any model; found as it was.
            role: `FUNCTION` or `REPLAY`.
            scale: ``"unit"``: as if weights and temperature were 1.
            batch_size: Samples at once, >= 1.
            residual: Of the losses less those against the soft targets.

        Returns:
            By name of each trained parameter, float64; in evaluation mode.
        """
        mine = torch.nonzero(self.roles[:-1] == role).flatten()
        unit = scale == "unit"
        temperature = 1.0 if unit else self.temperature
        points = self.buffer.buffer.eval().subset(mine.tolist())
        batches = batches_of(
            points,
            self.roles.device,
            batch_size=batch_size,
            memory_resident=self.buffer.memory_resident,
        )

        def loss(logits: Tensor, y: Tensor, t: Any, rows: Tensor) -> Tensor:
            losses = self._losses(rows, logits, y, temperature)
            if residual:
                soft, _ = self._soft_of(rows, logits.shape[1], temperature)
                losses = losses - cross_entropy(logits, soft, reduction="none")
            return (losses if unit else losses * self.weights[rows]).sum()

        rows = torch.split(mine, batch_size)
        numbered = ((*b, r) for b, r in zip(batches, rows, strict=False))
        return summed_gradient(model, numbered, loss)

    def _losses(
        self,
        rows: Tensor,
        logits: Tensor,
        targets: Tensor,
        temperature: float,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        logits, roles = at_least_float32(logits), self.roles[rows]
        soft, known = self._soft_of(rows, logits.shape[1], temperature)
        # a function is kept over the classes there were when it was noted
        hidden = (roles == FUNCTION)[:, None] & ~known
        return mixed_losses(
            logits.masked_fill(hidden, MASKED),
            targets,
            roles,
            soft,
            temperature=temperature,
            label_smoothing=label_smoothing,
        )

    def _soft_of(
        self, rows: Tensor, width: int, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Soft targets of some rows, and which classes have one."""
        if temperature != self.temperature:
            soft, known = self._soft_rows(width, temperature)
        else:
            if self._soft is None or self._soft[0].shape[1] != width:
                self._soft = self._soft_rows(width, temperature)
            soft, known = self._soft
        return soft[rows], known[rows]

    def _soft_rows(self, width: int, temperature: float) -> tuple[Tensor, Tensor]:
        logits = of_width(self.logits, width)
        none = logits.new_full((1, width), MASKED)
        soft = soft_targets(logits, temperature)
        return (
            torch.cat([soft, torch.zeros_like(none)]),
            torch.cat([logits, none]) > MASKED,
        )


def _numbered(dataset: AvalancheDataset, rows: list[int]) -> AvalancheDataset:
    """The data set with rows of memory in its items, before the task labels."""
    attribute = DataAttribute(rows, _ROW, use_in_getitem=True)
    numbered = dataset.update_data_attribute(_ROW, attribute)
    if "targets_task_labels" in numbered._data_attributes:
        numbered._data_attributes.move_to_end("targets_task_labels")
    return numbered
