"""Exemplars whose mean feature stays close to the mean of their class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from avalanche.benchmarks import CLExperience
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from avalanche_ext._checks import require_choice, require_whole
from avalanche_ext.buffers.class_budget import (
    require_finite_features,
    require_total,
    share,
    warn_of_few,
)
from avalanche_ext.functional.herding import HerdingVariant, herding_indices
from avalanche_ext.loaders import image_bytes, make_loader, values_of
from avalanche_ext.models.feature_classifier import extract_features, require_features


class HerdingBuffer(ExemplarsBuffer):
    """Exemplars ranked by herding: a number per class, or a total shared by all.

    After each experience its classes are ranked by herding on the features of the
    model as it is then (evaluation mode, evaluation transforms, unit length).
    Classes of earlier experiences keep their exemplars; under a total budget every
    class keeps an equal share, the beginning of its ranking. A class that comes
    back is ranked again over its exemplars and its new samples.

    The buffer refers to samples of the stream; it copies no images. It serves
    `ExemplarReplayPlugin` and, with ``max_size``, Avalanche's own `ReplayPlugin`.

    Args:
        per_class: Exemplars a class, >= 1; 20 if neither size is given.
        max_size: Total number of exemplars, >= 1; instead of ``per_class``.
        variant: See `herding_indices`.
        batch_size: Samples at once when features are computed, >= 1.
        memory_resident: See `avalanche_ext.loaders.make_loader`.

    Raises:
        ValueError: If both sizes are given or one is not positive.

    References:
        Rebuffi et al., CVPR 2017 (iCaRL); Hou et al., CVPR 2019 (LUCIR).
    """

    def __init__(
        self,
        *,
        per_class: int | None = None,
        max_size: int | None = None,
        variant: HerdingVariant = "without_replacement",
        batch_size: int = 256,
        memory_resident: Literal["auto"] | bool = "auto",
    ) -> None:
        if per_class is not None and max_size is not None:
            raise ValueError(
                f"per_class {per_class} and max_size {max_size}; wanted one of the two"
            )
        if per_class is None and max_size is None:
            per_class = 20
        require_whole(1, batch_size=batch_size)
        if max_size is None:
            require_whole(1, per_class=per_class)
        else:
            require_whole(1, max_size=max_size)
        require_choice(get_args(HerdingVariant), variant=variant)
        super().__init__(max_size or 0)
        self.per_class = per_class
        self.variant = variant
        self.batch_size = batch_size
        self.memory_resident = memory_resident
        # The data of each experience, and for each class (by arrival) the rows
        # (experience, position in its data) of the exemplars, best first.
        self._sources: list[AvalancheDataset] = []
        self._rows: dict[int, Tensor] = {}
        self._held: list[tuple[int, ...]] = []  # the row of each sample of the buffer

    def post_adapt(self, agent_state: Any, exp: CLExperience) -> None:
        """Choose exemplars of the experience just trained.

        Args:
            agent_state: The strategy: its model, as in `FeatureClassifier`, and
                its device are used; the model is left as found.
            exp: The experience.

        Raises:
            ValueError: If the model exposes no features or they are not finite.
        """
        require_features(agent_state.model)
        candidates = self._candidates(exp)
        loader = make_loader(
            self._take(_pairs(candidates.values())).eval(),
            batch_size=self.batch_size,
            shuffle=False,
            device=agent_state.device,
            memory_resident=self.memory_resident,
        )
        features, _ = extract_features(agent_state.model, loader, agent_state.device)
        sizes, quotas = [len(r) for r in candidates.values()], self._quotas()
        for (label, own), unit in zip(
            candidates.items(), torch.split(features, sizes), strict=True
        ):
            require_finite_features(unit, label)
            size = max(1, min(quotas[label], len(own)))
            self._rows[label] = own[herding_indices(unit, size, self.variant).cpu()]
        self._rebuild()

    def resize(self, strategy: Any, new_size: int) -> None:
        """Change the total budget; every class keeps the beginning of its ranking.

        Args:
            strategy: Unused; Avalanche's signature.
            new_size: New total number of exemplars, >= 1.

        Raises:
            ValueError: If the size is not positive or was given per class.
        """
        require_total(self.per_class, new_size)
        self.max_size = new_size
        self._rebuild()

    def memory_bytes(self) -> dict[str, int]:
        """Bytes of the raw images kept.

        Returns:
            ``{"exemplars": bytes}``.
        """
        return {"exemplars": image_bytes(self.buffer)}

    def state_dict(self) -> dict[str, Any]:
        """Where each exemplar comes from; no images.

        Returns:
            The total budget, and for each class its rows (experience, position).
        """
        return {"max_size": self.max_size, "rows": dict(self._rows)}

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Take the same samples from the experiences again.

        Args:
            state: As returned by `state_dict`.
            experiences: Those trained so far, in order.
        """
        self.max_size = state["max_size"]
        self._rows = dict(state["rows"])
        self._sources = [experience.dataset for experience in experiences]
        self._held = []  # of other experiences
        self._rebuild()

    def _candidates(self, exp: CLExperience) -> dict[int, Tensor]:
        """Rows of each class of the experience, its stored exemplars first."""
        self._sources.append(exp.dataset)
        targets = torch.as_tensor([int(y) for y in values_of(exp.dataset.targets)])
        candidates: dict[int, Tensor] = {}
        for label in torch.unique(targets).tolist():
            position = (targets == label).nonzero()
            source = torch.full_like(position, len(self._sources) - 1)
            rows = torch.cat([source, position], dim=1)
            stored = self._rows.setdefault(label, rows[:0])
            candidates[label] = torch.cat([stored, rows])
        quotas = self._quotas()
        short = {c: len(r) for c, r in candidates.items() if len(r) < quotas[c]}
        warn_of_few(max((quotas[c] for c in short), default=0), short)
        return candidates

    def _quotas(self) -> dict[int, int]:
        """Exemplars each class may keep; earlier classes get the remainder."""
        n = len(self._rows)
        return {
            label: share(self.per_class, self.max_size, arrival, n)
            for arrival, label in enumerate(self._rows)
        }

    def _take(self, rows: Sequence[tuple[int, ...]]) -> AvalancheDataset:
        """The samples of the rows, in that order; few data sets to join are fast."""
        place = {row: i for i, row in enumerate(self._held)}
        if place.keys().isdisjoint(rows):
            place = {}
        elsewhere: dict[int, list[int]] = {}
        for source, position in rows:
            if (source, position) not in place:
                elsewhere.setdefault(source, []).append(position)
        parts, n = [self.buffer] if place else [], len(place)
        for source, positions in elsewhere.items():
            parts.append(self._sources[source].subset(positions))
            place |= {(source, p): n + i for i, p in enumerate(positions)}
            n += len(positions)
        return concat_datasets(parts).subset([place[row] for row in rows])

    def _rebuild(self) -> None:
        """Shrink every class to its quota and refer to the exemplars anew."""
        quotas = self._quotas()
        self._rows = {c: r[: max(0, quotas[c])] for c, r in self._rows.items()}
        rows = _pairs(self._rows.values())
        self.buffer = self._take(rows) if rows else concat_datasets([])
        self._held = rows


def _pairs(rows: Iterable[Tensor]) -> list[tuple[int, ...]]:
    return [(source, position) for some in rows for source, position in some.tolist()]
