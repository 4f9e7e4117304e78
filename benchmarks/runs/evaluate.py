"""One row of the accuracy matrix."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avalanche.core import CLExperience
    from avalanche.training.templates import SupervisedTemplate

_ACCURACY = re.compile(r"Top1_Acc_Exp/eval_phase/.*/Exp(\d+)$")


def accuracy_row(
    strategy: SupervisedTemplate,
    tests: Sequence[CLExperience],
    seen: AbstractSet[tuple[int, int]],
    **eval_options: Any,
) -> list[float | None]:
    """Evaluate a strategy on the test experiences that it can know.

    Those are the ones whose classes were all trained (all of them where each
    experience brings the same classes, with other images); if there are none, because
    the test stream is one complete test set, all are evaluated.

    Args:
        strategy: A strategy whose evaluator measures accuracy by experience.
        tests: All test experiences, in order.
        seen: Classes of the experiences trained so far; see `classes_of`.
        **eval_options: Arguments of ``strategy.eval()``.

    Returns:
        Accuracy in [0, 1] on each test experience; ``None`` where not evaluated.
    """
    known = [e for e in tests if classes_of(e) <= seen] or list(tests)
    measured = accuracy_by_experience(strategy.eval(known, **eval_options))
    evaluated = {e.current_experience for e in known}
    return [measured[j] if j in evaluated else None for j in range(len(tests))]


def classes_of(experience: CLExperience) -> set[tuple[int, int]]:
    """The classes of an experience, each with its task label (0 where there is none).

    Args:
        experience: Of the old or the new benchmark API.

    Returns:
        Pairs (task label, class).
    """
    data = experience.dataset
    tasks = getattr(experience, "task_labels", [0])
    return {(int(t), int(c)) for t, c in product(tasks, data.targets.uniques)}


def accuracy_by_experience(results: Mapping[str, Any]) -> dict[int, float]:
    """Pick the accuracy on each experience out of Avalanche's metrics.

    Args:
        results: What ``strategy.eval`` returned.

    Returns:
        Accuracy in [0, 1] by the number of the experience.

    Example:
        >>> name = "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp002"
        >>> accuracy_by_experience({name: 0.75, "Loss_Exp/eval_phase/x/Exp002": 3.0})
        {2: 0.75}
    """
    found = ((_ACCURACY.match(name), value) for name, value in results.items())
    return {int(match[1]): float(value) for match, value in found if match}
