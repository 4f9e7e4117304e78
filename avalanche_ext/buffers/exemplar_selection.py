"""Which samples of an experience exemplars start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from avalanche_ext._checks import require_choice, require_whole
from avalanche_ext.buffers.buffer_state import restore_buffer, saved_buffer
from avalanche_ext.buffers.class_budget import require_finite_features, warn_of_few
from avalanche_ext.functional.herding import herding_indices
from avalanche_ext.functional.undisturbed import undisturbed
from avalanche_ext.loaders import batches_of, make_loader, values_of
from avalanche_ext.models.feature_classifier import (
    extract_features,
    require_features,
)


class Chosen(NamedTuple):
    """Exemplars of one class, best first.

    Attributes:
        x: Inputs of the network, ``(k, C, H, W)``, on its device.
        stored: Place among the exemplars the class had, -1 for new ones, ``(k,)``.
        position: Place in the data of the experience, -1 for stored ones and where it
            is not known, ``(k,)``.
        task_labels: ``(k,)``; -1 where there are none.
    """

    x: Tensor
    stored: Tensor
    position: Tensor
    task_labels: Tensor


class Selection:
    """Takes exemplars of the classes of an experience.

    Args:
        kind: ``"random"``, ``"herding"`` (unit features, as iCaRL), or another buffer.
        batch_size: Samples at once.
        memory_resident: See `avalanche_ext.loaders.make_loader`.
        generator: Of the random selection.

    Raises:
        ValueError: If the kind is unknown.
    """

    def __init__(
        self,
        kind: Literal["random", "herding"] | ExemplarsBuffer,
        batch_size: int,
        memory_resident: Literal["auto"] | bool,
        generator: torch.Generator | None,
    ) -> None:
        if not isinstance(kind, ExemplarsBuffer):
            require_choice(("random", "herding"), selection=kind)
        require_whole(1, batch_size=batch_size)
        self.kind = kind
        self._batch_size = batch_size
        self._memory_resident = memory_resident
        self._generator = generator

    def sizes(
        self, per_class: int | None, max_size: int | None
    ) -> tuple[int | None, int | None]:
        """Exemplars a class, or in all.

        Args:
            per_class: As the user gave it.
            max_size: Likewise.

        Returns:
            One of them, the other None.

        Raises:
            ValueError: If more than one is given, or one is not positive.
        """
        given = {"per_class": per_class, "max_size": max_size}
        given = {name: size for name, size in given.items() if size is not None}
        if isinstance(self.kind, ExemplarsBuffer):
            if given:
                raise ValueError(
                    f"{given} given with a buffer as selection; wanted its own sizes only"
                )
            per_class = getattr(self.kind, "per_class", None)
            max_size = None if per_class else self.kind.max_size
            given = {"per_class": per_class} if per_class else {"max_size": max_size}
        if len(given) > 1:
            raise ValueError(f"{given} given; wanted one of the two")
        require_whole(1, **given)
        if not given:
            per_class = 20
        return per_class, max_size

    def resize(self, strategy: Any, new_size: int) -> None:
        """Hand a new total budget on to the buffer that selects.

        Args:
            strategy: Of Avalanche's.
            new_size: New total number of exemplars.
        """
        if isinstance(self.kind, ExemplarsBuffer):
            self.kind.resize(strategy, new_size)

    def state_dict(self) -> dict[str, Any]:
        """State of the buffer that selects.

        Returns:
            Plain data, and data of the stream; empty for other selections.
        """
        return saved_buffer(self.kind) if isinstance(self.kind, ExemplarsBuffer) else {}

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[Any]
    ) -> None:
        """Put it back.

        Args:
            state: What `state_dict` returned.
            experiences: Those trained so far, in order.

        Raises:
            ValueError: If only one of the two selects by a buffer.
        """
        if bool(state) != isinstance(self.kind, ExemplarsBuffer):
            ours = self.kind if isinstance(self.kind, str) else type(self.kind).__name__
            raise ValueError(
                f"exemplars were selected by {'a buffer' if state else 'name'}; this "
                f"run has selection {ours}; wanted the same"
            )
        if isinstance(self.kind, ExemplarsBuffer):
            restore_buffer(self.kind, state, experiences)

    def choose(
        self,
        strategy: Any,
        exp: Any,
        stored: Mapping[int, Tensor],
        quota: Callable[[int], int],
    ) -> dict[int, Chosen]:
        """Exemplars of the classes of an experience.

        Args:
            strategy: Its model and device are used; the model is left as found.
            exp: The experience.
            stored: Inputs of the exemplars there are, by class id.
            quota: How many a class may have.

        Returns:
            By class id; classes without a quota are left out.

        Raises:
            ValueError: If features are needed, and missing or not finite.
        """
        if isinstance(self.kind, ExemplarsBuffer):
            return self._of_buffer(self.kind, strategy, exp, quota)
        data = exp.dataset.eval()
        targets = torch.as_tensor([int(y) for y in values_of(data.targets)])
        classes = [c for c in torch.unique(targets).tolist() if quota(c)]
        places = {c: (targets == c).nonzero().flatten() for c in classes}
        features = self._features(strategy, data) if self.kind == "herding" else None
        chosen, short = {}, {}
        for label, place in places.items():
            old = stored.get(label)
            n_old = 0 if old is None else len(old)
            n, wanted = n_old + len(place), quota(label)
            if n < wanted:
                short[label] = n
            k = min(wanted, n)
            if features is None:
                picked = torch.randperm(n, generator=self._generator)[:k]
            else:
                own = features[place.to(features.device)]
                if old is not None:
                    own = torch.cat([self._features_of(strategy, old), own])
                require_finite_features(own, label)
                picked = herding_indices(own, k).cpu()
            chosen[label] = self._take(strategy, data, place, picked, old)
        warn_of_few(max(map(quota, short), default=0), short)
        return chosen

    def _take(
        self,
        strategy: Any,
        data: Any,
        place: Tensor,
        picked: Tensor,
        old: Tensor | None,
    ) -> Chosen:
        """Inputs of picked candidates: the stored ones come first among these."""
        n_old = 0 if old is None else len(old)
        stored = torch.where(picked < n_old, picked, -1)
        new = picked >= n_old
        position = torch.full_like(picked, -1)
        position[new] = place[picked[new] - n_old]
        task_labels = torch.full_like(picked, -1)
        x = None if old is None else old.new_empty(len(picked), *old.shape[1:])
        if bool(new.any()):
            loaded, labels = self._load(strategy, data.subset(position[new].tolist()))
            x = loaded.new_empty(len(picked), *loaded.shape[1:]) if x is None else x
            x[new.to(x.device)] = loaded
            task_labels[new] = labels
        assert x is not None  # a class has a sample, stored or new
        if old is not None:
            x[~new.to(x.device)] = old[stored[~new].to(old.device)]
        return Chosen(x, stored, position, task_labels)

    def _of_buffer(
        self,
        buffer: ExemplarsBuffer,
        strategy: Any,
        exp: Any,
        quota: Callable[[int], int],
    ) -> dict[int, Chosen]:
        """What another buffer keeps of the classes of the experience."""
        buffer.post_adapt(strategy, exp)
        classes = {int(y) for y in exp.dataset.targets.uniques}
        kept = buffer.buffer
        if not len(kept):
            return {}
        targets = torch.as_tensor([int(y) for y in values_of(kept.targets)])
        chosen = {}
        for label in sorted(classes & set(targets.tolist())):
            own = (targets == label).nonzero().flatten()[: quota(label)]
            if len(own):
                x, task_labels = self._load(strategy, kept.eval().subset(own.tolist()))
                none = torch.full_like(own, -1)
                # some of Avalanche's buffers add task labels of 0
                if not hasattr(exp.dataset, "targets_task_labels"):
                    task_labels = none
                chosen[label] = Chosen(x, none, none.clone(), task_labels)
        return chosen

    def _load(self, strategy: Any, data: Any) -> tuple[Tensor, Tensor]:
        """Inputs and task labels (-1: none) of some samples."""
        parts = list(
            batches_of(
                data,
                strategy.device,
                batch_size=self._batch_size,
                memory_resident=self._memory_resident,
            )
        )
        x = torch.cat([x for x, _, _ in parts])
        labels = [t.cpu() for _, _, t in parts if t is not None]
        return x, torch.cat(labels) if labels else torch.full((len(x),), -1)

    def _features(self, strategy: Any, data: Any) -> Tensor:
        require_features(strategy.model)
        loader = make_loader(
            data,
            batch_size=self._batch_size,
            shuffle=False,
            device=strategy.device,
            memory_resident=self._memory_resident,
        )
        with undisturbed(strategy.model, strategy.device):
            return extract_features(strategy.model, loader, strategy.device)[0]

    def _features_of(self, strategy: Any, x: Tensor) -> Tensor:
        with undisturbed(strategy.model, x.device), torch.no_grad():
            strategy.model(x)
            features: Tensor = strategy.model.features
        return features
