"""LUCIR: learning a unified classifier incrementally via rebalancing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from avalanche.core import BasePlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import nn
from torch.optim import Optimizer

from avalanche_ext._checks import require_choice, require_kind, require_whole
from avalanche_ext.buffers.herding import HerdingBuffer
from avalanche_ext.functional.herding import HerdingVariant
from avalanche_ext.functional.less_forget import WeightMode
from avalanche_ext.models.feature_classifier import require_cosine_classifier
from avalanche_ext.plugins.balanced_finetuning import BalancedFinetuningPlugin
from avalanche_ext.plugins.exemplar_replay import ExemplarReplayPlugin
from avalanche_ext.plugins.imprinting import ImprintingPlugin
from avalanche_ext.plugins.lucir import LUCIRPlugin
from avalanche_ext.strategies._template import ResidentTemplate, refuse_own_plugins


class LUCIR(ResidentTemplate):
    r"""Cosine classifier, less-forget distillation, margin ranking, herded exemplars.

    .. math:: L = L_{ce} + \lambda_{base} \sqrt{K_o / K_n} \, L_{less forget}
        + w L_{margin}

    Class-incremental: task labels are not used. Exemplars and new data are
    concatenated and shuffled; old prototypes are frozen; the optimizer's state is
    empty at the start of each experience.

    Args:
        model: A `FeatureClassifier` with a `CosineClassifier`, best on an extractor
            whose features can be negative, as those of `avalanche_ext.models`.
        optimizer: Any torch optimizer over the model's parameters.
        exemplars_per_class: Exemplars a class; 20 if ``memory_size`` is None too.
        memory_size: Total number of exemplars, instead of the former.
        buffer: Where exemplars are kept, instead of both: a `MnemonicsBuffer`, or any
            other of Avalanche's or your own; then ``herding`` means nothing.
        herding: Variant of the selection, see `herding_indices`.
        distillation_weight: :math:`\lambda_{base}`; 5 for CIFAR-100, 10 for ImageNet.
        distillation_mode: ``"old_over_new"`` as in the authors' code and in all
            published numbers, ``"new_over_old"`` as printed in the paper, ``"fixed"``.
        less_forget: False for the paper's ablation, see `LUCIRPlugin`.
        margin_ranking: False to leave the margin term out.
        margin_weight: :math:`w`.
        margin: Margin of the ranking, in units of the cosine.
        n_negatives: K of the paper, hardest new classes per old sample.
        imprint: Start new prototypes at the mean direction of their class, as
            LUCIR's scripts do; its descendants (CwD, BDR) and the paper do not.
        balanced_finetuning_epochs: Epochs of `BalancedFinetuningPlugin` after each
            experience; 0 for none, 20 in LUCIR's ImageNet script.
        balanced_finetuning: Further arguments of that plugin.
        without_new_classes: See `LUCIRPlugin`.
        plugins: Further plugins; they act after LUCIR's own.
        memory_resident: Hold the images on the device; "auto": where they fit.
        generator: Of shuffling and augmentation; None for torch's default.
        base_kwargs: Those of Avalanche's `SupervisedTemplate`, and the switches of
            `ResidentTemplate`.

    Raises:
        ValueError: If the model exposes no features, its classifier is not cosine,
            or an argument is out of its range.

    References:
        Hou et al., Learning a Unified Classifier Incrementally via Rebalancing,
        CVPR 2019; code hshustc/CVPR19_Incremental_Learning.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        exemplars_per_class: int | None = None,
        memory_size: int | None = None,
        buffer: ExemplarsBuffer | None = None,
        herding: HerdingVariant = "without_replacement",
        distillation_weight: float = 5.0,
        distillation_mode: WeightMode = "old_over_new",
        less_forget: bool = True,
        margin_ranking: bool = True,
        margin_weight: float = 1.0,
        margin: float = 0.5,
        n_negatives: int = 2,
        imprint: bool = False,
        balanced_finetuning_epochs: int = 0,
        balanced_finetuning: dict[str, Any] | None = None,
        without_new_classes: Literal["raise", "keep"] = "raise",
        plugins: Sequence[BasePlugin] | None = None,
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
        **base_kwargs: Any,
    ) -> None:
        require_cosine_classifier(model)
        sizes = {"exemplars_per_class": exemplars_per_class, "memory_size": memory_size}
        given = {name: size for name, size in sizes.items() if size is not None}
        if len(given) > 1:
            raise ValueError(f"{given} given; wanted one of the two")
        require_whole(1, **given)
        if buffer is not None and given:
            raise ValueError(f"{given} given with a buffer; wanted one of them")
        require_choice(get_args(HerdingVariant), herding=herding)
        require_choice((True, False), imprint=imprint, margin_ranking=margin_ranking)
        require_whole(0, balanced_finetuning_epochs=balanced_finetuning_epochs)
        if balanced_finetuning and not balanced_finetuning_epochs:
            raise ValueError(
                f"balanced_finetuning is {balanced_finetuning}, but "
                "balanced_finetuning_epochs 0; wanted at least 1 epoch"
            )
        if buffer is None:
            buffer = HerdingBuffer(
                per_class=exemplars_per_class,
                max_size=memory_size,
                variant=herding,
                memory_resident=memory_resident,
            )
        require_kind(ExemplarsBuffer, buffer=buffer)
        self.buffer = buffer
        losses = LUCIRPlugin(
            distillation_weight=distillation_weight,
            distillation_mode=distillation_mode,
            less_forget=less_forget,
            margin_weight=margin_weight if margin_ranking else 0.0,
            margin=margin,
            n_negatives=n_negatives,
            without_new_classes=without_new_classes,
        )
        loading: dict[str, Any] = {
            "memory_resident": memory_resident,
            "generator": generator,
        }
        own: list[BasePlugin] = [ExemplarReplayPlugin(self.buffer, **loading)]
        if imprint:
            own.append(ImprintingPlugin(memory_resident=memory_resident))
        own.append(losses)
        if balanced_finetuning_epochs:
            own.append(
                BalancedFinetuningPlugin(
                    self.buffer,
                    epochs=balanced_finetuning_epochs,
                    **{"penalty": losses.penalty, **(balanced_finetuning or {})},
                    **loading,
                )
            )
        refuse_own_plugins("LUCIR", own, plugins)
        super().__init__(
            model=model,
            optimizer=optimizer,
            plugins=[*own, *(plugins or [])],
            **loading,
            **base_kwargs,
        )

    def make_optimizer(self, **kwargs: Any) -> None:
        """As Avalanche's, but momenta never outlive an experience.

        Args:
            kwargs: As in Avalanche.
        """
        super().make_optimizer(**{**kwargs, "reset_optimizer_state": True})
