"""Exemplars that are optimised, not only chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from avalanche.benchmarks import CLExperience
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from avalanche_ext._checks import (
    generator_state,
    require_choice,
    require_loading,
    restore_generator,
)
from avalanche_ext.buffers.class_budget import require_total, share
from avalanche_ext.buffers.exemplar_images import ExemplarImages
from avalanche_ext.buffers.exemplar_level import ExemplarLevel, require_one_head
from avalanche_ext.buffers.exemplar_log import ExemplarLog
from avalanche_ext.buffers.exemplar_rehearsal import rehearse
from avalanche_ext.buffers.exemplar_selection import Selection
from avalanche_ext.buffers.mnemonics_optimizer import (
    MnemonicsOptimizer,
    Preset,
    setting_of,
)
from avalanche_ext.buffers.pixel_space import (
    StorageDtype,
    Transform,
    augmentation_of,
    require_normalization,
    require_tensor_transform,
)
from avalanche_ext.loaders import values_of


class MnemonicsBuffer(ExemplarsBuffer):
    """Exemplars whose pixels are optimised, kept as images of their own.

    After each experience exemplars of its classes are selected, and optimised so that
    the model, trained on them for a few steps, does well on the data of the experience.
    Then the exemplars of earlier classes are adjusted: one half of each class for the
    other. See `MnemonicsOptimizer`. Where nothing can be optimised, the exemplars stay
    as selected, with a warning.

    Every class keeps the order of its selection. Under a total budget all classes keep
    an equal share, the beginning of it; nothing is selected anew. A class that comes
    back is selected anew among its exemplars and its new samples.

    It serves `ExemplarReplayPlugin`, `LUCIR(buffer=...)`, `BDR(buffer=...)` and, with
    ``max_size``, Avalanche's own `ReplayPlugin`; any model with one head.

    Args:
        selection: What to start from: ``"random"`` as in the paper, ``"herding"`` as in
            the released code, or any other `ExemplarsBuffer`, whose choice among the
            classes of each experience is taken (its sizes are then those of this one).
        per_class: Exemplars a class, >= 1; 20 if no size is given.
        max_size: Total number of exemplars, >= 1; instead of ``per_class``.
        optimizer: A setting by name, or one of your own; None: exemplars stay as
            selected.
        storage_dtype: ``"uint8"`` takes a quarter of the bytes of ``"float32"``, as
            many as the images it came from; rounded to the nearest grey level.
        buffer_transform: Augmentation of exemplars in training, from a float tensor in
            0 to 1 to another; ``"auto"``: that of the data; None: none.
        mean: Such that inputs * std + mean are pixels in 0 to 1; None: as the data are
            normalised.
        std: Likewise.
        batch_size: Samples at once where nothing is optimised, >= 1.
        memory_resident: See `avalanche_ext.loaders.make_loader`.
        generator: Of selections, halves and mini-batches; None for torch's default.
        progress: Whether to show a progress bar on stderr; None: on a terminal.

    Attributes:
        exemplars: The images, see `ExemplarImages`.
        history: Of each experience the losses, see `ExemplarLog`.

    Raises:
        ValueError: If an argument is out of its range; after an experience, if pixels
            are not in 0 to 1, or a transform does not work on tensors.

    Example:
        >>> from avalanche.training.plugins import ReplayPlugin
        >>> buffer = MnemonicsBuffer("herding", max_size=200)
        >>> plugin = ReplayPlugin(200, storage_policy=buffer)

    References:
        Liu et al., Mnemonics Training, CVPR 2020, arXiv 2002.10211.
    """

    def __init__(
        self,
        selection: Literal["random", "herding"] | ExemplarsBuffer = "random",
        *,
        per_class: int | None = None,
        max_size: int | None = None,
        optimizer: MnemonicsOptimizer | Preset | None = "fast",
        storage_dtype: StorageDtype = "float32",
        buffer_transform: Transform | Literal["auto"] | None = "auto",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        batch_size: int = 256,
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
        progress: bool | None = None,
    ) -> None:
        require_loading(memory_resident, generator)
        self.selection = Selection(selection, batch_size, memory_resident, generator)
        per_class, max_size = self.selection.sizes(per_class, max_size)
        super().__init__(max_size or 0)
        require_choice(get_args(StorageDtype), storage_dtype=storage_dtype)
        require_choice((True, False, None), progress=progress)
        if buffer_transform is not None and buffer_transform != "auto":
            require_tensor_transform(
                buffer_transform, torch.zeros(3, 512, 512), same_shape=False
            )
        require_normalization(mean, std)
        self.per_class = per_class
        self.optimizer = setting_of(optimizer)
        self.storage_dtype = storage_dtype
        self.buffer_transform = buffer_transform
        self.mean, self.std = mean, std
        self.batch_size = batch_size
        self.memory_resident = memory_resident
        self.generator = generator
        self.history = ExemplarLog(progress)
        self.exemplars = ExemplarImages(storage_dtype)
        self.rehearsed: Any = None  # what the last trial of the optimisation was on
        self._sources: list[Any] = []  # the data of each experience, by reference

    def post_adapt(self, agent_state: Any, exp: CLExperience) -> None:
        """Select and optimise exemplars of the experience just trained.

        Args:
            agent_state: The strategy: its model and device are used, and its evaluator
                is told the losses; the model is left as found.
            exp: The experience.

        Raises:
            ValueError: If the model has a head a task, inputs are not pixels in 0 to 1
                once unnormalised, or features that are needed are missing or not finite.
        """
        model, device = agent_state.model, agent_state.device
        require_one_head(model)
        kept, before = self.exemplars, dict(self.exemplars.pixels)
        labels = sorted({int(y) for y in values_of(exp.dataset.targets)})
        quotas = self._quotas([*before, *labels])
        stored = {c: kept.inputs([c], device) for c in labels}
        chosen = self.selection.choose(
            agent_state,
            exp,
            {c: old.x for c, old in stored.items() if old is not None},
            quotas.__getitem__,
        )
        if chosen:
            x = next(iter(chosen.values())).x
            kept.prepare(exp.dataset, x, self.mean, self.std, self.buffer_transform)
        for label, choice in chosen.items():
            kept.put(label, choice, len(self._sources))
        self._sources.append(exp.dataset)
        # Shrunk first: what is to be dropped need not be optimised.
        self._rebuild()
        new = kept.inputs(chosen, device)
        old = kept.inputs([c for c in before if c not in chosen], device)
        if new is None or self.optimizer is None:
            return
        level = ExemplarLevel(
            self.optimizer,
            agent_state,
            kept.space.box(new.x),  # type: ignore[union-attr]
            self.history,
            experience=len(self._sources) - 1,
            memory_resident=self.memory_resident,
            generator=self.generator,
        )
        if not level.decides(new.x[:1]):
            return
        kept.replace(level.fit(new, exp.dataset, old))
        if old is not None and self.optimizer.adjust_old is not None:
            kept.replace(level.adjust(old))
        self._rebuild()

    def rehearse(self, strategy: Any, dataset: Any) -> None:
        """Refuse before training what `post_adapt` would; see `rehearse` for more."""
        rehearse(self, strategy, dataset)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Change the total budget; every class keeps the beginning of its selection.

        Args:
            strategy: Handed on to a buffer that selects.
            new_size: New total number of exemplars, >= 1.

        Raises:
            ValueError: If the size is not positive or was given per class.
        """
        require_total(self.per_class, new_size)
        self.max_size = new_size
        self.selection.resize(strategy, new_size)
        self._rebuild()

    @property
    def n_experiences(self) -> int:
        """Number of experiences met."""
        return len(self._sources)

    def data(self, experience: int) -> Any:
        """The data of an experience, of which the buffer keeps a reference.

        Args:
            experience: Its number, from 0.

        Returns:
            An Avalanche dataset in evaluation mode.
        """
        return self._sources[experience].eval()

    def images(self) -> dict[int, Tensor]:
        """The exemplars as pixels.

        Returns:
            float32 in 0 to 1 by class id, ``(k, C, H, W)``.
        """
        kept = self.exemplars
        return {c: kept.floats(c) for c, p in kept.pixels.items() if len(p)}

    def initial(self, experience: int) -> dict[int, Tensor]:
        """Exemplars of an experience as they were selected.

        They are read from the stream, to be looked at; nothing learns from them.

        Args:
            experience: Its number, from 0.

        Returns:
            Pixels in 0 to 1 by class id, ``(k, C, H, W)``; only classes all of whose
            exemplars were selected in that experience.
        """
        return self.exemplars.as_selected(experience, self.data(experience))

    def memory_bytes(self) -> dict[str, int]:
        """Bytes of the exemplars as they are stored.

        Returns:
            ``{"exemplars": bytes}``.
        """
        return {"exemplars": self.exemplars.nbytes()[self.exemplars.dtype]}

    def state_dict(self) -> dict[str, Any]:
        """The exemplars themselves, where they came from, and the losses.

        Returns:
            Tensors and plain data.
        """
        return {
            "max_size": self.max_size,
            "history": list(self.history.entries),
            "selection": self.selection.state_dict(),
            **self.exemplars.state_dict(),
            **generator_state(self.generator),
        }

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Put the exemplars back.

        Args:
            state: As returned by `state_dict`.
            experiences: Those trained so far, in order.

        Raises:
            ValueError: If images were stored in another data type, or only one of the
                two has a generator.
        """
        restore_generator(self.generator, state)
        self.exemplars.load_state_dict(state)
        self.selection.load_state_dict(state["selection"], experiences)
        self.max_size = state["max_size"]
        self.history.entries = list(state["history"])
        self._sources = [experience.dataset for experience in experiences]
        if self.exemplars.space is not None:
            self.exemplars.augment = augmentation_of(
                self._sources[0], self.buffer_transform
            )
        self._rebuild()

    def _quotas(self, labels: Iterable[int]) -> dict[int, int]:
        """Exemplars each class may keep; earlier classes get the remainder."""
        each = list(dict.fromkeys(labels))
        budget = self.per_class, self.max_size
        return {c: share(*budget, place, len(each)) for place, c in enumerate(each)}

    def _rebuild(self) -> None:
        """Shrink every class to its quota, and make the data set anew."""
        self.exemplars.shrink(self._quotas(self.exemplars.pixels).__getitem__)
        self.buffer = self.exemplars.dataset()
