"""Classify by the nearest mean of exemplars when evaluating."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from avalanche_ext._checks import (
    require_choice,
    require_kind,
    require_loading,
    require_whole,
)
from avalanche_ext.functional.nearest_mean import (
    nearest_mean_scores,
    unit_class_means,
)
from avalanche_ext.loaders import make_loader
from avalanche_ext.models.cosine_classifier import MASK_VALUE
from avalanche_ext.models.feature_classifier import extract_features, require_features

#: The axis of images (B, C, H, W) that is turned round for a second view.
_TURNED = {"mirror": 3, "bgr": 1}


class NearestExemplarMeanPlugin(SupervisedPlugin):
    r"""Score test samples by the angle to the mean of each class's exemplars.

    .. math:: s_{bk} = \langle \bar f_b, \mu_k \rangle, \qquad
        \mu_k = \operatorname{unit}\Big(\tfrac{1}{M_k} \sum_{m: y_m = k}
        \tfrac12 (\bar f(e_m) + \bar f(e'_m))\Big)

    with :math:`e'` the second view of exemplar :math:`e`. One run of training thus has
    two classifiers: the trained one, and this one, of which
    `NearestExemplarMeanAccuracy` tells the accuracy (``predict=True``: all metrics).

    Callbacks: ``before_eval`` makes the means from the buffer, with the model as it is,
    in evaluation mode and transforms; ``after_eval_forward`` sets
    ``strategy.nearest_mean``, the scores ``(B, W)`` by class id, and with ``predict``
    also ``strategy.mb_output``; ``after_eval`` drops the means. Classes without
    exemplars, so too those in training, score -1000; W is the width of the output, or
    more if a class beyond it has exemplars. ``strategy.nearest_mean`` is None outside
    evaluation and while the buffer is empty; then ``predict`` leaves the output alone.
    The buffer is read, never filled: another plugin, such as `ExemplarReplayPlugin`,
    owns it. Keeps nothing between experiences.

    Args:
        buffer: Any Avalanche `ExemplarsBuffer`, the same object as the owner's.
        second_view: ``"mirror"``: columns reversed, as iCaRL describes it; ``"bgr"``:
            colour channels reversed, as LUCIR's and Mnemonics' code really does (there
            before the normalisation of channels, here after all transforms); None: the
            means are of one view.
        predict: Whether the scores take the place of the model's output, and so of the
            loss's argument.
        batch_size: Exemplars at once when features are computed, >= 1.
        memory_resident: See `avalanche_ext.loaders.make_loader`.

    Raises:
        ValueError: If an argument is out of its range; on evaluation, if the model
            exposes no features or a second view is wanted of inputs that are no
            images.

    Example:
        >>> from avalanche_ext.buffers import HerdingBuffer
        >>> NearestExemplarMeanPlugin(HerdingBuffer(per_class=20)).second_view
        'mirror'

    References:
        Rebuffi et al., CVPR 2017 (iCaRL), Algorithm 1; Liu et al., CVPR 2020
        (Mnemonics).
    """

    #: What `NearestExemplarMeanAccuracy` looks for.
    gives_nearest_mean = True

    def __init__(
        self,
        buffer: ExemplarsBuffer,
        *,
        second_view: Literal["mirror", "bgr"] | None = "mirror",
        predict: bool = False,
        batch_size: int = 256,
        memory_resident: Literal["auto"] | bool = "auto",
    ) -> None:
        super().__init__()
        require_kind(ExemplarsBuffer, buffer=buffer)
        require_choice((*_TURNED, None), second_view=second_view)
        require_choice((True, False), predict=predict)
        require_whole(1, batch_size=batch_size)
        require_loading(memory_resident, None)
        self.buffer = buffer
        self.second_view = second_view
        self.predict = predict
        self.batch_size = batch_size
        self.memory_resident = memory_resident
        # Only within an evaluation: classes with exemplars, ascending, and their means.
        self._classes: Tensor | None = None
        self._means: Tensor | None = None
        self._width = 0

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Make the class means."""
        require_features(strategy.model)
        strategy.nearest_mean = self._classes = self._means = None
        data = self.buffer.buffer
        if not len(data):
            return
        strategy.model.to(strategy.device)  # as Avalanche does, but only later
        loader = make_loader(
            data.eval(),
            batch_size=self.batch_size,
            shuffle=False,
            device=strategy.device,
            memory_resident=self.memory_resident,
        )
        model, device = strategy.model, strategy.device
        features, targets = extract_features(model, loader, device)
        second = None
        if self.second_view is not None:
            turned = _turned(loader, self.second_view)
            second, _ = extract_features(model, turned, device)
        self._classes, rows = torch.unique(targets, return_inverse=True)
        n_classes = len(self._classes)
        self._means = unit_class_means(features, rows, n_classes, second)
        self._width = int(self._classes[-1]) + 1

    def after_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Score the batch."""
        if self._classes is None or self._means is None:
            return
        scores = nearest_mean_scores(strategy.model.features, self._means)
        width = max(self._width, strategy.mb_output.shape[1])
        by_id = scores.new_full((len(scores), width), MASK_VALUE)
        strategy.nearest_mean = by_id.index_copy(1, self._classes, scores)
        if self.predict:
            strategy.mb_output = strategy.nearest_mean

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Drop what was made for the evaluation."""
        strategy.nearest_mean = self._classes = self._means = None

    def memory_bytes(self) -> dict[str, int]:
        """Nothing: the buffer is another plugin's.

        Returns:
            ``{}``.
        """
        return {}


def _turned(batches: Any, view: Literal["mirror", "bgr"]) -> Iterator[list[Tensor]]:
    """The batches with the images seen differently."""
    for x, *rest in batches:
        if x.ndim != 4:
            raise ValueError(
                f"inputs have shape {tuple(x.shape)}; wanted images (B, C, H, W) for "
                f"second_view={view!r}, or second_view=None"
            )
        yield [x.flip(_TURNED[view]), *rest]
