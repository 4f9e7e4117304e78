"""Functional regulariser and replay of memorable points, within the mini-batches."""

from __future__ import annotations

from typing import Any, Literal

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor
from torch.nn.functional import cross_entropy

from avalanche_ext._checks import (
    require_choice,
    require_kind,
    require_loading,
    require_positive,
    require_real,
)
from avalanche_ext._criteria import (
    CriterionOfBatch,
    refuse_beside,
    require_plain_cross_entropy,
)
from avalanche_ext._finite import FiniteTerm
from avalanche_ext.buffers.memorable_past import MemorablePastBuffer
from avalanche_ext.buffers.memory_rows import MemoryRows
from avalanche_ext.functional.functional_prior import (
    FUNCTION,
    NEW,
    REPLAY,
    linear_pull,
    memory_weights,
    mixed_losses,
)
from avalanche_ext.loaders import (
    batches_of,
    require_batch_of_all_tasks,
    shuffle_uniformly,
)
from avalanche_ext.models.past_data import (
    finite_logits_of,
    parameters_by_name,
    require_task_labels,
    summed_gradient,
)


class FunctionalPriorPlugin(SupervisedPlugin):
    r"""Hold memorable points to what the last model said of them, or replay them.

    .. math:: L = \frac{1}{|B|} \sum_{i \in B} \omega_i c_i

    with :math:`c_i` of `mixed_losses`, :math:`\omega_i = 1` for new data and
    :math:`\tau_k` for the memory of experience k. New data and memory are one data
    set, shuffled uniformly, each sample once an epoch and no sample twice; one forward
    pass a batch. With ``replay_fraction=0`` of the buffer this is the functional
    regulariser (FR), with 1 replay, in between FR+Replay.

    Without task labels the functional regulariser sees only the classes known when
    its targets were made; replay and new data see all. For any strategy whose
    ``criterion`` is a mean softmax cross-entropy. There is no prior in the first
    experience, and with both weights 0 none at all.

    Callbacks: after the data adaptation the memory is appended to
    ``strategy.adapted_dataset``; before an experience a loader that balances task
    labels gives way to a uniform one; after each forward pass the criterion is
    replaced for that batch's loss; after an experience the buffer chooses, then the
    logits of all points are computed anew (soft targets have T, also where smoothing
    makes them part of a replayed point's loss). Keeps: the buffer and these logits.

    Args:
        buffer: The memory.
        tau: :math:`\tau_1` >= 0, weight of the first experience's memory.
        tau2: Weight of all later ones' >= 0; None: as ``tau``.
        scale_tau: Multiply each by :math:`N_k / m_k`, so that a memory stands for all
            data of its experience (published for ImageNet).
        temperature: T > 0 of the functional regulariser.
        label_smoothing: s in ``[0, 1)``, see `mixed_losses`; in all experiences.
        replay_correction: ``"plain"`` as published. ``"centred"``: subtract from the
            gradient that of the replay term at the start of the experience.
        soft_target_transform: ``"train"``: one random augmentation, as published.
        memory_resident: Of loaders, see `avalanche_ext.loaders.make_loader`.
        generator: Of the uniform loader; None for torch's default.

    Attributes:
        logits: Of all points by the latest model, ``(M, K)``; None at first.

    Raises:
        ValueError: If an argument is out of its range; before training, if the
            criterion, the model or the size of the memory does not fit; if the loss or
            the logits are not finite.

    Example:
        >>> plugin = FunctionalPriorPlugin(MemorablePastBuffer(40), tau=0.1, tau2=1.0)
        >>> plugin.active
        True

    References:
        Daxberger et al., TMLR 2023; Khan and Swaroop, NeurIPS 2021 (K-priors).
    """

    def __init__(
        self,
        buffer: MemorablePastBuffer,
        *,
        tau: float = 1.0,
        tau2: float | None = None,
        scale_tau: bool = False,
        temperature: float = 1.0,
        label_smoothing: float = 0.0,
        replay_correction: Literal["plain", "centred"] = "plain",
        soft_target_transform: Literal["eval", "train"] = "eval",
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        require_kind(MemorablePastBuffer, buffer=buffer)
        tau2 = tau if tau2 is None else tau2
        weights = {"tau": tau, "tau2": tau2, "label_smoothing": label_smoothing}
        require_real(0, **weights)
        require_positive(temperature=temperature)
        if label_smoothing >= 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; wanted below 1")
        require_choice((True, False), scale_tau=scale_tau)
        require_choice(("plain", "centred"), replay_correction=replay_correction)
        require_choice(("eval", "train"), soft_target_transform=soft_target_transform)
        require_loading(memory_resident, generator)
        self.buffer = buffer
        self.tau, self.tau2 = float(tau), float(tau2)
        self.scale_tau = scale_tau
        self.temperature = float(temperature)
        self.label_smoothing = float(label_smoothing)
        self.replay_correction = replay_correction
        self.soft_target_transform = soft_target_transform
        self.memory_resident = memory_resident
        self.generator = generator
        self.logits: Tensor | None = None
        self._weighs = any((self.tau, self.tau2))
        self._rows: MemoryRows | None = None
        self._batch: Any = None
        self._centre: dict[str, Any] = {}
        self._criterion = CriterionOfBatch("the functional prior", self._loss)
        self._finite = FiniteTerm("the loss of the mini-batch")

    @property
    def active(self) -> bool:
        """Whether there is a memory with a weight."""
        return self._weighs and self.buffer.max_size > 0

    @property
    def joined(self) -> bool:
        """Whether the data of the experience under way hold the memory."""
        return self._rows is not None

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse a criterion or plugins that do not fit, before any work."""
        self._criterion.take_out(strategy)  # if an error left it there
        refuse_beside(self, strategy, FunctionalPriorPlugin, ReplayPlugin)
        require_plain_cross_entropy(strategy._criterion, "FunctionalPriorPlugin")

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Take the loss out of the criterion, if an error left it there."""
        self._criterion.take_out(strategy)

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Append the memory to the data of the experience."""
        require_task_labels(strategy.model, strategy.experience)
        if self.active:
            self.buffer.require_enough(strategy.experience)
        self._rows, self._centre = None, {}
        if self.logits is not None and len(self.logits) != len(self.buffer.buffer):
            self._ask(strategy)  # it was resized
        if not self._weighs or self.logits is None:
            return
        sizes = [len(p) for p in self.buffer.positions]
        data_sizes = self.buffer.data_sizes if self.scale_tau else None
        taus = memory_weights(self.tau, self.tau2, sizes, data_sizes)
        known = self.logits, taus, self.temperature
        self._rows = MemoryRows(self.buffer, *known, strategy.device)
        strategy.adapted_dataset = self._rows.joined_to(strategy.adapted_dataset)
        require_batch_of_all_tasks(strategy)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Shuffle uniformly; take the gradient of replay at the start."""
        if self._rows is None:
            return
        own = {"memory_resident": self.memory_resident, "generator": self.generator}
        shuffle_uniformly(strategy, **own, **kwargs)
        if self.replay_correction == "centred":
            named = parameters_by_name(strategy.model)
            self._centre = {
                "start": {n: p.detach().clone() for n, p in named.items()},
                "trained": self._gradient(strategy, REPLAY, "trained"),
                "unit": self._gradient(strategy, REPLAY, "unit"),
            }

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Let the criterion see what each sample is."""
        if self._rows is not None or self.label_smoothing:
            if self._rows is not None:
                self._batch = strategy.mbatch[self._rows.field]
            self._criterion.put_in(strategy)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Put the criterion back; subtract what replay pulled at from the start."""
        if self._rows is None and not self.label_smoothing:
            return
        self._criterion.take_out(strategy)
        self._criterion.require_called(strategy)
        self._batch = None
        if self._centre:
            named = parameters_by_name(strategy.model)
            pull = linear_pull(self._centre["trained"], named, self._centre["start"])
            strategy.loss -= pull / len(strategy.adapted_dataset)
        self._finite.look_at(strategy.loss)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Report a loss that was not finite."""
        self._finite.require()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Choose points (none, if resized to 0); ask the model about all."""
        self._rows, self._centre = None, {}
        if self.active or (self._weighs and self.buffer.positions):
            self.buffer.post_adapt(strategy, strategy.experience)
            self._ask(strategy)

    def _ask(self, strategy: Any) -> None:
        memory, self.logits = self.buffer.buffer, None
        if not len(memory):
            return
        batches = batches_of(
            memory.train() if self.soft_target_transform == "train" else memory.eval(),
            strategy.device,
            batch_size=strategy.eval_mb_size,
            memory_resident=self.memory_resident,
        )
        self.logits, _ = finite_logits_of(strategy.model, batches, "the memory")

    def prior_gradients(
        self, strategy: Any, scale: Literal["trained", "unit"]
    ) -> dict[str, dict[str, Tensor]]:
        """Gradients of the two terms at the strategy's weights, scale of a sum.

        Args:
            strategy: The strategy, in an experience with a past.
            scale: ``"unit"``: as if weights and temperature were 1.

        Returns:
            ``{"function": ..., "replay": ...}``, gradients by name, float64, in
            evaluation mode, without label smoothing.
        """
        function = self._gradient(strategy, FUNCTION, scale)
        replay = self._gradient(strategy, REPLAY, scale)
        for name, bias in self._centre.get(scale, {}).items():
            replay[name] -= bias
        return {"function": function, "replay": replay}

    def replayed_residuals(
        self, strategy: Any, scale: Literal["trained", "unit"]
    ) -> dict[str, Tensor]:
        r"""Share of the replay term that the last model's errors have.

        .. math:: \sum_k \tau_k \sum_{M2_k} J_i(w)^T (h_i - y_i)

        with :math:`h_i` of the last model.

        Args:
            strategy: As in `prior_gradients`.
            scale: As there.

        Returns:
            By name, float64.
        """
        residuals = self._gradient(strategy, REPLAY, scale, residual=True)
        for name, bias in self._centre.get(scale, {}).items():
            residuals[name] -= bias
        return residuals

    def _loss(self, criterion: Any, logits: Tensor, targets: Tensor) -> Tensor:
        """Weighted mean over the batch, whose rows were noted before."""
        if self._rows is not None:
            return self._rows.loss(self._batch, logits, targets, self.label_smoothing)
        roles, smoothing = torch.full_like(targets, NEW), self.label_smoothing
        losses = mixed_losses(logits, targets, roles, logits, label_smoothing=smoothing)
        return losses.mean()

    def _gradient(
        self,
        strategy: Any,
        role: int,
        scale: Literal["trained", "unit"],
        residual: bool = False,
    ) -> dict[str, Tensor]:
        if self._rows is None:
            return summed_gradient(strategy.model, (), cross_entropy)
        return self._rows.gradient(
            strategy.model, role, scale, strategy.eval_mb_size, residual=residual
        )
