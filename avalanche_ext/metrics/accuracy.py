"""Accuracy over the classes seen so far, and its average over the experiences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name, stream_type

if TYPE_CHECKING:
    from avalanche.training.templates import SupervisedTemplate


class SeenClassesAccuracy(PluginMetric[float]):
    r"""Accuracy over the evaluated samples whose class was met in training.

    .. math:: \frac{|\{b : y_b \in S, \arg\max_k z_{bk} = y_b\}|}{|\{b : y_b \in S\}|}

    with :math:`S` the classes of all experiences trained so far, the one in training
    included. Samples of other classes do not count; the prediction is the argmax over
    *all* outputs. Published as ``Top1_Acc_Seen/eval_phase/<stream>_stream``, once per
    call of ``eval``; nothing is published while no class has been seen.

    Callbacks: ``before_training_exp`` adds the classes of the experience;
    ``before_eval`` resets; ``after_eval_iteration`` counts, without waiting for the
    device; ``after_eval`` publishes. Between experiences it keeps the classes seen and
    the number of experiences trained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen_classes: list[int] = []
        self.experiences_trained = 0
        self._seen = torch.zeros(0, dtype=torch.int64)
        self.reset()

    def reset(self) -> None:
        """Forget the samples counted, not the classes seen."""
        self._hits_and_total = torch.zeros(2, dtype=torch.int64)

    def result(self) -> float:
        """Return the accuracy of the samples counted, in [0, 1]; 0 without any."""
        hits, total = self._hits_and_total.tolist()
        return float(hits / max(1, total))

    def before_training_exp(self, strategy: SupervisedTemplate) -> None:
        """Add the classes of the experience to those seen."""
        classes = _classes(strategy.experience)
        self.seen_classes = sorted(classes.union(self.seen_classes))
        self.experiences_trained += 1

    def before_eval(self, strategy: SupervisedTemplate) -> None:
        """Start counting."""
        self.reset()
        self._seen = torch.tensor(
            self.seen_classes, dtype=torch.int64, device=strategy.device
        )
        self._hits_and_total = self._hits_and_total.to(strategy.device)

    def after_eval_iteration(self, strategy: SupervisedTemplate) -> None:
        """Count the samples of the mini-batch."""
        seen = torch.isin(strategy.mb_y, self._seen)
        hits = seen & (strategy.mb_output.argmax(dim=1) == strategy.mb_y)
        self._hits_and_total += torch.stack((hits.sum(), seen.sum()))

    def after_eval(self, strategy: SupervisedTemplate) -> list[MetricValue] | None:
        """Publish the accuracy, if any sample counted."""
        if int(self._hits_and_total[1]) == 0:
            return None
        name = get_metric_name(self, strategy, add_experience=False, add_task=False)
        step = strategy.clock.train_iterations
        return [MetricValue(self, name, self.result(), step)]

    def __str__(self) -> str:
        return "Top1_Acc_Seen"


class AverageIncrementalAccuracy(SeenClassesAccuracy):
    r"""Mean over the experiences trained of the seen-classes accuracy after each.

    .. math:: \frac1t \sum_{i=1}^{t} \mathrm{accuracy}_i

    the headline number of the class-incremental papers, where accuracy\ :sub:`i` is
    :class:`SeenClassesAccuracy` of the evaluation after experience *i*; with equally
    many test samples a class it equals
    :func:`~avalanche_ext.functional.average_incremental_accuracy.average_incremental_accuracy`
    of the accuracy matrix. Published as
    ``Avg_Incremental_Acc/eval_phase/<stream>_stream``, one average a stream.

    Evaluate once after every experience, on a whole stream or on its part seen so far.
    Evaluated several times before the next experience begins (periodic evaluation), the
    last time counts; an experience never evaluated is left out of the mean.

    Callbacks: those of :class:`SeenClassesAccuracy`. Between experiences it keeps one
    accuracy for each stream and experience.
    """

    def __init__(self) -> None:
        super().__init__()
        self.accuracies: dict[str, dict[int, float]] = {}
        self._stream = ""

    def result(self) -> float:
        """Return the average of the stream evaluated last; 0 before any evaluation."""
        accuracies = self.accuracies.get(self._stream, {}).values()
        return sum(accuracies) / max(1, len(accuracies))

    def after_eval(self, strategy: SupervisedTemplate) -> list[MetricValue] | None:
        """Note the accuracy after the current experience; publish the average."""
        if int(self._hits_and_total[1]) > 0:
            self._stream = stream_type(strategy.experience)
            accuracies = self.accuracies.setdefault(self._stream, {})
            accuracies[self.experiences_trained] = super().result()
        return super().after_eval(strategy)

    def __str__(self) -> str:
        return "Avg_Incremental_Acc"


def _classes(experience: Any) -> set[int]:
    """Read an experience's classes on either benchmark API."""
    classes = getattr(experience, "classes_in_this_experience", None)
    if classes is None:
        classes = experience.dataset.targets.uniques
    return {int(label) for label in classes}
