"""New prototypes start at the mean direction of their class."""

from __future__ import annotations

from typing import Any, Literal

import torch
from avalanche.core import SupervisedPlugin

from avalanche_ext._checks import require_whole
from avalanche_ext.functional.cosine import imprinted_prototypes
from avalanche_ext.loaders import make_loader
from avalanche_ext.models.feature_classifier import (
    extract_features,
    require_cosine_classifier,
)


class ImprintingPlugin(SupervisedPlugin):
    """Imprint the prototypes of new classes before they are trained.

    Callbacks: before an experience, if the cosine classifier knows older classes
    and has grown by new ones, the new rows are set to the mean direction of the
    features (evaluation mode and transforms) of the experience's own images, times
    the mean length of the old rows. Changes nothing else; keeps nothing.

    Args:
        batch_size: Samples at once when features are computed, >= 1.
        memory_resident: See `avalanche_ext.loaders.make_loader`.

    Raises:
        ValueError: If ``batch_size`` is not positive.

    References:
        Qi et al., CVPR 2018; code of Hou et al., CVPR 2019 (LUCIR).
    """

    def __init__(
        self,
        *,
        batch_size: int = 256,
        memory_resident: Literal["auto"] | bool = "auto",
    ) -> None:
        super().__init__()
        require_whole(1, batch_size=batch_size)
        self.batch_size = batch_size
        self.memory_resident = memory_resident

    @torch.no_grad()
    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Set the rows of the classes that have just been added."""
        head = require_cosine_classifier(strategy.model)
        n_old, n_new = head.n_old, head.n_classes - head.n_old
        if not n_old or not n_new:
            return
        loader = make_loader(
            strategy.experience.dataset.eval(),
            batch_size=self.batch_size,
            shuffle=False,
            device=strategy.device,
            memory_resident=self.memory_resident,
        )
        features, targets = extract_features(strategy.model, loader, strategy.device)
        row = head.positions(targets) - n_old
        new = row >= 0
        old = torch.cat(tuple(head.old_prototypes()))
        head.prototypes[-1].copy_(
            imprinted_prototypes(features[new], row[new], n_new, old)
        )
