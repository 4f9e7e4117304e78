"""What is told of the optimisation of exemplars while it runs, and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from avalanche.evaluation.metric_results import MetricValue
from tqdm import tqdm

from avalanche_ext.buffers.exemplar_steps import Optimized


class ExemplarLog:
    """Progress bar, loggers, and the curves themselves.

    Args:
        progress: Whether to show a progress bar on stderr; None: on a terminal.

    Attributes:
        entries: One for each optimisation: ``experience``, ``exemplars`` (``"new"``,
            ``"old_a"`` or ``"old_b"``), ``outer_losses`` ``(steps,)`` and
            ``inner_losses`` ``(steps, 2)``, see `Optimized`.
    """

    def __init__(self, progress: bool | None = None) -> None:
        self._disable = None if progress is None else not progress
        self.entries: list[dict[str, Any]] = []

    @contextmanager
    def bar(self, n_steps: int, text: str) -> Iterator[Callable[[], Any]]:
        """Show how far an optimisation is.

        Args:
            n_steps: Steps to come.
            text: Of what.

        Yields:
            To be called after each step.
        """
        with tqdm(total=n_steps, desc=text, disable=self._disable, leave=False) as bar:
            yield bar.update

    def add(
        self, strategy: Any, experience: int, exemplars: str, outcome: Optimized
    ) -> None:
        """Keep the losses, and hand them to the loggers of the strategy.

        Args:
            strategy: Its evaluator is used, if there is one.
            experience: Its number.
            exemplars: Which were optimised.
            outcome: Of the optimisation.
        """
        outer, inner = outcome.outer_losses, outcome.inner_losses
        self.entries.append(
            {
                "experience": experience,
                "exemplars": exemplars,
                "outer_losses": outer,
                "inner_losses": inner,
            }
        )
        publish = getattr(
            getattr(strategy, "evaluator", None), "publish_metric_value", None
        )
        if publish is None:
            return
        curves = {"Outer_Loss": outer, "Inner_Loss": inner[:, 1]}
        for name, curve in curves.items():
            full = f"Exemplars_{name}/{exemplars}/Exp{experience:03d}"
            for step, value in enumerate(curve.tolist()):
                publish(MetricValue("exemplars", full, value, step))
