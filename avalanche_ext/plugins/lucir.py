"""Less-forget distillation and margin ranking of LUCIR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from avalanche.benchmarks import CLExperience
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_ext._checks import require_choice, require_real, require_whole
from avalanche_ext.functional.less_forget import (
    WeightMode,
    adaptive_distillation_weight,
    less_forget_loss,
    mimic_scores_loss,
)
from avalanche_ext.functional.margin_ranking import margin_ranking_loss
from avalanche_ext.functional.precision import at_least_float32
from avalanche_ext.functional.undisturbed import own
from avalanche_ext.models.feature_classifier import require_cosine_classifier
from avalanche_ext.models.frozen_copy import FrozenCopy


class LUCIRPlugin(SupervisedPlugin):
    r"""The terms that LUCIR adds to cross-entropy, for any strategy.

    .. math:: L = L_{ce} + \lambda L_{less forget} + w L_{margin}

    The model must be a `FeatureClassifier` with a `CosineClassifier`. In the first
    experience nothing is added.

    Callbacks: before an experience a copy of the model is frozen as reference, the
    weight :math:`\lambda` is set from the number of old and new classes, and the
    prototypes of old classes are frozen; before each backward pass the terms are
    added to ``strategy.loss``; after the experience the prototypes are trainable
    again. Keeps between experiences: the weight. (The reference too, but the next
    experience makes its own from the model as it finds it.)

    Args:
        distillation_weight: :math:`\lambda_{base}` >= 0; 5 for CIFAR-100, 10 for
            ImageNet.
        distillation_mode: See `adaptive_distillation_weight`.
        less_forget: False for the paper's ablation: old classes' scores are kept
            instead of feature directions. No prototype is frozen then, nor if the
            distillation weight is 0.
        margin_weight: :math:`w` >= 0.
        margin: Margin of the ranking, in units of the cosine.
        n_negatives: Hardest new classes per old sample, >= 1.
        without_new_classes: ``"raise"`` when an experience brings no new class;
            ``"keep"``: go on with the head and the :math:`\lambda` there are.

    Attributes:
        reference: The frozen copy; None in the first experience.
        current_weight: :math:`\lambda` of the experience.

    Raises:
        ValueError: If a weight is negative or a choice unknown; before an
            experience, if the model does not fit or no class is new.

    References:
        Hou et al., CVPR 2019 (LUCIR).
    """

    def __init__(
        self,
        *,
        distillation_weight: float = 5.0,
        distillation_mode: WeightMode = "old_over_new",
        less_forget: bool = True,
        margin_weight: float = 1.0,
        margin: float = 0.5,
        n_negatives: int = 2,
        without_new_classes: Literal["raise", "keep"] = "raise",
    ) -> None:
        super().__init__()
        require_real(
            0, distillation_weight=distillation_weight, margin_weight=margin_weight
        )
        require_real(-2, margin=margin)
        require_whole(1, n_negatives=n_negatives)
        require_choice((True, False), less_forget=less_forget)
        require_choice(get_args(WeightMode), distillation_mode=distillation_mode)
        require_choice(("raise", "keep"), without_new_classes=without_new_classes)
        self.distillation_weight = distillation_weight
        self.distillation_mode = distillation_mode
        self.less_forget = less_forget
        self.margin_weight = margin_weight
        self.margin = margin
        self.n_negatives = n_negatives
        self.without_new_classes = without_new_classes
        self.current_weight = distillation_weight
        self.reference: Any = None

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Freeze the reference and the old prototypes; set the weight."""
        head = require_cosine_classifier(strategy.model)
        n_new = head.n_classes - head.n_old
        if n_new == 0 and self.without_new_classes == "raise":
            raise ValueError(
                f"experience {strategy.experience.current_experience} brings none "
                f"beyond the {head.n_old} classes known; wanted new classes, or "
                "without_new_classes='keep'"
            )
        before, self.reference = self.reference, None
        if head.n_old == 0 or self.distillation_weight == 0:
            return
        # The head has grown already, but its old rows and the feature extractor
        # are still those of the end of the last experience.
        strategy.model.features = None  # a graph of the last batch cannot be copied
        self.reference = FrozenCopy.of(strategy, like=before)
        if n_new:
            self.current_weight = adaptive_distillation_weight(
                self.distillation_weight, head.n_old, n_new, self.distillation_mode
            )
        for prototypes in head.old_prototypes() if self.less_forget else []:
            prototypes.requires_grad_(False)
            prototypes.grad = None

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the terms of the batch to the loss."""
        if require_cosine_classifier(strategy.model).n_old:
            strategy.loss += self.penalty(strategy.model, strategy.mb_x, strategy.mb_y)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Leave the prototypes trainable, as they were found."""
        require_cosine_classifier(strategy.model).prototypes.requires_grad_(True)

    def penalty(self, model: Any, x: Tensor, targets: Tensor) -> Tensor:
        """Both terms for the batch the model has just seen.

        Args:
            model: The model in training, after its forward pass on ``x``.
            x: Inputs, first axis B.
            targets: Class ids, int64, shape ``(B,)``.

        Returns:
            Scalar, weights applied; to be added to the cross-entropy.
        """
        head = require_cosine_classifier(model)
        loss = self.distillation(model, x)
        if self.margin_weight:
            ranking = margin_ranking_loss(
                head.scores,
                head.positions(targets),
                head.n_old,
                self.margin,
                self.n_negatives,
            )
            loss = loss + self.margin_weight * ranking
        return loss

    def distillation(self, model: Any, x: Tensor) -> Tensor:
        """The less-forget term (or its ablation) for the batch just seen.

        Args:
            model: The model in training, after its forward pass on ``x``.
            x: Inputs, first axis B.

        Returns:
            Scalar, weight applied; 0 if the weight is 0.
        """
        if self.reference is None:
            return x.new_zeros((), dtype=torch.float32)
        self.reference(x)
        frozen = self.reference.model
        if self.less_forget:
            return self.current_weight * less_forget_loss(
                at_least_float32(model.features), at_least_float32(own(frozen.features))
            )
        ours, theirs = require_cosine_classifier(model), frozen.train_classifier
        n = ours.n_old
        return self.current_weight * mimic_scores_loss(
            ours.scores[:, :n], own(theirs.scores)[:, :n]
        )

    def state_dict(self) -> dict[str, Any]:
        """The weight, for experiences without new classes.

        Returns:
            ``{"current_weight": weight}``.
        """
        return {"current_weight": self.current_weight}

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Restore the weight.

        Args:
            state: As returned by `state_dict`.
            experiences: Unused.
        """
        self.current_weight = state["current_weight"]

    def memory_bytes(self) -> dict[str, int]:
        """Bytes of the frozen copy.

        Returns:
            ``{"frozen_copies": bytes}``.
        """
        return self.reference.memory_bytes() if self.reference else {"frozen_copies": 0}
