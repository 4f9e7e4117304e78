"""Heads of several tasks over one feature extractor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from avalanche.benchmarks import CLExperience
from avalanche.models import DynamicModule, MultiTaskModule
from torch import Tensor, nn
from torch.nn.functional import linear

from avalanche_ext._checks import require_whole
from avalanche_ext.models.cosine_classifier import (
    MASK_VALUE,
    MAX_CLASS_ID,
    classes_in,
    entries,
)
from avalanche_ext.models.feature_classifier import FeatureClassifier


def task_classes_in(experience: CLExperience) -> list[tuple[int, int]]:
    """(Task label, class id) of an experience, ascending, for every kind of benchmark.

    Args:
        experience: Of the old or the new benchmark API; without task labels all are 0.

    Returns:
        The distinct pairs.
    """
    tasks = getattr(experience.dataset, "targets_task_labels", None)
    distinct = [0] if tasks is None else sorted({int(t) for t in tasks.uniques})
    if len(distinct) == 1:
        return [(distinct[0], c) for c in classes_in(experience)]
    pairs = zip(tasks, experience.dataset.targets, strict=True)  # type: ignore[arg-type]
    return sorted({(int(task), int(c)) for task, c in pairs})


class TaskClassifier(DynamicModule):
    r"""Linear logits; each sample sees the classes of its own task, and no others.

    .. math:: z_{bk} = \langle w_{r(t_b, k)}, f_b \rangle + \beta_{r(t_b, k)}

    with a row r for each class of each task, and `MASK_VALUE` where a task has no such
    class. So it serves class ids that begin anew in each task, class ids that go on,
    and streams without task labels: there it is one head that grows with the classes.

    It grows when a strategy adapts it *in train mode*. By default the rows of each
    experience are parameters of their own. With ``n_outputs`` there is one layer of
    that width from the start, as in published code, and classes take its rows as they
    arrive; a prior on the weights then holds the rows of the future, too.

    Args:
        feature_size: D, >= 1.
        n_outputs: Width of the one layer, >= 1; None: one layer an experience.

    Attributes:
        pairs: int64 buffer, (task label, class id) of each row in use, ``(R, 2)``.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> head = TaskClassifier(feature_size=4)
        >>> head.grow([(0, 0), (0, 1), (1, 0)])  # two classes, then another task's
        >>> (head(torch.zeros(2, 4), torch.tensor([0, 1])) == MASK_VALUE).tolist()
        [[False, False], [False, True]]
    """

    pairs: Tensor
    _rows: Tensor
    _like: Tensor

    def __init__(self, feature_size: int, n_outputs: int | None = None) -> None:
        super().__init__()
        require_whole(1, feature_size=feature_size)
        if n_outputs is not None:
            require_whole(1, n_outputs=n_outputs)
        self.feature_size, self.n_outputs = feature_size, n_outputs
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.register_buffer("pairs", torch.empty(0, 2, dtype=torch.long))
        # Row of each class of each task, (tasks + 1, classes); -1 where there is none,
        # and in the last line, for unknown tasks. Derived, so not in the state dict.
        self.register_buffer(
            "_rows", torch.full((1, 0), -1, dtype=torch.long), persistent=False
        )
        # What follows ``.to()`` and ``.double()`` before there is a row.
        self.register_buffer("_like", torch.empty(0), persistent=False)
        self._tasks: list[set[int]] = []  # of each layer; one layer for all is of any
        self._evaluated_width = 0
        self._all_outputs = False
        if n_outputs is not None:
            self._add_layer(n_outputs)

    def adaptation(self, experience: CLExperience) -> None:
        """Grow by the experience's new classes; called by Avalanche's strategies.

        Args:
            experience: About to be trained (module in train mode) or evaluated.
        """
        pairs = task_classes_in(experience)
        if self.training:
            known = set(map(tuple, self.pairs.tolist()))
            if new := [pair for pair in pairs if pair not in known]:
                self.grow(new)
            self._evaluated_width = 0
        else:
            # Labels beyond the known ones need a column for the evaluation loss.
            width = max((c for _, c in pairs), default=-1) + 1
            self._evaluated_width = max(self._evaluated_width, width)

    def grow(self, pairs: list[tuple[int, int]]) -> None:
        """Take rows for classes, with weights as `torch.nn.Linear` draws them.

        Args:
            pairs: (Task label, class id), not known yet; at least one.

        Raises:
            ValueError: If a pair is known, a number negative or huge, or there are
                more than ``n_outputs``.
        """
        known: list[Any] = [*map(tuple, self.pairs.tolist())]
        every = [*known, *pairs]
        if not pairs or len(set(every)) < len(every):
            raise ValueError(f"{pairs} to add to {known}; wanted new, distinct pairs")
        if min(map(min, pairs)) < 0 or max(map(max, pairs)) >= MAX_CLASS_ID:
            raise ValueError(
                f"task labels and class ids {pairs}; wanted 0 to {MAX_CLASS_ID - 1}"
            )
        if self.n_outputs is None:
            self._add_layer(len(pairs))
        elif len(every) > self.n_outputs:
            raise ValueError(
                f"n_outputs is {self.n_outputs}, but {len(every)} classes have come; "
                "wanted as many outputs as the whole stream has classes"
            )
        self._set_pairs(torch.tensor(every, device=self.pairs.device))

    def positions_in_task(self, targets: Tensor, task_label: int) -> Tensor:
        """Class ids counted from 0 within their task.

        Args:
            targets: Class ids of one task, int64, shape ``(B,)``.
            task_label: The task.

        Returns:
            Their places among the task's class ids, ascending.
        """
        own = self.pairs[self.pairs[:, 0] == task_label, 1].sort().values
        return torch.searchsorted(own, targets)

    @contextmanager
    def all_outputs(self) -> Iterator[None]:
        """Meanwhile, logits are all rows by arrival, of whatever task."""
        self._all_outputs = True
        try:
            yield
        finally:
            self._all_outputs = False

    def forward(
        self, features: Tensor, task_labels: Tensor | int | None = None
    ) -> Tensor:
        """Logits by class id.

        Args:
            features: Shape ``(B, D)``; half precision is computed in float32.
            task_labels: Shape ``(B,)``, or one for all; None is 0. A whole number
                leaves the layers of other tasks out of the graph.

        Returns:
            Shape ``(B, W)``, W = largest class id known (in evaluation: or met) + 1.

        Raises:
            ValueError: If no class is known yet.
        """
        if features.dtype in (torch.float16, torch.bfloat16):
            features = features.float()
        of_one = isinstance(task_labels, int) and not self._all_outputs
        with torch.autocast(features.device.type, enabled=False):
            outputs = self._outputs(features, task_labels if of_one else None)
        if self._all_outputs:
            return outputs
        width = self._rows.shape[1]
        if not self.training:
            width = max(width, self._evaluated_width)
        if not width:
            raise ValueError("the classifier has no class yet; wanted adaptation first")
        rows = self._of_tasks(features, 0 if task_labels is None else task_labels)
        if outputs.shape[1]:
            logits = outputs.gather(1, rows.clamp(min=0))
        else:  # evaluated before training
            logits = outputs.new_zeros(rows.shape)
        logits = logits.masked_fill(rows < 0, MASK_VALUE)
        more = width - logits.shape[1]
        return (
            nn.functional.pad(logits, (0, more), value=MASK_VALUE) if more else logits
        )

    def _outputs(self, features: Tensor, task_label: Any) -> Tensor:
        weights, biases = entries(self.weights), entries(self.biases)
        if not weights:
            return features.new_empty(len(features), 0)
        if task_label is not None and self.n_outputs is None:
            # no logit depends on the layers of other tasks
            for i, tasks in enumerate(self._tasks):
                if task_label not in tasks:
                    weights[i], biases[i] = weights[i].detach(), biases[i].detach()
        return linear(features, torch.cat(weights), torch.cat(biases))

    def _of_tasks(self, features: Tensor, task_labels: Tensor | int) -> Tensor:
        """Row of each class for each sample, ``(B, classes)``."""
        last = len(self._rows) - 1  # the line of unknown tasks
        tasks = torch.as_tensor(task_labels, device=self._rows.device)
        known = (tasks >= 0) & (tasks < last)
        return self._rows[torch.where(known, tasks, last)].expand(len(features), -1)

    def _add_layer(self, n: int) -> None:
        """Parameters of n rows, uniform in ``±1/sqrt(D)``."""
        bound = self.feature_size**-0.5
        like = next(iter(self.weights), self._like)  # of the heads there are
        for some, shape in (self.weights, (n, self.feature_size)), (self.biases, (n,)):
            some.append(
                nn.Parameter(like.detach().new_empty(shape).uniform_(-bound, bound))
            )

    def _set_pairs(self, pairs: Tensor) -> None:
        self.pairs = pairs
        n_tasks, width = (pairs.max(0).values + 1).tolist() if len(pairs) else (0, 0)
        self._rows = pairs.new_full((n_tasks + 1, width), -1)
        self._rows[pairs[:, 0], pairs[:, 1]] = torch.arange(
            len(pairs), device=pairs.device
        )
        if self.n_outputs is None:
            parts = torch.split(pairs[:, 0].cpu(), [len(w) for w in self.weights])
            self._tasks = [set(part.tolist()) for part in parts]

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Take the number of layers from the state, so that any stage loads."""
        pairs = state_dict.get(prefix + "pairs")
        if pairs is not None:
            start = prefix + "weights."
            names = sorted((k for k in state_dict if k.startswith(start)), key=len)
            rows = [len(state_dict[name]) for name in names]
            if self.n_outputs is None and [len(w) for w in self.weights] != rows:
                self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
                for n in rows:
                    self._add_layer(n)
            self._set_pairs(pairs.to(self.pairs.device).clone())
        super()._load_from_state_dict(state_dict, prefix, *args)


