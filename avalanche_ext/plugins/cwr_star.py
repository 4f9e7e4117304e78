"""CWR*: the head is trained from zero in each experience, then merged with its past."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.nn.functional import pad

from avalanche_ext._checks import require_choice
from avalanche_ext.functional.cwr import (
    Repeat,
    class_counts,
    consolidated_rows,
    consolidations,
    reset_rows,
)
from avalanche_ext.functional.functional_prior import MASKED
from avalanche_ext.loaders import values_of
from avalanche_ext.models.linear_head import linear_head, linear_head_name


class CWRStarPlugin(SupervisedPlugin):
    r"""Consolidates the rows of the head, so that no class drowns another.

    .. math:: s_c \leftarrow \frac{w_c s_c + W_c - a}{w_c + 1}, \qquad
        w_c = \sqrt{past_c / current_c}

    for each class c of the experience, J, with a the mean of all weights of those rows
    (see `consolidated_rows`). current counts the patterns of the new data and of the
    whole memory. In training the softmax is over all outputs; the shared layers train
    as the strategy has them. Task labels are not used: one head for all classes.

    Callbacks: before an experience the head is zeroed, and the saved rows of J are
    loaded; a bias is set to 0 and frozen until the experience ends. After it the rows
    of J are consolidated, and all saved rows loaded; rows without a past keep what
    training made of them. Evaluation *within* an experience sees the head that is in
    training, as if there were no old classes outside of J. List this plugin before
    those that read the trained model, and give it to the constructor of the strategy:
    there it comes before the evaluator. Keeps between experiences: the saved rows, the
    counts.

    The memory. Exemplars appended to ``strategy.adapted_dataset``, as
    `ExemplarReplayPlugin` does (list it first), are found there. A memory that joins
    in the data loader or later, as Avalanche's `ReplayPlugin` and latent replay, must
    be given as ``buffer``; a batch with a class outside of J is refused.

    Args:
        head: Dotted name of the linear layer with one row a class. None: the last
            layer, see `linear_head_name`. It is looked up by name in each
            experience and may have grown.
        repeat: ``"once"``, or ``"per_pattern"``: see `consolidations`. The published
            figures of AR1* with latent replay in PyTorch belong to the latter.
        mask_unseen: In evaluation give classes without a past, and not in training,
            the logit -1000.
        buffer: The memory: an object with a tensor ``labels``, or one of Avalanche's
            buffers, ``storage_policy`` of its `ReplayPlugin` for instance.

    Attributes:
        saved: Consolidated rows, shape ``(K, D)``; None at first.
        past: Patterns of each class so far, int64, shape ``(K,)``; None at first.

    Raises:
        ValueError: If an argument is not one of its choices; in training, if the model
            has no such head or it has fewer rows than classes, a class has only come
            by the memory, or the trained rows are not finite.

    Example:
        >>> CWRStarPlugin(head="classifier.1", mask_unseen=True).repeat
        'once'

    References:
        Lomonaco, Maltoni, Pellegrini, CVPR Workshops 2020; Pellegrini et al., IROS
        2020.
    """

    def __init__(
        self,
        head: str | None = None,
        *,
        repeat: Repeat = "once",
        mask_unseen: bool = False,
        buffer: Any = None,
    ) -> None:
        super().__init__()
        require_choice(("once", "per_pattern"), repeat=repeat)
        require_choice((True, False), mask_unseen=mask_unseen)
        if not (
            buffer is None or hasattr(buffer, "labels") or hasattr(buffer, "buffer")
        ):
            raise ValueError(
                f"buffer is {buffer!r}; wanted an object with labels, or one of "
                "Avalanche's buffers"
            )
        self.head = head
        self.repeat: Repeat = repeat
        self.mask_unseen = mask_unseen
        self.buffer = buffer
        self.saved: Tensor | None = None
        self.past: Tensor | None = None
        self._name: str | None = None
        self._layer: nn.Linear | None = None
        self._current: Any = None
        self._repeats: Any = None
        self._stray: Any = None
        self._bias_trained: bool | None = None  # a flag while the bias is frozen

    @torch.no_grad()
    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Reset the head."""
        if self._name is None:
            self._name = linear_head_name(strategy.model, self.head)
        layer = linear_head(strategy.model, self._name)
        saved, past = self._state_of(layer)
        counts = self._counts(strategy, layer)
        current = counts[0] + counts[1]
        only_replayed = (counts[1] > 0) & (counts[0] == 0) & (past == 0)
        if only_replayed.any():
            raise ValueError(
                f"the memory holds classes {only_replayed.nonzero()[:, 0].tolist()}, "
                "which no experience has had; wanted only classes seen before"
            )
        layer.weight.copy_(reset_rows(saved, past, current))
        if layer.bias is not None:
            if self._bias_trained is None:  # else an error left it frozen
                self._bias_trained = layer.bias.requires_grad
            layer.bias.requires_grad_(False).zero_()
            layer.bias.grad = None  # or weight decay and momentum would move it
        self.saved, self.past = saved, past
        self._layer, self._current, self._stray = layer, current, None
        self._repeats = consolidations(*counts, self.repeat)

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse batches the head cannot be consolidated after."""
        layer = linear_head(strategy.model, str(self._name))
        width = strategy.mb_output.shape[1]
        if width != layer.out_features:
            raise ValueError(
                f"the layer {self._name!r} has {layer.out_features} outputs, the model "
                f"{width}; wanted the layer that gives the logits, as head="
            )
        if layer is not self._layer:
            raise ValueError(
                f"the layer {self._name!r} was replaced within an experience, and the "
                "optimizer does not know the new one; wanted no evaluation of new "
                "classes then, or one before training, as eval_every=0 makes"
            )
        stray = (self._current[strategy.mb_y] == 0).any()
        self._stray = stray if self._stray is None else self._stray | stray
        if stray.device.type == "cpu":  # elsewhere, to look at it is to wait for it
            self._require_no_stray()

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Report a class that was not counted."""
        self._require_no_stray()

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Consolidate, and load all rows that were saved."""
        layer = linear_head(strategy.model, str(self._name))
        saved, past = self._state_of(layer)
        more = len(past) - len(self._current)  # the last evaluation let it grow
        current, repeats = (pad(n, (0, more)) for n in (self._current, self._repeats))
        if not layer.weight.isfinite().all():
            raise ValueError(
                f"the weights of {self._name!r} are not finite after experience "
                f"{strategy.experience.current_experience}; wanted finite numbers: did "
                "training diverge?"
            )
        self.saved = consolidated_rows(layer.weight, saved, past, current, repeats)
        self.past = past + current
        seen = (self.past > 0)[:, None]
        layer.weight.copy_(torch.where(seen, self.saved, layer.weight))
        if layer.bias is not None:
            layer.bias.zero_().requires_grad_(bool(self._bias_trained))
        self._bias_trained = None
        self._layer = self._current = self._repeats = self._stray = None

    def after_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Mask what was never consolidated, if wanted."""
        if not self.mask_unseen or self.past is None:
            return
        seen = self.past if self._current is None else self.past + self._current
        more = strategy.mb_output.shape[1] - len(seen)  # of a head that grew meanwhile
        unseen = pad(seen, (0, more)) == 0
        strategy.mb_output = strategy.mb_output.masked_fill(unseen, MASKED)

    def memory_bytes(self) -> dict[str, int]:
        """Bytes of the saved rows and the past counts; the memory is another's.

        Returns:
            ``{"tensors": bytes}``.
        """
        kept = [t for t in (self.saved, self.past) if t is not None]
        return {"tensors": sum(t.nbytes for t in kept)}

    def _state_of(self, layer: nn.Linear) -> tuple[Tensor, Tensor]:
        """Saved rows and counts, with zeros for rows the head has grown by."""
        weight = layer.weight
        if self.saved is None or self.past is None:
            return torch.zeros_like(weight), weight.new_zeros(
                len(weight), dtype=torch.long
            )
        more = len(weight) - len(self.saved)
        if more < 0 or weight.shape[1:] != self.saved.shape[1:]:
            raise ValueError(
                f"the layer {self._name!r} has a weight of shape {tuple(weight.shape)}; "
                f"wanted one that grew from {tuple(self.saved.shape)}"
            )
        saved = pad(self.saved, (0, 0, 0, more)).to(weight)
        return saved, pad(self.past, (0, more)).to(weight.device)

    def _counts(self, strategy: Any, layer: nn.Linear) -> tuple[Tensor, Tensor]:
        """Patterns of each class in the new data, and in the memory."""
        data = _targets(strategy.experience.dataset)
        others = _labels(self.buffer)
        if self.buffer is None:
            others = _targets(strategy.adapted_dataset)
        new, other = (
            class_counts(labels.to(layer.weight.device), layer.out_features)
            for labels in (data, others)
        )
        if self.buffer is not None:
            return new, other
        new = torch.minimum(new, other)  # also if a plugin has left out some of it
        return new, other - new

    def _require_no_stray(self) -> None:
        noted, self._stray = self._stray, None
        if noted is not None and bool(noted):
            raise ValueError(
                "a batch holds classes that are neither in the data nor in the memory "
                "of CWRStarPlugin, whose rows would be lost; wanted what is replayed "
                "as buffer=, e.g. CWRStarPlugin(buffer=replay_plugin.storage_policy)"
            )


def _targets(dataset: Any) -> Tensor:
    """Class ids of an Avalanche dataset."""
    labels = [int(c) for c in values_of(dataset.targets)] if len(dataset) else []
    return torch.tensor(labels, dtype=torch.long)


def _labels(buffer: Any) -> Tensor:
    """Class ids of a memory."""
    if buffer is None or getattr(buffer, "labels", buffer) is None:
        return torch.tensor([], dtype=torch.long)
    if hasattr(buffer, "labels"):
        return torch.as_tensor(buffer.labels)
    return _targets(buffer.buffer)
