"""Accuracy with the experience known and unknown, and how well it is recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name

from avalanche_ext.models.cosine_classifier import classes_in

if TYPE_CHECKING:
    from avalanche.training.templates import SupervisedTemplate

#: Beginning of the names under which the three shares are published, in their order.
PREFIXES = ("TaskAware_Acc", "TaskAgnostic_Acc", "TaskRecognition_Acc")


class TaskRecognitionAccuracy(PluginMetric[dict[str, float]]):
    r"""Three shares of samples; the third for strategies that recognise experiences.

    With :math:`o` the submodel that owns the true class and :math:`m` the one
    recognised (the literature's task):

    .. math:: \text{task-aware: } \arg\max_k z^{o}_{bk} = y_b, \qquad
        \text{task-agnostic: } \arg\max_k z^{m}_{bk} = y_b, \qquad
        \text{recognition: } m_b = o_b

    They are read from ``strategy.recognition``, which the strategy sets for each
    mini-batch of an evaluation: ``owner`` and ``chosen``, ``(B,)``, and the logits
    ``task_aware`` and ``task_agnostic``, ``(B, K)``. Of all other strategies
    :math:`z^o` is the output for the classes of the experience that is evaluated, and
    :math:`z^m` the whole output; there is no third share. Nor is there a second where a
    plugin, such as `RelevanceFreezingPlugin` alone, answers by the true experience.

    Published from one pass over the data as ``TaskAware_Acc_Exp/...``,
    ``TaskAgnostic_Acc_Exp/...`` and ``TaskRecognition_Acc_Exp/...`` for each
    experience, and with ``_Stream`` for each call of ``eval``. A sample whose class was
    not trained yet (``owner`` -1) is wrong in all three on its experience, and left out
    of the stream, as in `SeenClassesAccuracy`.

    Callbacks: ``before_training_exp`` notes the classes trained; ``before_eval`` and
    ``before_eval_exp`` reset; ``after_eval_iteration``
    counts, without waiting for the device; ``after_eval_exp`` and ``after_eval``
    publish. Between experiences it keeps classes and the counts of the last evaluation.

    Example:
        >>> TaskRecognitionAccuracy().result()
        {}
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen_classes: list[int] = []
        self._published = 0  # of the three shares
        self.reset()

    def reset(self) -> None:
        """Forget the samples counted."""
        # right by the three shares, samples of trained classes, all samples
        self._of_experience = torch.zeros(5, dtype=torch.int64)
        self._of_stream = torch.zeros(5, dtype=torch.int64)

    def result(self) -> dict[str, float]:
        """Return the shares of the stream in [0, 1]; none without any sample."""
        *right, owned, _ = self._of_stream.tolist()
        return self._shares(right, owned)

    def before_training_exp(self, strategy: SupervisedTemplate) -> None:
        """Note the classes."""
        new = classes_in(strategy.experience)
        self.seen_classes = sorted({*self.seen_classes, *new})

    def before_eval(self, strategy: SupervisedTemplate) -> None:
        """Start counting."""
        self.reset()
        self._of_stream = self._of_stream.to(strategy.device)

    def before_eval_exp(self, strategy: SupervisedTemplate) -> None:
        """Start counting the samples of an experience."""
        self._of_experience = torch.zeros_like(self._of_stream)

    def after_eval_iteration(self, strategy: SupervisedTemplate) -> None:
        """Count the samples of the mini-batch."""
        y, output = strategy.mb_y, strategy.mb_output
        recognition = getattr(strategy, "recognition", None)
        if recognition is None:
            own = torch.tensor(classes_in(strategy.experience), device=output.device)
            others = torch.ones(output.shape[1], dtype=torch.bool, device=output.device)
            others[own[own < output.shape[1]]] = False
            aware, agnostic = output.masked_fill(others, -torch.inf), output
            owned = torch.isin(y, torch.tensor(self.seen_classes, device=y.device))
            recognised = torch.zeros_like(owned)
            self._published = 1 if _knows_experience(strategy) else 2
        else:
            aware, agnostic = recognition.task_aware, recognition.task_agnostic
            owned = recognition.owner >= 0
            recognised = recognition.chosen == recognition.owner
            self._published = 3
        right = (aware.argmax(dim=1) == y, agnostic.argmax(dim=1) == y, recognised)
        rows = (*(owned & each for each in right), owned, torch.ones_like(owned))
        self._of_experience += torch.stack(rows).sum(dim=1)

    def after_eval_exp(self, strategy: SupervisedTemplate) -> list[MetricValue]:
        """Publish the shares of the experience, and add its counts to the stream's."""
        self._of_stream += self._of_experience
        *right, _, every = self._of_experience.tolist()
        return self._values(strategy, self._shares(right, every), stream=False)

    def after_eval(self, strategy: SupervisedTemplate) -> list[MetricValue]:
        """Publish the shares of the stream."""
        return self._values(strategy, self.result(), stream=True)

    def __str__(self) -> str:
        return "TaskRecognition_Acc"

    def _shares(self, right: list[int], total: int) -> dict[str, float]:
        """The shares by the beginning of their names, if there is any sample."""
        if total == 0:
            return {}
        names = PREFIXES[: self._published]
        return {p: n / total for p, n in zip(names, right, strict=False)}

    def _values(
        self, strategy: SupervisedTemplate, shares: dict[str, float], *, stream: bool
    ) -> list[MetricValue]:
        """The shares under their full names."""
        level, step = "Stream" if stream else "Exp", strategy.clock.train_iterations
        one = {"add_experience": not stream, "add_task": not stream}
        names = [get_metric_name(f"{p}_{level}", strategy, **one) for p in shares]
        values = zip(names, shares.values(), strict=True)
        return [MetricValue(self, name, share, step) for name, share in values]


def _knows_experience(strategy: SupervisedTemplate) -> bool:
    """Whether a plugin makes the strategy's output task-aware."""
    return any(getattr(p, "answers_task_aware", False) for p in strategy.plugins)