class TaskIncrementalClassifier(FeatureClassifier, MultiTaskModule):
    """A `FeatureClassifier` whose classifier is given the task labels.

    Args:
        feature_extractor: Maps a batch of inputs to features ``(B, D)``.
        train_classifier: Maps features and task labels to logits: a `TaskClassifier`,
            or Avalanche's `MultiHeadClassifier`. Avalanche's LwF needs the latter: it
            asks for the logits of all tasks by giving no label, which here means 0.

    Example:
        >>> model = TaskIncrementalClassifier(nn.Flatten(), TaskClassifier(64))
        >>> model.train_classifier.grow([(0, 0), (0, 1)])
        >>> model(torch.randn(5, 1, 8, 8), 0).shape
        torch.Size([5, 2])
    """

    def adaptation(self, experience: CLExperience) -> None:
        """Nothing: the classifier adapts itself.

        Args:
            experience: Unused; Avalanche's signature.
        """

    def forward(self, x: Tensor, task_labels: Tensor | int | None = None) -> Tensor:
        """Logits of a batch; stores its features.

        Args:
            x: Inputs, first axis B.
            task_labels: Shape ``(B,)``, or one for all; None on streams without.

        Returns:
            Logits, shape ``(B, W)``.
        """
        self.features = self.feature_extractor(x)
        return self.train_classifier(self.features, task_labels)  # type: ignore[no-any-return]
