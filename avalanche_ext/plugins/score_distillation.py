"""Distillation of the scores of old classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from avalanche.benchmarks import CLExperience
from avalanche.core import SupervisedPlugin
from avalanche.models import FeatureExtractorModel
from avalanche.models.utils import is_multi_task_module
from torch import Tensor, nn

from avalanche_ext._checks import require_choice, require_positive, require_real
from avalanche_ext.functional.distillation import distillation_loss
from avalanche_ext.models.cosine_classifier import CosineClassifier, classes_in
from avalanche_ext.models.feature_classifier import require_cosine_classifier
from avalanche_ext.models.frozen_copy import FrozenCopy


class ScoreDistillationPlugin(SupervisedPlugin):
    r"""Hold the probabilities of old classes to those of the last model.

    .. math:: L = L_{ce} + w \frac{1}{B} \sum_{b} \mathrm{KL}(q_b \,\|\, p_b)

    with :math:`q, p` the softmax, over the old classes alone and at temperature T, of
    the last model's and the model's logits. All samples of the batch count, new and
    old. As in iCaRL, LwF and the released code of mnemonics.

    Old are the classes that a `CosineClassifier` knew before the experience; for other
    models, which have one column a class id, those of the strategy's earlier
    experiences. Without any, nothing is added.

    Callbacks: before an experience a copy of the model is frozen as reference, and the
    prototypes of old classes are frozen; before each backward pass the term is added
    to ``strategy.loss``; after the experience these prototypes are trainable again.
    Keeps between experiences: the classes trained. (The reference too, but the next
    experience makes its own from the model as it finds it.)

    Args:
        temperature: T > 0.
        weight: w >= 0. The paper's :math:`\lambda L_{ce} + (1 - \lambda) L_d` with
            :math:`\lambda = 0.5` is w = 1 at half the learning rate.
        freeze_old_prototypes: Keep the rows of old classes as they are, which needs a
            `FeatureClassifier` with a `CosineClassifier`.

    Attributes:
        reference: The frozen copy; None while there is no old class or w is 0.

    Raises:
        ValueError: If an argument is out of its range; before training, if the model
            has several heads, or no prototypes to freeze.

    Example:
        >>> plugin = ScoreDistillationPlugin(temperature=2.0)
        >>> plugin.reference is None
        True

    References:
        Liu et al., CVPR 2020 (mnemonics), Eq. 5; Li and Hoiem, ECCV 2016 (LwF).
    """

    def __init__(
        self,
        *,
        temperature: float = 2.0,
        weight: float = 1.0,
        freeze_old_prototypes: bool = True,
    ) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        require_real(0, weight=weight)
        require_choice((True, False), freeze_old_prototypes=freeze_old_prototypes)
        self.temperature = float(temperature)
        self.weight = float(weight)
        self.freeze_old_prototypes = freeze_old_prototypes
        self.reference: Any = None
        self._old = torch.empty(0, dtype=torch.long)
        self._frozen: list[nn.Parameter] = []
        self._trained: set[int] = set()

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse a model that does not fit, before any work."""
        if is_multi_task_module(strategy.model):
            raise ValueError(
                f"{type(strategy.model).__name__} has a head for each task label; "
                "wanted one for all classes"
            )
        if self.freeze_old_prototypes:
            require_cosine_classifier(strategy.model)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Freeze the reference and the old prototypes."""
        model = strategy.model
        self._old = self._old_classes(model).to(strategy.device)
        before, self.reference = self.reference, None
        if self.weight and len(self._old):
            # The head has grown already, but what it says of old classes is still
            # what it said at the end of the last experience.
            if isinstance(model, FeatureExtractorModel):
                model.features = None  # a graph of the last batch cannot be copied
            self.reference = FrozenCopy.of(strategy, like=before)
        if self.freeze_old_prototypes:
            old = require_cosine_classifier(model).old_prototypes()
            self._frozen = [p for p in old if p.requires_grad]
            for prototypes in self._frozen:
                prototypes.requires_grad_(False)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the term of the batch to the loss."""
        if self.reference is not None:
            strategy.loss += self.penalty(strategy.mb_output, strategy.mb_x)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Leave the prototypes as they were found; note the classes."""
        for prototypes in self._frozen:
            prototypes.requires_grad_(True)
        self._frozen = []
        self._trained.update(classes_in(strategy.experience))

    def penalty(self, logits: Tensor, x: Tensor) -> Tensor:
        """The term for a batch, in an experience with a reference.

        Args:
            logits: Of the model in training, by class id, shape ``(B, K)``.
            x: Its inputs, first axis B.

        Returns:
            Scalar, weight applied; to be added to the cross-entropy.
        """
        theirs = self.reference(x)
        return self.weight * distillation_loss(
            logits[:, self._old], theirs[:, self._old], self.temperature
        )

    def _old_classes(self, model: Any) -> Tensor:
        """Class ids the reference has been trained on."""
        head = getattr(model, "train_classifier", None)
        if isinstance(head, CosineClassifier):
            return head.class_order[: head.n_old]
        return torch.tensor(sorted(self._trained), dtype=torch.long)

    def state_dict(self) -> dict[str, Any]:
        """The classes trained.

        Returns:
            ``{"trained": class ids}``.
        """
        return {"trained": sorted(self._trained)}

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Restore the classes trained.

        Args:
            state: As returned by `state_dict`.
            experiences: Unused.
        """
        self._trained = set(state["trained"])

    def memory_bytes(self) -> dict[str, int]:
        """Bytes of the frozen copy.

        Returns:
            ``{"frozen_copies": bytes}``.
        """
        return self.reference.memory_bytes() if self.reference else {"frozen_copies": 0}
