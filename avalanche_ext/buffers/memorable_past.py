"""A few points of each past experience, and where in its data they are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from avalanche.benchmarks import CLExperience
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from avalanche_ext._checks import (
    generator_state,
    require_choice,
    require_fraction,
    require_loading,
    require_whole,
    restore_generator,
)
from avalanche_ext.functional.functional_prior import FUNCTION, REPLAY
from avalanche_ext.functional.memory_selection import (
    Selection,
    highest_scores,
    output_uncertainty,
    top_of_each_class,
)
from avalanche_ext.loaders import batches_of, image_bytes
from avalanche_ext.models.past_data import finite_logits_of


class MemorablePastBuffer(ExemplarsBuffer):
    r"""Memory of a fixed size a past experience, its points in two roles.

    :math:`M_k = M1_k \cup M2_k`: the points of M1 hold the function, those of M2 are
    replayed, see `mixed_losses`. The whole memory grows with the experiences. Positions
    are kept, so that a Fisher information can leave the points out.

    The buffer refers to samples of the stream; it copies no images. It serves
    `FunctionalPriorPlugin`, and Avalanche's own `ReplayPlugin` and our
    `ExemplarReplayPlugin`, which do not look at the roles.

    Args:
        size: Points of each experience, m >= 0.
        replay_fraction: Share of M2, rounded down to whole points, in ``[0, 1]``.
        selection: ``"random"``: uniform, as published. ``"lambda"``: of each class the
            points with the largest `output_uncertainty`, as in FROMP;
            ``"lambda_ascending"`` the smallest, an ablation.
        on_small: What an experience with fewer points than ``size`` meets:
            ``"raise"``, or ``"clip"``: all are taken, with a warning.
        batch_size: Samples at once when outputs are computed, >= 1.
        memory_resident: See `avalanche_ext.loaders.make_loader`.
        generator: Of the selection, on the CPU; None for torch's default.

    Attributes:
        positions: For each experience the positions of its points, those of M2 first,
            int64, ``(m,)``.
        roles: `FUNCTION` or `REPLAY` of each, int64, ``(m,)``.
        data_sizes: N_k, samples of each experience.

    Raises:
        ValueError: If an argument is out of its range; when points are chosen, if an
            experience has too few, or outputs are not finite.

    Example:
        >>> len(MemorablePastBuffer(40, replay_fraction=0.5).buffer)
        0

    References:
        Daxberger et al., TMLR 2023; Pan et al., NeurIPS 2020 (FROMP).
    """

    def __init__(
        self,
        size: int,
        *,
        replay_fraction: float = 0.5,
        selection: Selection = "random",
        on_small: Literal["raise", "clip"] = "raise",
        batch_size: int = 256,
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
    ) -> None:
        require_whole(0, size=size)
        require_fraction(replay_fraction=replay_fraction)
        require_choice(get_args(Selection), selection=selection)
        require_choice(("raise", "clip"), on_small=on_small)
        require_whole(1, batch_size=batch_size)
        require_loading(memory_resident, generator)
        super().__init__(size)
        self.size = size  # as an argument, which a checkpoint compares
        self.replay_fraction = float(replay_fraction)
        self.selection = selection
        self.on_small = on_small
        self.batch_size = batch_size
        self.memory_resident = memory_resident
        self.generator = generator
        self.positions: list[Tensor] = []
        self.roles: list[Tensor] = []
        self.data_sizes: list[int] = []
        self._sources: list[AvalancheDataset] = []

    def post_adapt(self, agent_state: Any, exp: CLExperience) -> None:
        """Choose points of the experience just trained.

        Args:
            agent_state: The strategy; with ``selection="random"`` unused.
            exp: The experience.

        Raises:
            ValueError: If it has fewer points than wanted, or outputs are not finite.
        """
        n = self._size_in(exp)
        order = self._order(agent_state, exp, n)
        n_replayed = int(n * self.replay_fraction)
        roles = torch.full((n,), FUNCTION)
        roles[:n_replayed] = REPLAY
        self.positions.append(order)
        self.roles.append(roles)
        self.data_sizes.append(len(exp.dataset))
        self._sources.append(exp.dataset)
        new = exp.dataset.subset(order.tolist())
        self._join([self.buffer, new])

    def require_enough(self, exp: CLExperience) -> None:
        """Refuse an experience with too few points, before it is trained.

        Args:
            exp: The experience.

        Raises:
            ValueError: If it has fewer points than wanted and ``on_small="raise"``.
        """
        n, size = len(exp.dataset), self.max_size
        if n < size and self.on_small == "raise":
            raise ValueError(
                f"experience {exp.current_experience} has {n} samples; wanted at least "
                f"{size}, the size of the memory, or on_small='clip'"
            )

    def left_out(self, experience: int) -> list[int]:
        """Positions of an experience that are not in the memory, ascending.

        Args:
            experience: Its number among those chosen from.

        Returns:
            The positions.
        """
        kept = torch.zeros(self.data_sizes[experience], dtype=torch.bool)
        kept[self.positions[experience]] = True
        return torch.nonzero(~kept).flatten().tolist()

    def resize(self, strategy: Any, new_size: int) -> None:
        """Change the size of a memory; those there shrink in both roles.

        Args:
            strategy: Unused; Avalanche's signature.
            new_size: New m >= 0.

        Raises:
            ValueError: If the size is negative.
        """
        require_whole(0, new_size=new_size)
        self.max_size = new_size
        for k, roles in enumerate(self.roles):
            n = min(new_size, len(roles))
            n_replayed = min(
                int(n * self.replay_fraction), int((roles == REPLAY).sum())
            )
            function = torch.nonzero(roles == FUNCTION).flatten()
            kept = torch.cat([torch.arange(n_replayed), function[: n - n_replayed]])
            self.positions[k], self.roles[k] = self.positions[k][kept], roles[kept]
        self._rebuild()

    def memory_bytes(self) -> dict[str, int]:
        """Bytes of the raw images kept.

        Returns:
            ``{"exemplars": bytes}``.
        """
        return {"exemplars": image_bytes(self.buffer) if len(self.buffer) else 0}

    def state_dict(self) -> dict[str, Any]:
        """Where the points are, and in which roles; no images."""
        return {
            "max_size": self.max_size,
            "positions": self.positions,
            "roles": self.roles,
            **generator_state(self.generator),
        }

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Take the same samples from the experiences again.

        Args:
            state: As returned by `state_dict`.
            experiences: Those trained so far, in order.

        Raises:
            ValueError: If only one of the two has a generator.
        """
        restore_generator(self.generator, state)
        self.max_size = state["max_size"]
        self.positions, self.roles = list(state["positions"]), list(state["roles"])
        self._sources = [e.dataset for e in experiences[: len(self.positions)]]
        self.data_sizes = [len(data) for data in self._sources]
        self._rebuild()

    def _size_in(self, exp: CLExperience) -> int:
        self.require_enough(exp)
        n = len(exp.dataset)
        if n < self.max_size:
            warnings.warn(
                f"experience {exp.current_experience} has {n} samples, fewer than "
                f"{self.max_size}: all of them are kept",
                stacklevel=3,
            )
        return min(self.max_size, n)

    def _order(self, agent: Any, exp: CLExperience, n: int) -> Tensor:
        """Positions of n points, in random order."""
        if self.selection == "random":
            scores = torch.rand(len(exp.dataset), generator=self.generator)
            return highest_scores(scores, n)
        batches = batches_of(
            exp.dataset.eval(),
            agent.device,
            batch_size=self.batch_size,
            memory_resident=self.memory_resident,
        )
        what = f"experience {exp.current_experience}"
        logits, targets = finite_logits_of(agent.model, batches, what)
        sign = 1 if self.selection == "lambda" else -1
        chosen = top_of_each_class(sign * output_uncertainty(logits), targets, n).cpu()
        # so that the two roles are alike
        return chosen[torch.randperm(n, generator=self.generator)]

    def _rebuild(self) -> None:
        pairs = zip(self._sources, self.positions, strict=True)
        self._join([data.subset(where.tolist()) for data, where in pairs])

    def _join(self, parts: Sequence[AvalancheDataset]) -> None:
        self.buffer = concat_datasets([part for part in parts if len(part)])
