"""Metrics and loggers by name.

Importing this module loads neither torch nor Avalanche.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.names import UsageError, nearest

if TYPE_CHECKING:
    from avalanche.evaluation import PluginMetric
    from avalanche.logging import BaseLogger
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.templates import SupervisedTemplate

DEFAULT_METRICS = (
    "accuracy",
    "seen_accuracy",
    "average_incremental_accuracy",
    "loss",
    "forgetting",
    "memory_bytes",
)
_MEMORY_EVERY = 0.1  # seconds between two looks at the process's memory


def make_evaluator(
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    loggers: Sequence[str] = ("text",),
    out: Path,
    run_name: str | None = None,
) -> EvaluationPlugin:
    """Build the evaluation plugin of a strategy.

    No metric is published by the mini-batch. The text and CSV loggers touch no file
    before training or evaluation begins, so that a run is safe until really resumed.

    Args:
        metrics: Keys of ``METRICS``.
        loggers: Keys of ``LOGGERS``; none is silent.
        out: Folder of the loggers' files; made when needed.
        run_name: Name of the run in W&B; ``None`` takes that of ``out``.

    Returns:
        The plugin. Its metrics and its text and CSV loggers can be stopped and
        resumed: see `benchmarks.runs.loggers`.

    Raises:
        UsageError: If a name is unknown or given twice. It is a ``ValueError``.
    """
    _check("metric", metrics, METRICS)
    _check("logger", loggers, LOGGERS)
    from avalanche.logging import BaseLogger
    from avalanche.training.plugins import EvaluationPlugin

    name = run_name or out.name
    made = [LOGGERS[logger](out, name) for logger in loggers]
    return EvaluationPlugin(
        *(METRICS[metric]() for metric in metrics),
        loggers=made or [BaseLogger()],  # Avalanche warns of an empty list
    )


def require_measurable(strategy: SupervisedTemplate) -> None:
    """Refuse metrics of what the strategy does not have.

    Args:
        strategy: One with the evaluator that `make_evaluator` built.

    Raises:
        ValueError: If a metric needs a plugin that the strategy lacks.
    """
    for metric in strategy.evaluator.metrics:
        if hasattr(metric, "require_plugin"):
            metric.require_plugin(strategy)


def last_values(
    evaluator: EvaluationPlugin, metrics: Sequence[str]
) -> dict[str, float]:
    """Pick the last values of further metrics out of an evaluator.

    Args:
        evaluator: One that `make_evaluator` built with these metrics.
        metrics: Those of them that are not of every run; with none, nothing is picked.

    Returns:
        By the name that Avalanche gives; finite numbers only, neither figures nor NaN.
    """
    # a metric may publish under several names: all but those of every run
    usual = {str(made) for metric in DEFAULT_METRICS for made in METRICS[metric]()}
    return {
        name: float(value)
        for name, value in evaluator.last_metric_results.items()
        if metrics
        and name.partition("/")[0] not in usual
        and isinstance(value, int | float)
        and isfinite(value)
    }


def _check(kind: str, names: Sequence[str], valid: Iterable[str]) -> None:
    for name in names:
        if name not in valid:
            raise UsageError(f"unknown {kind} {name!r}; {nearest(name, valid)}")
        if names.count(name) > 1:
            raise UsageError(f"{kind} {name} is given twice; wanted it once")


def _avalanche(function: str, **when: Any) -> Callable[[], list[PluginMetric[Any]]]:
    """Delay the call of one of Avalanche's functions that make metrics."""

    def make() -> list[PluginMetric[Any]]:
        from avalanche.evaluation import metrics

        made: list[PluginMetric[Any]] = getattr(metrics, function)(**when)
        return made

    return make


def _ours(
    module: str, name: str, **arguments: Any
) -> Callable[[], list[PluginMetric[Any]]]:
    """Delay the import of a metric of `avalanche_ext.metrics`."""

    def make() -> list[PluginMetric[Any]]:
        from importlib import import_module

        metric = getattr(import_module(f"avalanche_ext.metrics.{module}"), name)
        return [metric(**arguments)]

    return make


METRICS: dict[str, Callable[[], list[PluginMetric[Any]]]] = {
    "accuracy": _avalanche(
        "accuracy_metrics",
        epoch=True,
        experience=True,
        stream=True,
        trained_experience=True,
    ),
    "seen_accuracy": _ours("accuracy", "SeenClassesAccuracy"),
    "average_incremental_accuracy": _ours("accuracy", "AverageIncrementalAccuracy"),
    "loss": _avalanche("loss_metrics", epoch=True, experience=True, stream=True),
    "forgetting": _avalanche("forgetting_metrics", experience=True, stream=True),
    "bwt": _avalanche("bwt_metrics", experience=True, stream=True),
    "confusion_matrix": _avalanche(
        "confusion_matrix_metrics", stream=True, save_image=False
    ),
    "memory_bytes": _ours("memory", "MemoryBytes"),
    # a pass over at most so many images of each past experience
    "gradient_reconstruction": _ours(
        "gradient_reconstruction", "GradientReconstructionError", max_points=2000
    ),
    # of strategies that keep a submodel an experience
    "task_recognition": _ours("task_recognition", "TaskRecognitionAccuracy"),
    # of strategies with the plugin that gives its scores
    "nearest_exemplar_mean": _ours(
        "nearest_exemplar_mean", "NearestExemplarMeanAccuracy"
    ),
    "unit_capacity": _ours("capacity", "UnitCapacity"),
    "timing": _avalanche("timing_metrics", epoch=True, stream=True),
    "ram": _avalanche(
        "ram_usage_metrics", every=_MEMORY_EVERY, epoch=True, stream=True
    ),
    "gpu_memory": _ours("gpu_memory", "PeakGPUMemory"),
}
"""What makes the metrics of each name. The last three measure the machine: with them,
two runs never log the same."""


def _interactive(out: Path, name: str) -> BaseLogger:
    from avalanche.logging import InteractiveLogger

    return InteractiveLogger()


def _text(out: Path, name: str) -> BaseLogger:
    from benchmarks.runs.loggers import ResumableTextLogger

    return ResumableTextLogger(out / "log.txt")


def _csv(out: Path, name: str) -> BaseLogger:
    from benchmarks.runs.loggers import ResumableCSVLogger

    return ResumableCSVLogger(out)


def _tensorboard(out: Path, name: str) -> BaseLogger:
    from avalanche.logging import TensorboardLogger

    return TensorboardLogger(out / "tensorboard")


def _wandb(out: Path, name: str) -> BaseLogger:
    from benchmarks.runs.loggers import ResumableWandBLogger

    return ResumableWandBLogger(out, run_name=name)


LOGGERS: dict[str, Callable[[Path, str], BaseLogger]] = {
    "interactive": _interactive,
    "text": _text,
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
"""What makes the logger of each name: progress bars on the terminal, ``log.txt``,
``training_results.csv`` and ``eval_results.csv``, event files in ``tensorboard/`` (a
resumed run adds one, in which the interrupted experience stands twice), or a W&B run
(which a resumed run goes on with)."""
