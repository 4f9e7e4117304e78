"""Class-wise decorrelation (CwD) as a term of any strategy's loss."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, get_args

from avalanche.core import SupervisedPlugin
from torch.nn.functional import normalize

from avalanche_ext._checks import require_choice, require_real, require_whole
from avalanche_ext._ranks import rows_of_all_ranks
from avalanche_ext.functional.decorrelation import Normalization, decorrelation_loss
from avalanche_ext.functional.precision import at_least_float32
from avalanche_ext.models.feature_classifier import require_features


class CwDPlugin(SupervisedPlugin):
    r"""Decorrelate the features of each class, by default in the first experience.

    .. math:: L = L_{host} + coef \cdot L_{cwd}(\bar f)

    with :math:`\bar f` the features of unit length, see `decorrelation_loss`. What the
    first experience learns so is spread over more dimensions, as if all classes had
    been there.

    The model must expose its features, see `FeatureClassifier`. Over several processes
    the features are gathered; their batches must have the same size.

    Callbacks: after each forward pass the features are noted, before the backward pass
    the term is added to ``strategy.loss``. Changes nothing else; keeps nothing.

    Args:
        coef: Weight of the term, >= 0; published: 0.5 for CIFAR-100, 0.75 for
            ImageNet-Subset, 1.5 for ImageNet, all for ``normalization="code"``.
        normalization: See `decorrelation_loss`.
        reject_threshold: See `decorrelation_loss`.
        eps: See `decorrelation_loss`, > 0.
        experiences: ``"first"`` as published, ``"all"``, or numbers of experiences in
            the order of training, counted from 0.

    Raises:
        ValueError: If an argument is out of its range; before training, if the model
            does not expose its features.

    Example:
        >>> CwDPlugin(coef=0.5).experiences
        'first'

    References:
        Shi et al., Mimicking the Oracle, CVPR 2022 (CwD); code Yujun-Shi/CwD.
    """

    def __init__(
        self,
        coef: float = 0.5,
        *,
        normalization: Normalization = "code",
        reject_threshold: int = 1,
        eps: float = 1e-8,
        experiences: Literal["first", "all"] | Collection[int] = "first",
    ) -> None:
        super().__init__()
        require_real(0, coef=coef, eps=eps)
        if eps == 0:
            raise ValueError(
                "eps is 0; wanted a number above 0: features may be constant"
            )
        require_choice(get_args(Normalization), normalization=normalization)
        require_whole(1, reject_threshold=reject_threshold)
        if isinstance(experiences, str) or not isinstance(experiences, Collection):
            require_choice(("first", "all"), experiences=experiences)
        else:
            numbers = {f"experiences[{i}]": e for i, e in enumerate(experiences)}
            require_whole(0, **numbers)
        self.coef = float(coef)
        self.normalization = normalization
        self.reject_threshold = reject_threshold
        self.eps = float(eps)
        self.experiences = (
            experiences
            if isinstance(experiences, str)
            else tuple(map(int, experiences))
        )
        self._batch: Any = None

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse a model without features."""
        require_features(strategy.model)

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Keep the features: other plugins may run the model once more."""
        features, targets = strategy.model.features, strategy.mb_y
        if features is None or len(features) != len(targets):
            shape = getattr(features, "shape", None)
            raise ValueError(
                f"model.features has shape {shape and tuple(shape)} after a batch of "
                f"{len(targets)}; wanted the features of that batch"
            )
        self._batch = features, targets

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the term of the batch to the loss."""
        (features, targets), self._batch = self._batch, None
        if self.coef and self._applies_to(strategy.clock.train_exp_counter):
            features = normalize(at_least_float32(features), dim=1)
            strategy.loss += self.coef * decorrelation_loss(
                rows_of_all_ranks(features),
                rows_of_all_ranks(targets),
                normalization=self.normalization,
                reject_threshold=self.reject_threshold,
                eps=self.eps,
            )

    def _applies_to(self, experience: int) -> bool:
        if self.experiences == "all":
            return True
        return experience in ((0,) if self.experiences == "first" else self.experiences)
