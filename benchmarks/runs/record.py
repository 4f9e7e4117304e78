"""What a run has measured, and the ``run.json`` made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.recipes.recipe import Setup
from benchmarks.runs.accuracy_matrix import paper_metrics
from benchmarks.runs.environment import commit, hardware, peak_memory, versions
from benchmarks.runs.options import Run, plain

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class Progress:
    """What was measured so far, over all parts of a run; travels in the checkpoint.

    Args:
        commands: The command that started the run, then those that resumed it.
        accuracy: One row for each finished experience; see ``accuracy_matrix``.
        minutes: Time of training and evaluation.
        train_seconds: That of training alone.
        peak_memory_bytes: Most memory held; see `environment.peak_memory`.
        memory_over_experiences: Bytes the method keeps by kind, after each experience.
        further_metrics: For each finished experience, see `evaluation.last_values`.
    """

    commands: list[str] = field(default_factory=list)
    accuracy: list[list[float | None]] = field(default_factory=list)
    minutes: float = 0.0
    train_seconds: float = 0.0
    peak_memory_bytes: dict[str, int | None] = field(default_factory=dict)
    memory_over_experiences: list[dict[str, int]] = field(default_factory=list)
    further_metrics: list[dict[str, float]] = field(default_factory=list)

    def add(
        self,
        row: list[float | None],
        *,
        minutes: float,
        train_seconds: float,
        memory_bytes: dict[str, int],
        further_metrics: dict[str, float],
        device: torch.device,
    ) -> None:
        """Note a finished experience.

        Args:
            row: Accuracy on each test experience; ``None`` where not evaluated.
            minutes: Time that the experience took.
            train_seconds: That of its training alone.
            memory_bytes: Bytes the method keeps now, by kind.
            further_metrics: Last values by name.
            device: Device of the run.
        """
        self.accuracy.append(row)
        self.minutes += minutes
        self.train_seconds += train_seconds
        self.memory_over_experiences.append(memory_bytes)
        self.further_metrics.append(further_metrics)
        for kind, now in peak_memory(device).items():
            known = [
                n for n in (now, self.peak_memory_bytes.get(kind)) if n is not None
            ]
            self.peak_memory_bytes[kind] = max(known, default=None)


def make_record(
    run: Run,
    setup: Setup,
    progress: Progress,
    *,
    n_experiences: int,
    test_images: Sequence[int],
    device: torch.device,
) -> dict[str, Any]:
    """Make the contents of ``run.json``.

    Args:
        run: Recipe and options.
        setup: What the recipe returned.
        progress: What was measured, at least one experience.
        n_experiences: Number of training experiences E of the stream.
        test_images: Number of images of each test experience.
        device: Device of the run.

    Returns:
        Plain data. ``metrics`` are fractions; ``like`` is the recipe in whose frame the
        run was made, or None; ``changed`` names the options that differ
        from the recipe's protocol, and so keep the run from being a reproduction.
    """
    finished = len(progress.accuracy)
    return {
        "recipe": run.recipe.name,
        "seed": run.settings.seed,
        "smoke": run.settings.smoke,
        "finished": finished == n_experiences,
        "experiences": n_experiences,
        "experiences_finished": finished,
        "stream": setup.stream,
        "setting": setup.setting,
        "note": run.settings.note,
        "like": run.like,
        "memory": setup.memory,
        "options": plain(run.options),
        "changed": list(run.changed),
        "metrics": paper_metrics(progress.accuracy, test_images),
        "further_metrics": progress.further_metrics,
        "test_images": list(test_images),
        "memory_bytes": progress.memory_over_experiences[-1],
        "memory_over_experiences": progress.memory_over_experiences,
        "peak_memory_bytes": progress.peak_memory_bytes,
        "minutes": round(progress.minutes, 3),
        "train_seconds": round(progress.train_seconds, 3),
        "command": progress.commands[0],
        "resumed": len(progress.commands) - 1,
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(device),
    }
