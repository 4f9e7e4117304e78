"""Activations of a middle layer, kept in place of images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from avalanche.benchmarks import CLExperience
from torch import Tensor

from avalanche_ext._checks import (
    generator_state,
    require_choice,
    require_kind,
    require_whole,
    restore_generator,
)
from avalanche_ext.buffers.latent_checks import (
    require_alike,
    require_finite,
    require_insertable,
    require_state,
)
from avalanche_ext.functional.replay_policy import Replacement, filled_and_overwritten

LatentDtype = Literal["float32", "float16", "uint8"]

_STATE = ("stored", "labels", "task_labels", "experiences", "range", "checksum")


class LatentBuffer:
    r"""Memory of latents with their labels, of which each experience has a share.

    After experience i, h of its A latents are kept,

    .. math:: h = \min(\lfloor R / (i + 1) \rfloor, A),

    in free places while there are some, then in random places of older ones. It is not
    balanced by class. A latent in float32 can take more bytes than the uint8 image it
    comes from; its labels take 8 to 24 more, which `nbytes` counts.

    ``"uint8"`` stores :math:`q = \mathrm{round}(z / s) + q_0`, saturating. The step s
    is 1/255 of the range of all latents of the first experience (see `observe`), and
    fixed from then on; :math:`q_0` is 0 where none was negative (after a ReLU).

    Latents are kept on the CPU, and only those of a mini-batch are moved.

    Args:
        max_size: R >= 0.
        dtype: Of the stored numbers. float16 saturates, too.
        replacement: ``"published"`` fills the memory in experience 0 alone; see
            `filled_and_overwritten`.
        generator: Of the choices, on the CPU; None for torch's default.

    Attributes:
        stored: Shape ``(M, ...)``, of the dtype; None at first.
        labels: int64, ``(M,)``.
        task_labels: int64, ``(M,)``; None on streams without.
        experiences: Number of the experience each is from, int64, ``(M,)``.
        range: Smallest and largest latent observed, ``(2,)``.
        checksum: Of the model that made the latents, for who fills the buffer.

    Raises:
        ValueError: If an argument is out of its range; when latents are put in, if
            they are not finite, or of another shape than those in the memory.

    Example:
        >>> buffer = LatentBuffer(3)
        >>> rows = buffer.choose(5, experience=0)
        >>> buffer.insert(torch.rand(5, 8)[rows], torch.arange(5)[rows], experience=0)
        >>> len(buffer), buffer.nbytes
        (3, 144)

    References:
        Pellegrini et al., IROS 2020; Ravaglia et al., IEEE JETCAS 2021 (8 bits).
    """

    def __init__(
        self,
        max_size: int,
        *,
        dtype: LatentDtype = "float32",
        replacement: Replacement = "fill",
        generator: torch.Generator | None = None,
    ) -> None:
        require_whole(0, max_size=max_size)
        require_choice(get_args(LatentDtype), dtype=dtype)
        require_choice(get_args(Replacement), replacement=replacement)
        if generator is not None:
            require_kind(torch.Generator, generator=generator)
        self.max_size = max_size
        self.dtype = dtype
        self.replacement = replacement
        self.generator = generator
        self.stored: Tensor | None = None
        self.labels = torch.empty(0, dtype=torch.long)
        self.task_labels: Tensor | None = None
        self.experiences = torch.empty(0, dtype=torch.long)
        self.range = torch.tensor([float("inf"), -float("inf")])
        self.checksum: int | None = None

    def __len__(self) -> int:
        """Return the number of latents, M."""
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """Bytes of latents, labels, task labels and numbers of the experiences."""
        kept = (self.stored, self.labels, self.task_labels, self.experiences)
        return sum(tensor.nbytes for tensor in kept if tensor is not None)

    def choose(self, n_seen: int, experience: int) -> Tensor:
        """Choose which latents of an experience to keep.

        Args:
            n_seen: A, latents of the experience, >= 0.
            experience: i, its number, from 0.

        Returns:
            Their positions, int64, in the order in which `insert` wants them.

        Raises:
            ValueError: If by the published rule more would be replaced than there are.
        """
        n = sum(self._places(n_seen, experience))
        return self._draw(n_seen, n) if n else torch.empty(0, dtype=torch.long)

    def observe(self, low: Tensor, high: Tensor) -> None:
        """Widen the range that 8 bits have to cover; without effect once it is fixed.

        Args:
            low: Smallest of some latents of the first experience, shape ``()``.
            high: Their largest.

        Raises:
            ValueError: If one is not finite.
        """
        if self.stored is None:
            seen = torch.stack([low, high]).float().cpu()
            require_finite(seen)
            first, last = (
                torch.minimum(self.range, seen),
                torch.maximum(self.range, seen),
            )
            self.range = torch.stack([first[0], last[1]])

    def insert(
        self,
        latents: Tensor,
        labels: Tensor,
        *,
        experience: int,
        task_labels: Tensor | None = None,
    ) -> None:
        """Put in chosen latents: into free places, then in place of random older ones.

        Args:
            latents: As chosen by `choose`, shape ``(n, ...)``.
            labels: Shape ``(n,)``.
            experience: Number of the experience, from 0.
            task_labels: Shape ``(n,)``; None on streams without.

        Raises:
            ValueError: If they are not finite, more than fit, of another shape than
                those in the memory, with task labels where those are without, or
                without a label each.
        """
        room = self.max_size
        if self.replacement == "published":
            room = len(self) if experience else room - len(self)
        require_insertable(
            room, latents, experience, labels=labels, task_labels=task_labels
        )
        if not len(latents):
            return
        require_finite(latents)
        if self.stored is not None:
            require_alike(latents, self.stored, task_labels, self.task_labels)
        if not torch.isfinite(self.range).all():
            self.observe(*torch.aminmax(latents.detach()))
        # as many as `choose` gave, or fewer if training stopped early
        free = self.max_size - len(self)
        filled = len(latents)
        if self.replacement == "fill":
            filled = min(free, filled)
        elif experience > 0:
            filled = 0
        new = {
            "stored": self._encode(latents),
            "labels": labels.to("cpu", torch.long),
            "experiences": torch.full((len(latents),), experience),
        }
        if task_labels is not None:
            new["task_labels"] = task_labels.to("cpu", torch.long)
        n_over = len(latents) - filled
        slots = self._draw(len(self), n_over) if n_over else None
        for name, values in new.items():
            old = getattr(self, name)
            if slots is not None:
                old[slots] = values[filled:]
            if filled:
                first = values[:filled].clone()
                setattr(self, name, first if old is None else torch.cat([old, first]))

    def latents(
        self, rows: Tensor | slice, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Some latents, as the layers above the cut want them.

        Args:
            rows: Positions in the memory, on the CPU.
            device: Where to.

        Returns:
            float32, shape ``(n, ...)``.

        Raises:
            ValueError: If the memory is empty.
        """
        if self.stored is None:
            raise ValueError("the memory is empty; wanted latents in it")
        device = torch.device(device)
        if isinstance(rows, slice):
            rows = torch.arange(len(self))[rows]
        shape = (len(rows), *self.stored.shape[1:])
        # pinned memory is reused by torch only when the copy out of it has ended
        some = torch.empty(
            shape, dtype=self.stored.dtype, pin_memory=device.type == "cuda"
        )
        torch.index_select(self.stored, 0, rows, out=some)
        some = some.to(device, non_blocking=True)
        if self.dtype != "uint8":
            return some.float()
        step, zero = self._quantiser()
        return (some.float() - zero) * step

    def warn_if_stale(self, checksum: int) -> None:
        """Warn, once a change, if the model is not the one that made the latents.

        Args:
            checksum: Of the model as it is now.
        """
        if len(self) and self.checksum != checksum:
            warnings.warn(
                "stored latents are stale: the model below the cut changed after they "
                "were stored; was it trained, loaded or replaced meanwhile?",
                stacklevel=3,
            )
            self.checksum = checksum

    def state_dict(self) -> dict[str, Any]:
        """Return the memory, and the state of the generator if there is one."""
        state = {name: getattr(self, name) for name in _STATE}
        return state | generator_state(self.generator)

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Put the memory back.

        Args:
            state: What ``state_dict`` returned.
            experiences: The experiences trained so far; not needed here.

        Raises:
            ValueError: If it is of something else, or only one has a generator.
        """
        require_state(state, _STATE)
        restore_generator(self.generator, state)
        for name in _STATE:
            value = state[name]
            setattr(self, name, value.cpu() if isinstance(value, Tensor) else value)

    def _draw(self, n: int, k: int) -> Tensor:
        """k of n positions, without repetition; the only use of random numbers."""
        return torch.randperm(n, generator=self.generator)[:k]

    def _places(self, n_seen: int, experience: int) -> tuple[int, int]:
        return filled_and_overwritten(
            self.max_size, len(self), experience, n_seen, self.replacement
        )

    def _quantiser(self) -> tuple[float, float]:
        """Step and zero-point; without a wait for a device."""
        low, high = self.range.tolist()
        low, high = min(low, 0.0), max(high, 0.0)
        step = (high - low) / 255 or 1.0
        return step, float(round(-low / step))

    def _encode(self, latents: Tensor) -> Tensor:
        latents = latents.detach().float()
        if self.dtype == "float16":
            largest = torch.finfo(torch.float16).max
            latents = latents.clamp(-largest, largest).half()
        elif self.dtype == "uint8":
            step, zero = self._quantiser()
            latents = (latents / step).round().add(zero).clamp(0, 255).byte()
        return latents.to("cpu").contiguous()
