"""A classifier by cosine that grows with the classes it is trained on."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from avalanche.benchmarks import CLExperience
from avalanche.models import DynamicModule
from torch import Tensor, nn

from avalanche_ext._checks import require_whole
from avalanche_ext.functional.cosine import cosine_scores
from avalanche_ext.functional.functional_prior import MASKED

#: Logit of a class that has not been trained on: its probability is exactly 0.
MASK_VALUE = MASKED

#: Logits have a column for each id up to the largest.
MAX_CLASS_ID = 1_000_000


def classes_in(experience: CLExperience) -> list[int]:
    """Class ids of an experience, ascending, for every kind of benchmark.

    Args:
        experience: Of the old or the new benchmark API, with or without task labels.

    Returns:
        The distinct class ids.
    """
    classes = getattr(experience, "classes_in_this_experience", None)
    if classes is None:  # e.g. benchmark_from_datasets
        classes = experience.dataset.targets.uniques
    return sorted(int(c) for c in set(classes))


def entries(parameters: nn.ParameterList) -> list[Any]:
    """What a list holds, in a quarter of the time that its iterator takes.

    Args:
        parameters: Of a layer an experience, which may be hundreds.

    Returns:
        The entries, also those that stand there for a while, as in `functional_call`.
    """
    return [p for _, p in parameters.named_parameters(remove_duplicate=False)]


class CosineClassifier(DynamicModule):
    r"""Cosine logits with one prototype a class and one learned scale.

    .. math:: z_{bk} = \eta \, \langle \bar f_b, \bar w_k \rangle

    The prototypes of each experience's new classes are one parameter of shape
    ``(K_e, D)`` in `prototypes`, so that older ones can be frozen. It grows when a
    strategy adapts it *in train mode*, and only then: during evaluation unseen
    classes get `MASK_VALUE` as logit, whatever their number.

    The output has one column per class id. Columns are ordered by class id,
    `scores` and `prototypes` by arrival; `class_order` and `positions` translate.

    Args:
        feature_size: D, number of features, >= 1.
        n_classes: Classes ``0 .. n_classes - 1`` known from the start; 0 (which
            LUCIR needs) to let the first experience decide.

    Attributes:
        scale: The learned temperature :math:`\eta`, a scalar, initially 1.
        scores: Unscaled scores of the last forward pass, ``(B, K)``, with graph.
        class_order: int64 buffer, class ids by arrival, ``(K,)``.
        n_old: Classes known before the experience being trained, K_o.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> head = CosineClassifier(feature_size=4, n_classes=3)
        >>> head(torch.randn(2, 4)).shape
        torch.Size([2, 3])

    References:
        Hou et al., CVPR 2019 (LUCIR), section 3.2.
    """

    class_order: Tensor
    _position: Tensor

    def __init__(self, feature_size: int, n_classes: int = 0) -> None:
        super().__init__()
        require_whole(1, feature_size=feature_size)
        require_whole(0, n_classes=n_classes)
        self.feature_size = feature_size
        self.prototypes = nn.ParameterList()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("class_order", torch.empty(0, dtype=torch.long))
        # Column of each class id, -1 if unknown; derived, so not in the state dict.
        self.register_buffer(
            "_position", torch.empty(0, dtype=torch.long), persistent=False
        )
        self.scores: Any = None
        self.n_old = 0
        self._evaluated_width = 0
        self._in_order = True
        if n_classes:
            self.grow(range(n_classes))

    @property
    def n_classes(self) -> int:
        """Number of classes known, K."""
        return len(self.class_order)

    def old_prototypes(self) -> list[nn.Parameter]:
        """Prototypes of the classes known before the experience in training.

        Returns:
            The parameters that hold the first `n_old` rows.
        """
        found = entries(self.prototypes)
        ends = accumulate(map(len, found))
        return [p for p, end in zip(found, ends, strict=True) if end <= self.n_old]

    def adaptation(self, experience: CLExperience) -> None:
        """Grow by the experience's new classes; called by Avalanche's strategies.

        Args:
            experience: The experience about to be trained (module in train mode) or
                evaluated (then nothing grows).
        """
        classes = classes_in(experience)
        if self.training:
            known = set(self.class_order.tolist())
            self.n_old = self.n_classes
            self.grow([c for c in classes if c not in known])
            self._evaluated_width = 0
        else:
            # Labels beyond the known ones need a column for the evaluation loss.
            self._evaluated_width = max(
                self._evaluated_width, max(classes, default=-1) + 1
            )

    def grow(self, classes: list[int] | range) -> None:
        """Append prototypes for the given classes, uniform in ``±1/sqrt(D)``.

        Args:
            classes: Distinct class ids not known yet; nothing happens if empty.

        Raises:
            ValueError: If an id is known, twice in the list, negative or huge.
        """
        if not len(classes):
            return
        ids, known = list(classes), self.class_order.tolist()
        if len({*ids, *known}) < len(ids) + len(known):
            raise ValueError(
                f"classes {ids} to add to {known}; wanted new, distinct ids"
            )
        if min(ids) < 0 or max(ids) >= MAX_CLASS_ID:
            raise ValueError(
                f"class ids from {min(ids)} to {max(ids)}; wanted 0 to "
                f"{MAX_CLASS_ID - 1}, best counted by order of appearance: "
                "class_ids_from_zero_from_first_exp=True"
            )
        rows = self.scale.new_empty(len(classes), self.feature_size)
        bound = self.feature_size**-0.5
        self.prototypes.append(nn.Parameter(rows.uniform_(-bound, bound)))
        new = torch.tensor(list(classes), device=self.class_order.device)
        self._set_class_order(torch.cat([self.class_order, new]))

    def positions(self, targets: Tensor) -> Tensor:
        """Column in `scores` of each class id.

        Args:
            targets: Class ids, int64, shape ``(B,)``, all known.

        Returns:
            Positions by arrival, int64, shape ``(B,)``.
        """
        return targets if self._in_order else self._position[targets]

    def forward(self, features: Tensor) -> Tensor:
        """Logits by class id.

        Args:
            features: Shape ``(B, D)``; half precision is computed in float32.

        Returns:
            Shape ``(B, W)``, W = largest class id known (in evaluation: or met) + 1.

        Raises:
            ValueError: If no class is known yet or the feature dimension is wrong.
        """
        width = len(self._position)
        if not self.training:
            width = max(width, self._evaluated_width)
        if not width:
            raise ValueError("the classifier has no class yet; wanted adaptation first")
        weight = self._weight()
        if features.dtype in (torch.float16, torch.bfloat16):
            features = features.float()
        with torch.autocast(features.device.type, enabled=False):
            self.scores = cosine_scores(features, weight)
        logits: Tensor = self.scale * self.scores
        if self._in_order and width == self.n_classes:
            return logits
        out = logits.new_full((len(logits), width), MASK_VALUE)
        return out.index_copy(1, self.class_order, logits)

    def _weight(self) -> Tensor:
        """All prototypes, ``(K, D)``."""
        found = entries(self.prototypes)
        n = next((i for i, p in enumerate(found) if p.requires_grad), len(found))
        none = self.scale.new_empty(0, self.feature_size)  # evaluated before training
        # the old ones that are frozen by themselves: a gradient would be cut for each
        return torch.cat([torch.cat([none, *found[:n]]), *found[n:]])

    def _set_class_order(self, order: Tensor) -> None:
        self.class_order = order
        n = int(order.max()) + 1 if len(order) else 0
        self._position = order.new_full((n,), -1)
        arrival = torch.arange(len(order), device=order.device)
        self._position[order] = arrival
        # Ids that are 0 .. K-1 by arrival need no translation at all.
        self._in_order = bool(torch.equal(order, arrival))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Take the number of prototypes from the state, so that any stage loads."""
        order = state_dict.get(prefix + "class_order")
        if order is not None:
            self._set_class_order(order.to(self.class_order.device).clone())
            start = prefix + "prototypes."
            names = sorted((k for k in state_dict if k.startswith(start)), key=len)
            rows = [state_dict[name] for name in names]
            if [len(p) for p in self.prototypes] != [len(r) for r in rows]:
                self.prototypes = nn.ParameterList(
                    nn.Parameter(self.scale.new_empty(r.shape)) for r in rows
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave the last batch's graph behind."""
        return {**super().__getstate__(), "scores": None}
