"""Elastic weight consolidation of the points that no memory holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_ext._checks import (
    require_choice,
    require_kind,
    require_loading,
    require_real,
    require_whole,
)
from avalanche_ext._finite import FiniteTerm
from avalanche_ext.buffers.memorable_past import MemorablePastBuffer
from avalanche_ext.functional.fisher import FisherKind
from avalanche_ext.functional.functional_prior import quadratic_penalty, strength_of
from avalanche_ext.loaders import batches_of
from avalanche_ext.models.flat_weights import FlatWeights, leading_part
from avalanche_ext.models.past_data import (
    FisherOutputs,
    data_fisher,
    parameters_by_name,
    require_task_classifier,
)


class LeftOutEWCPlugin(SupervisedPlugin):
    r"""A quadratic prior around the latest weights, for all but the memorable points.

    .. math:: L = L_{host} + \frac{\lambda}{N} \, \tfrac12
        (w - w_t)^T \mathrm{diag}(H_t + \delta) (w - w_t), \qquad
        H_t = \sum_{k \le t} \mathrm{diag}\, F(D_k \setminus M_k; w_k)

    with N the number of samples of ``strategy.adapted_dataset``, memory included. Each
    experience's Fisher is a sum over its examples, taken once at the weights after it
    (see `diagonal_fisher`); the anchor :math:`w_t` always moves. Alone, without a
    buffer, it is online EWC without decay, and with ``fisher="none"`` an isotropic
    prior, as in the K-prior. Parameters that came after the anchor are free.

    Callbacks: before the backward pass the penalty is added to ``strategy.loss``;
    after each experience the Fisher is added to :math:`H` and the anchor moves. With
    strength 0 it does nothing. Keeps between experiences: H and the anchor.

    Args:
        strength: :math:`\lambda` >= 0, for all experiences or one by one from the
            second on; None, and the end of the list, repeat the one before.
        prior_precision: :math:`\delta` >= 0.
        fisher: ``"empirical"``: labels of the data. ``"ggn"``: the model's own.
            ``"none"``: H = 0.
        fisher_outputs: ``"head"``: softmax over the classes of the sample's task.
            ``"all"``: over all outputs of a `TaskClassifier` with labels counted
            within the task, as in the published code, to which its strengths belong.
        fisher_transform: ``"eval"``, or ``"train"`` (random), as in the published
            code.
        buffer: Its points are left out. What fills it must come before this plugin.
        chunk: Examples at once: the Fisher takes chunk × P numbers.
        memory_resident: See `avalanche_ext.loaders.make_loader`.

    Attributes:
        importance: H by name of the parameter; empty at first.
        anchor: :math:`w_t` by name of the parameter; empty at first.

    Raises:
        ValueError: If an argument is out of its range; before training, if plugins are
            in the wrong order or ``fisher_outputs="all"`` does not fit the model; if H
            or the penalty is not finite.

    Example:
        >>> LeftOutEWCPlugin([10.0, None, 2.0]).strength_of(2)
        10.0

    References:
        Daxberger et al., TMLR 2023; Kirkpatrick et al., PNAS 2017.
    """

    def __init__(
        self,
        strength: float | Sequence[float | None] = 1.0,
        *,
        prior_precision: float = 1e-3,
        fisher: FisherKind | Literal["none"] = "empirical",
        fisher_outputs: FisherOutputs = "head",
        fisher_transform: Literal["eval", "train"] = "eval",
        buffer: MemorablePastBuffer | None = None,
        chunk: int = 32,
        memory_resident: Literal["auto"] | bool = "auto",
    ) -> None:
        super().__init__()
        given = list(strength) if isinstance(strength, Sequence) else [strength]
        named = {f"strength[{i}]": s for i, s in enumerate(given) if s is not None}
        require_real(
            0, **(named if isinstance(strength, Sequence) else {"strength": strength})
        )
        strength_of(given, 1)  # not empty, a number first
        require_real(0, prior_precision=prior_precision)
        require_choice((*get_args(FisherKind), "none"), fisher=fisher)
        require_choice(get_args(FisherOutputs), fisher_outputs=fisher_outputs)
        require_choice(("eval", "train"), fisher_transform=fisher_transform)
        if buffer is not None:
            require_kind(MemorablePastBuffer, buffer=buffer)
        require_whole(1, chunk=chunk)
        require_loading(memory_resident, None)
        self.strengths = [None if s is None else float(s) for s in given]
        # as an argument, which a checkpoint compares
        self.strength = tuple(self.strengths)
        self.prior_precision = float(prior_precision)
        self.fisher = fisher
        self.fisher_outputs = fisher_outputs
        self.fisher_transform = fisher_transform
        self.buffer = buffer
        self.chunk = chunk
        self.memory_resident = memory_resident
        self.importance: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}
        self._flat: tuple[FlatWeights, Tensor, Tensor] | None = None
        self._finite = FiniteTerm("the penalty of EWC")

    def strength_of(self, experience: int) -> float:
        r""":math:`\lambda` while an experience is trained.

        Args:
            experience: Number of the experience, >= 1.

        Returns:
            The strength.
        """
        return strength_of(self.strengths, experience)

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse what does not fit, before any work."""
        if self.fisher_outputs == "all":
            require_task_classifier(strategy.model)
        plugins = list(strategy.plugins)
        later = plugins[plugins.index(self) + 1 :]
        for plugin in later if self.buffer is not None else ():
            kept = (getattr(plugin, a, None) for a in ("buffer", "storage_policy"))
            if any(found is self.buffer for found in kept):
                raise ValueError(
                    f"{type(plugin).__name__}, which fills the memory, comes after "
                    "LeftOutEWCPlugin; wanted it before, so that the Fisher can leave "
                    "out what is kept"
                )

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Put the prior into one vector."""
        wanted = self.anchor and self._strength(strategy)
        self._flat = self._prior(strategy) if wanted else None

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the penalty to the loss."""
        if self._flat is not None:
            flat, anchor, precision = self._flat
            scale = self._strength(strategy) / len(strategy.adapted_dataset)
            penalty = scale * quadratic_penalty(flat.weights(), anchor, precision)
            self._finite.look_at(penalty)
            strategy.loss += penalty

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Report a penalty that was not finite."""
        self._finite.require()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Add the experience's Fisher, and move the anchor."""
        self._flat = None
        if not any(self.strengths):
            return
        named = parameters_by_name(strategy.model)
        if self.fisher != "none":
            for name, own in self._fisher_of(strategy).items():
                if name in self.importance:
                    before = self.importance[name]
                    leading_part(own, before.shape, name).add_(before)
                self.importance[name] = own
        self.anchor = {n: p.detach().clone() for n, p in named.items()}

    def prior_gradients(
        self, strategy: Any, scale: Literal["trained", "unit"]
    ) -> dict[str, dict[str, Tensor]]:
        """Gradient of the prior at the strategy's weights, on the scale of a sum.

        Args:
            strategy: The strategy, in an experience with a past.
            scale: ``"unit"``: as if the strength were 1.

        Returns:
            ``{"weight": gradient by name}``, float64.
        """
        strength = 1.0 if scale == "unit" else self._strength(strategy)
        flat, anchor, precision = self._prior(strategy)
        away = flat.weights().detach().double() - anchor.double()
        found = flat.by_name(strength * precision.double() * away)
        named = parameters_by_name(strategy.model)
        free = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in named.items()}
        return {"weight": free | found}

    def _strength(self, strategy: Any) -> float:
        return self.strength_of(max(1, strategy.clock.train_exp_counter))

    def _prior(self, strategy: Any) -> tuple[FlatWeights, Tensor, Tensor]:
        """Weights, anchor and H + δ as vectors; 0 where a parameter has grown."""
        named = parameters_by_name(strategy.model)
        flat = FlatWeights({n: p for n, p in named.items() if n in self.anchor})
        precision = {
            n: self.importance[n] + self.prior_precision
            if n in self.importance
            else torch.full_like(a, self.prior_precision)
            for n, a in self.anchor.items()
        }
        return flat, flat.vector(self.anchor), flat.vector(precision)

    def _fisher_of(self, strategy: Any) -> dict[str, Tensor]:
        experience = strategy.experience
        data = experience.dataset
        data = data.eval() if self.fisher_transform == "eval" else data.train()
        if self.buffer is not None and self.buffer.positions:
            data = data.subset(self.buffer.left_out(len(self.buffer.positions) - 1))
        assert self.fisher != "none"
        batches = batches_of(
            data,
            strategy.device,
            batch_size=8 * self.chunk,
            memory_resident=self.memory_resident,
        )
        found = data_fisher(
            strategy.model,
            batches,
            kind=self.fisher,
            outputs=self.fisher_outputs,
            chunk=self.chunk,
        )
        broken = [n for n, h in found.items() if not bool(h.isfinite().all())]
        if broken:
            raise ValueError(
                f"the Fisher of experience {experience.current_experience} is not "
                f"finite for {broken[0]}; wanted finite numbers: did training diverge?"
            )
        return found
