"""Accuracy of the classification by the nearest mean of exemplars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name

from avalanche_ext.models.cosine_classifier import classes_in

if TYPE_CHECKING:
    from avalanche.training.templates import SupervisedTemplate

_NAME = "NearestMean_Acc"


class NearestExemplarMeanAccuracy(PluginMetric[dict[str, float]]):
    r"""Share of samples whose class has the nearest mean of exemplars.

    .. math:: \arg\max_k s_{bk} = y_b

    with the scores :math:`s` of `NearestExemplarMeanPlugin`, which must be among the
    strategy's plugins. Published as ``NearestMean_Acc_Exp/...`` for each experience, and
    as ``NearestMean_Acc_Stream/...`` for each call of ``eval``. A sample whose class was
    not trained yet is wrong on its experience, and left out of the stream, as in
    `SeenClassesAccuracy`; one of the experience in training is wrong, as it has no
    exemplars. Nothing is published while there are no exemplars at all.

    Callbacks: ``before_training_exp`` notes the classes trained; ``before_eval`` and
    ``before_eval_exp`` reset; ``after_eval_iteration`` counts, without waiting for the
    device; ``after_eval_exp`` and ``after_eval`` publish. Between experiences it keeps
    classes and the counts of the last evaluation.

    Raises:
        ValueError: When training or evaluation begins, if no plugin gives the scores.

    Example:
        >>> NearestExemplarMeanAccuracy().result()
        {}
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen_classes: list[int] = []
        self.reset()

    def reset(self) -> None:
        """Forget the samples counted."""
        # right, all; right of trained classes, all of trained classes
        self._of_experience = torch.zeros(4, dtype=torch.int64)
        self._of_stream = torch.zeros(4, dtype=torch.int64)

    def result(self) -> dict[str, float]:
        """Return the share of the stream, in [0, 1]; none without any sample."""
        *_, right, total = self._of_stream.tolist()
        return {f"{_NAME}_Stream": right / total} if total else {}

    @staticmethod
    def require_plugin(strategy: SupervisedTemplate) -> None:
        """Refuse a strategy without scores.

        Args:
            strategy: The one to be measured.

        Raises:
            ValueError: If none of its plugins gives them.
        """
        if not any(getattr(p, "gives_nearest_mean", False) for p in strategy.plugins):
            raise ValueError(
                f"{type(strategy).__name__} has no class means of exemplars; wanted a "
                "NearestExemplarMeanPlugin among its plugins, or no nearest_exemplar_"
                "mean among the metrics"
            )

    def before_training(self, strategy: SupervisedTemplate) -> None:
        """Look for the plugin."""
        self.require_plugin(strategy)

    def before_training_exp(self, strategy: SupervisedTemplate) -> None:
        """Note the classes."""
        new = classes_in(strategy.experience)
        self.seen_classes = sorted({*self.seen_classes, *new})

    def before_eval(self, strategy: SupervisedTemplate) -> None:
        """Start counting."""
        self.require_plugin(strategy)
        self.reset()
        self._of_stream = self._of_stream.to(strategy.device)

    def before_eval_exp(self, strategy: SupervisedTemplate) -> None:
        """Start counting the samples of an experience."""
        self._of_experience = torch.zeros_like(self._of_stream)

    def after_eval_iteration(self, strategy: SupervisedTemplate) -> None:
        """Count the samples of the mini-batch."""
        scores, y = strategy.nearest_mean, strategy.mb_y
        if scores is None:
            return
        seen = torch.isin(y, torch.tensor(self.seen_classes, device=y.device))
        right = scores.argmax(dim=1) == y
        rows = (right, torch.ones_like(right), right & seen, seen)
        self._of_experience += torch.stack(rows).sum(dim=1)

    def after_eval_exp(self, strategy: SupervisedTemplate) -> list[MetricValue]:
        """Publish the share of the experience, and add its counts to the stream's."""
        self._of_stream += self._of_experience
        right, total, *_ = self._of_experience.tolist()
        if not total:
            return []
        name = get_metric_name(f"{_NAME}_Exp", strategy, add_experience=True)
        step = strategy.clock.train_iterations
        return [MetricValue(self, name, right / total, step)]

    def after_eval(self, strategy: SupervisedTemplate) -> list[MetricValue]:
        """Publish the share of the stream."""
        step = strategy.clock.train_iterations
        return [
            MetricValue(
                self, get_metric_name(name, strategy, add_task=False), share, step
            )
            for name, share in self.result().items()
        ]

    def __str__(self) -> str:
        return _NAME
