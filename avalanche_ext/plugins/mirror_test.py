"""Look at each image and at its mirror image when evaluating."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin


class MirrorTestPlugin(SupervisedPlugin):
    r"""Predict from the mean of the outputs for an image and for its mirror image.

    .. math:: z(x) = \tfrac12 \big( f(x) + f(\bar x) \big)

    with :math:`\bar x` the columns of :math:`x` reversed. The class predicted is that
    of the sum, which papers take; the mean leaves the loss on the scale of the model's.

    Callbacks: ``after_eval_forward`` calls ``strategy.forward()`` once more, with its
    task labels and its precision, and replaces ``strategy.mb_output``; also in an
    evaluation within training. Features that the model notes are then those of the
    mirror image: list it after plugins that read them. Training, ``strategy.mb_x`` and
    the random generators are left as they are. Keeps nothing between experiences.

    Raises:
        ValueError: On evaluation, if inputs are no images ``(B, C, H, W)``.

    References:
        Daxberger et al., TMLR 2023.
    """

    def after_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Take the mean of both outputs."""
        images = strategy.mbatch[0]
        if images.ndim != 4:
            raise ValueError(
                f"inputs have shape {tuple(images.shape)}; wanted images (B, C, H, W) "
                "for MirrorTestPlugin"
            )
        strategy.mbatch[0] = images.flip(3)
        try:
            mirrored = strategy.forward()
        finally:
            strategy.mbatch[0] = images
        strategy.mb_output = (strategy.mb_output + mirrored) / 2
