"""The exemplar level of one experience: new exemplars are fitted, old ones adjusted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
from avalanche.models.utils import is_multi_task_module
from torch import Tensor

from avalanche_ext.buffers.exemplar_log import ExemplarLog
from avalanche_ext.buffers.exemplar_steps import (
    Batch,
    Exemplars,
    ExemplarSteps,
)
from avalanche_ext.buffers.mnemonics_optimizer import MnemonicsOptimizer
from avalanche_ext.functional.functional_prior import MASKED
from avalanche_ext.functional.undisturbed import undisturbed
from avalanche_ext.loaders import make_loader, values_of
from avalanche_ext.models.feature_classifier import extract_features


class ExemplarLevel:
    """Optimises exemplars for a model that has just been trained.

    Args:
        setting: How.
        strategy: Its model, which is left as found, and device are used.
        box: Least and largest value of an input, broadcast against inputs.
        log: Is told the losses.
        experience: Number of the experience.
        memory_resident: See `avalanche_ext.loaders.make_loader`.
        generator: Of halves and mini-batches; None for torch's default.
    """

    def __init__(
        self,
        setting: MnemonicsOptimizer,
        strategy: Any,
        box: tuple[Tensor, Tensor],
        log: ExemplarLog,
        *,
        experience: int,
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
    ) -> None:
        self._setting, self._strategy, self._box = setting, strategy, box
        self._log, self._experience = log, experience
        self._memory_resident, self._generator = memory_resident, generator

    def decides(self, x: Tensor) -> bool:
        """Whether the model tells classes apart; else a warning says why not.

        Args:
            x: An input, ``(1, C, H, W)``.

        Returns:
            Whether there is anything to optimise.
        """
        model = self._strategy.model
        with undisturbed(model, x.device), torch.no_grad():
            logits = model(x)[0]
        reason = None
        if bool(logits.isnan().any()):
            reason = "the outputs of the model are not finite: did training diverge?"
        elif int((logits > MASKED).sum()) < 2:
            reason = (
                f"the model knows one class only, others score {MASKED:g} or less, "
                "which leaves nothing to optimise"
            )
        if reason is not None:
            warnings.warn(f"{reason}; the exemplars stay as selected", stacklevel=3)
        return reason is None

    def fit(self, new: Exemplars, dataset: Any, old: Exemplars | None) -> Exemplars:
        """Optimise the exemplars of the experience for its data, equations 8 and 9.

        Args:
            new: Where to start.
            dataset: The data.
            old: Exemplars of other classes; objective "ncm" takes their means.

        Returns:
            The exemplars in their order. Where a gradient is not finite they are those
            of before that step, with a warning.
        """
        setting = self._setting
        data = dataset.train() if setting.augment_outer else dataset.eval()
        if setting.objective == "ncm":
            data = _of_classes(
                data, {*new.y.tolist(), *([] if old is None else old.y.tolist())}
            )
        means = self._means(old) if setting.objective == "ncm" and old else {}
        n_steps = setting.n_steps(len(data))
        steps = self._start(new, len(data))
        batches = self._batches(data)
        text = f"exemplars of experience {self._experience}"
        with self._log.bar(n_steps, text) as progress:
            for _ in range(n_steps):
                if not steps.take(self._gradient(steps, next(batches), means)):
                    break
                progress()
        outcome = steps.outcome()
        self._log.add(self._strategy, self._experience, "new", outcome)
        return Exemplars(outcome.x, new.y)

    def adjust(self, old: Exemplars) -> Exemplars:
        """Optimise a half of the old exemplars for the other, equations 10a and 10b.

        Args:
            old: Of all earlier experiences; classes of one exemplar stay as they are.

        Returns:
            The exemplars in their order.
        """
        halves = self.halves(old.y)
        if not len(halves[1]):
            return old
        n = len(halves[0])
        first, second = (self._start(Exemplars(old.x[h], old.y[h]), n) for h in halves)
        n_steps, size = self._setting.n_steps(n), self._setting.batch_size
        text = f"exemplars before experience {self._experience}"
        with self._log.bar(n_steps, text) as progress:
            for _ in range(n_steps):
                outer = second.sample(size, self._generator)
                found = first.sample(size, self._generator)
                good = first.take(self._gradient(first, outer, {}))
                if self._setting.adjust_old == "sequential":
                    found = first.sample(size, self._generator)
                if not second.take(self._gradient(second, found, {})) or not good:
                    break
                progress()
        x = old.x.clone()
        for half, steps, name in zip(
            halves, (first, second), ("old_a", "old_b"), strict=True
        ):
            outcome = steps.outcome()
            x[half] = outcome.x
            self._log.add(self._strategy, self._experience, name, outcome)
        return Exemplars(x, old.y)

    def halves(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of a random half of each class, and of the other.

        Args:
            y: Class ids, ``(M,)``.

        Returns:
            Row numbers; the first half of an odd number has one more. Classes of one
            exemplar are in neither.
        """
        first, second = [y.new_empty(0)], [y.new_empty(0)]
        for label in torch.unique(y).tolist():
            rows = (y == label).nonzero().flatten()
            if len(rows) < 2:
                continue
            order = torch.randperm(len(rows), generator=self._generator).to(y.device)
            half = (len(rows) + 1) // 2
            first.append(rows[order[:half]])
            second.append(rows[order[half:]])
        return torch.cat(first), torch.cat(second)

    def _start(self, exemplars: Exemplars, n_samples: int) -> ExemplarSteps:
        setting = self._setting
        epoch = -(-n_samples // setting.batch_size)
        return ExemplarSteps(
            exemplars,
            self._box,
            optimizer=setting.optimizer,
            lr=setting.lr,
            weight_decay=setting.weight_decay,
            halve_every=(setting.decay_epochs or 0) * epoch,
        )

    def _gradient(
        self, steps: ExemplarSteps, batch: Batch, old_means: dict[int, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self._setting.gradient(
            self._strategy.model,
            Exemplars(steps.x.detach(), steps.y),
            batch,
            old_means=old_means,
            generator=self._generator,
        )

    def _batches(self, data: Any) -> Iterator[Batch]:
        """Outer mini-batches, epoch after epoch."""
        device = self._strategy.device
        loader = make_loader(
            data,
            batch_size=self._setting.batch_size,
            shuffle=True,
            device=device,
            memory_resident=self._memory_resident,
            generator=self._generator,
        )
        while True:
            for x, y, *_ in loader:
                yield x.to(device), y.to(device)

    def _means(self, exemplars: Exemplars) -> dict[int, Tensor]:
        """Mean feature of each class, by class id."""
        (x, y), size = exemplars, self._setting.batch_size
        batches = [
            list(b)
            for b in zip(torch.split(x, size), torch.split(y, size), strict=True)
        ]
        strategy = self._strategy
        with undisturbed(strategy.model, strategy.device):
            features, _ = extract_features(strategy.model, batches, strategy.device)
        return {
            label: features[y == label].mean(0) for label in torch.unique(y).tolist()
        }


def require_one_head(model: Any) -> None:
    """Refuse a model with a head a task.

    Args:
        model: Any model.

    Raises:
        ValueError: If it is one of Avalanche's with several heads.
    """
    if is_multi_task_module(model):
        raise ValueError(f"{type(model).__name__} has a head a task; wanted one head")


def _of_classes(data: Any, known: set[int]) -> Any:
    """Without samples of classes that have no exemplar, and so no mean."""
    rows = [i for i, label in enumerate(values_of(data.targets)) if int(label) in known]
    return data if len(rows) == len(data) else data.subset(rows)
