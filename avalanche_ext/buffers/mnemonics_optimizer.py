"""How exemplars become mnemonics: gradient steps on their pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from avalanche_ext._checks import (
    require_choice,
    require_kind,
    require_positive,
    require_real,
    require_whole,
)
from avalanche_ext.buffers.class_means import class_mean_gradient
from avalanche_ext.buffers.exemplar_steps import Batch, Exemplars
from avalanche_ext.functional.unrolled import hypergradient

Preset = Literal["fast", "paper", "released"]
Objective = Literal["bilevel", "bilevel_head", "ncm"]
Mode = Literal["reverse", "unrolled", "checkpoint"]
Adjustment = Literal["sequential", "simultaneous"]


@dataclass(frozen=True, kw_only=True)
class MnemonicsOptimizer:
    r"""Gradient steps on exemplars, so that a model trained on them does well.

    .. math:: \Theta'_{s+1} = \Theta'_s - \alpha \nabla_{\Theta'} L_c(\Theta'_s; E),
        \qquad E \leftarrow E - \beta \nabla_E L_c(\Theta'_S(E); D)

    Inner loops start from the model as it is, which is left as found. `fast`, `paper`
    and `released` are three settings.

    Args:
        objective: ``"bilevel"`` as above; ``"bilevel_head"`` trains the classifier only
            in the inner loop; ``"ncm"``, what the released code minimises: the
            cross-entropy of cosines to the class means of the exemplars' features.
        optimizer: ``"adam"`` (betas 0.5, 0.999) or ``"sgd"`` (momentum 0.9) on pixels.
        lr: :math:`\beta`, in normalised units, > 0.
        weight_decay: On pixels, >= 0; other than 0 fades them to the mean colour.
        steps: Outer steps, >= 1; None: ``epochs`` instead.
        epochs: Passes over the outer data, >= 1.
        batch_size: Outer samples a step, >= 1.
        decay_epochs: The rate is halved after so many passes; None: never.
        inner_lr: :math:`\alpha`, > 0.
        inner_steps: S, full-batch steps, >= 1; None: ``inner_epochs`` instead.
        inner_epochs: Passes over the exemplars in mini-batches, >= 1.
        inner_batch_size: Exemplars of such a mini-batch, >= 1.
        mode: See `hypergradient`, as the following ones.
        truncate: Last inner steps that the gradient goes through; None: all.
        parameters: ``"trainable"`` or ``"all"`` parameters of the model.
        batchnorm: ``"eval"``: fixed statistics.
        chunk: Samples in a graph at once; None: all.
        augment_outer: Take outer samples with their training transforms.
        adjust_old: Also optimise exemplars of earlier experiences, one half of each
            class for the other; ``"sequential"``: the second half for the first one as
            adjusted, ``"simultaneous"``: as it was. None: leave them.

    Raises:
        ValueError: If an argument is out of its range, or both or none of ``steps`` and
            ``epochs`` (of ``inner_steps`` and ``inner_epochs``) are given.

    References:
        Liu et al., Mnemonics Training, CVPR 2020, equations 8 to 10.
    """

    objective: Objective = "bilevel"
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = 0.01
    weight_decay: float = 0.0
    steps: int | None = 200
    epochs: int | None = None
    batch_size: int = 128
    decay_epochs: int | None = None
    inner_lr: float = 0.1
    inner_steps: int | None = 10
    inner_epochs: int | None = None
    inner_batch_size: int = 128
    mode: Mode = "reverse"
    truncate: int | None = None
    parameters: Literal["trainable", "all"] = "trainable"
    batchnorm: Literal["eval", "batch"] = "eval"
    chunk: int | None = 32
    augment_outer: bool = False
    adjust_old: Adjustment | None = "sequential"

    def __post_init__(self) -> None:
        """Check the arguments."""
        require_choice(get_args(Objective), objective=self.objective)
        require_choice(("adam", "sgd"), optimizer=self.optimizer)
        require_choice(get_args(Mode), mode=self.mode)
        require_choice(("trainable", "all"), parameters=self.parameters)
        require_choice(("eval", "batch"), batchnorm=self.batchnorm)
        require_choice((True, False), augment_outer=self.augment_outer)
        require_choice((*get_args(Adjustment), None), adjust_old=self.adjust_old)
        require_positive(lr=self.lr, inner_lr=self.inner_lr)
        require_real(0, weight_decay=self.weight_decay)
        require_whole(
            1, batch_size=self.batch_size, inner_batch_size=self.inner_batch_size
        )
        for first, second in (("steps", "epochs"), ("inner_steps", "inner_epochs")):
            given = {n: getattr(self, n) for n in (first, second)}
            if sum(value is not None for value in given.values()) != 1:
                raise ValueError(f"{given}; wanted one of the two, the other None")
        optional = "steps epochs inner_steps inner_epochs decay_epochs truncate chunk"
        whole = {n: getattr(self, n) for n in optional.split()}
        require_whole(
            1, **{n: value for n, value in whole.items() if value is not None}
        )
        if (self.truncate or 0) > (self.inner_steps or float("inf")):
            raise ValueError(
                f"truncate is {self.truncate}; wanted at most {self.inner_steps}, "
                "inner_steps"
            )

    @classmethod
    def fast(cls, **changes: Any) -> MnemonicsOptimizer:
        """Few large steps: Adam 0.01, 200 outer steps, 10 inner ones at rate 0.1.

        Args:
            changes: Arguments of the class.

        Returns:
            The setting.
        """
        return replace(cls(), **changes)

    @classmethod
    def paper(cls, **changes: Any) -> MnemonicsOptimizer:
        """The paper's: SGD 0.01, halved every 10 of 50 epochs, 50 inner epochs.

        Args:
            changes: Arguments of the class.

        Returns:
            The setting; an outer step costs as much as hundreds of training steps.
        """
        setting = cls(
            optimizer="sgd",
            steps=None,
            epochs=50,
            decay_epochs=10,
            inner_lr=0.01,
            inner_steps=None,
            inner_epochs=50,
        )
        return replace(setting, **changes)

    @classmethod
    def released(cls, **changes: Any) -> MnemonicsOptimizer:
        """What the released trainer does: objective ncm, SGD 1e-5, one epoch.

        It goes with herding and a total budget, and moves pixels by less than a
        thousandth of a grey level, but for the weight decay on them.

        Args:
            changes: Arguments of the class.

        Returns:
            The setting.
        """
        setting = cls(
            objective="ncm",
            optimizer="sgd",
            lr=1e-5,
            weight_decay=5e-4,
            steps=None,
            epochs=1,
            augment_outer=True,
            adjust_old=None,
        )
        return replace(setting, **changes)

    def n_steps(self, n_samples: int) -> int:
        """Outer steps for so many outer samples.

        Args:
            n_samples: N >= 1.

        Returns:
            Number of steps.
        """
        return self.steps or (self.epochs or 0) * -(-n_samples // self.batch_size)

    def gradient(
        self,
        model: Any,
        exemplars: Exemplars,
        batch: Batch,
        *,
        old_means: Mapping[int, Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Outer loss and its gradient.

        Args:
            model: Found as it was.
            exemplars: As they are now.
            batch: Outer samples ``(x, y)``.
            old_means: Mean features of other classes by id, for objective ``"ncm"``.
            generator: Of inner mini-batches; None for torch's default.

        Returns:
            The loss, the gradient ``(M, ...)``, and the losses on the exemplars before
            the first and the last inner step (with mini-batches: their means in the
            first and the last pass), ``(2,)``; ``(0,)`` for objective "ncm".
        """
        if self.objective == "ncm":
            loss, gradient = class_mean_gradient(
                model, exemplars, batch, old_means or {}, self.chunk
            )
            return loss, gradient, loss.new_empty(0)
        rows = self._inner_rows(len(exemplars.y), generator)
        n_steps = len(rows) if rows else self.inner_steps or 0
        head = self.objective == "bilevel_head"
        found = hypergradient(
            model,
            exemplars.x,
            exemplars.y,
            [batch],
            inner_lr=self.inner_lr,
            inner_steps=n_steps,
            rows=rows,
            mode=self.mode,
            truncate=self.truncate and min(self.truncate, n_steps),
            parameters="head" if head else self.parameters,
            batchnorm=self.batchnorm,
            chunk=None if self.batchnorm == "batch" else self.chunk,
        )
        # of passes, since mini-batches differ in their losses anyway
        passes = found.inner_losses.view(self.inner_epochs or self.inner_steps or 1, -1)
        return found.outer_loss, found.gradient, passes[[0, -1]].mean(1)

    def _inner_rows(
        self, n: int, generator: torch.Generator | None
    ) -> list[Tensor] | None:
        """Which exemplars each inner step sees; None: all of them."""
        if self.inner_epochs is None:
            return None
        if n <= self.inner_batch_size:
            return [torch.arange(n)] * self.inner_epochs
        orders = [
            torch.randperm(n, generator=generator) for _ in range(self.inner_epochs)
        ]
        return [
            rows
            for order in orders
            for rows in torch.split(order, self.inner_batch_size)
        ]


def setting_of(
    optimizer: MnemonicsOptimizer | Preset | None,
) -> MnemonicsOptimizer | None:
    """A setting by its name.

    Args:
        optimizer: The name, a setting, or None.

    Returns:
        The setting; None for None.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(optimizer, str):
        require_choice(get_args(Preset), optimizer=optimizer)
        setting: MnemonicsOptimizer = getattr(MnemonicsOptimizer, optimizer)()
        return setting
    if optimizer is not None:
        require_kind(MnemonicsOptimizer, optimizer=optimizer)
    return optimizer
