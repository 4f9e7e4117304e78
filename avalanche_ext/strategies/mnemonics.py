"""Mnemonics: exemplars that are optimised, not only chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from avalanche.core import BasePlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import nn
from torch.optim import Optimizer

from avalanche_ext._checks import require_choice, require_positive, require_whole
from avalanche_ext.buffers.mnemonics import MnemonicsBuffer
from avalanche_ext.buffers.mnemonics_optimizer import MnemonicsOptimizer, Preset
from avalanche_ext.buffers.pixel_space import StorageDtype, Transform
from avalanche_ext.models.transfer_conv import to_transfer_network
from avalanche_ext.plugins.nearest_exemplar_mean import NearestExemplarMeanPlugin
from avalanche_ext.plugins.score_distillation import ScoreDistillationPlugin
from avalanche_ext.plugins.weight_transfer import WeightTransferPlugin
from avalanche_ext.strategies._mnemonics_figures import mnemonics_figures
from avalanche_ext.strategies._template import refuse_own_plugins
from avalanche_ext.strategies.lucir import LUCIR

#: Arguments of LUCIR that have other names here.
_RENAMED = {
    "buffer": "selection",
    "herding": "selection",
    "balanced_finetuning_epochs": "finetuning_epochs",
    "balanced_finetuning": "finetuning_epochs and finetuning_lr",
}

#: Those of its losses, which ``distillation="icarl"`` takes the place of.
_LOSSES = {"distillation_mode", "less_forget", "margin_ranking", "margin_weight"}
_LOSSES |= {"margin", "n_negatives"}


class Mnemonics(LUCIR):
    r"""LUCIR (or iCaRL's loss) whose exemplars are learned, by turns with the model.

    .. math:: \min_\Theta L(\Theta; E \cup D), \qquad
        \min_E L_c(\Theta - \alpha \nabla L_c(\Theta; E); D)

    After each experience exemplars are selected and optimised by `MnemonicsBuffer`, and
    the model is tuned on all of them, which are balanced. Three parts can be had apart:
    ``optimization=None`` leaves exemplars as selected, ``weight_transfer=False`` trains
    all weights, ``finetuning_epochs=0`` leaves out the tuning.

    Two classifiers answer: the cosine one, and the nearest exemplar mean, whose
    accuracy the metric `NearestExemplarMeanAccuracy` gives beside the other.

    Args:
        model: As `LUCIR`'s; its convolutions become `TransferConv2d` in place.
        optimizer: Any torch optimizer over the model's parameters.
        exemplars_per_class: Exemplars a class; 20 if ``memory_size`` is None too.
        memory_size: Total number of exemplars, instead of the former.
        selection: What exemplars start from, see `MnemonicsBuffer`.
        optimization: How they are optimised, likewise; None: not at all.
        storage_dtype: How they are stored, likewise.
        buffer_transform: Their augmentation, likewise.
        mean: Of each channel, likewise.
        std: Of each channel, likewise.
        distillation: ``"lucir"``, less-forget and margin ranking, or ``"icarl"``, old
            scores at temperature 2, as in the released trainer.
        distillation_weight: Of either; None: 5 (the base of LUCIR's) or 1.
        weight_transfer: From the second experience on, kernels rest and are scaled; see
            `TransferConv2d`.
        decay_to_one: Weight decay pulls these scales to 1; False, as published, to 0.
        finetuning_epochs: Passes over all exemplars after each experience but the
            first; 0 for none.
        finetuning_lr: Their rate, > 0; cross-entropy only, no momentum.
        predict: ``"nearest_mean"``: the strategy's output in evaluation is that of the
            nearest exemplar mean, for all metrics.
        second_view: Of exemplars for their means, see `NearestExemplarMeanPlugin`.
        imprint: See `LUCIR`.
        progress: Whether to show a progress bar; None: on a terminal.
        plugins: Further plugins; they act after Mnemonics' own.
        memory_resident: Hold the images on the device; "auto": where they fit.
        generator: Of shuffling, augmentation, selection; None for torch's default.
        lucir: All other arguments of `LUCIR`; those of its losses only with
            ``distillation="lucir"``.

    Raises:
        ValueError: As `LUCIR` and `MnemonicsBuffer`; if an argument is out of its range.

    References:
        Liu et al., Mnemonics Training, CVPR 2020, arXiv 2002.10211; code
        yaoyao-liu/mnemonics-training, which lacks the optimisation of the paper.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        exemplars_per_class: int | None = None,
        memory_size: int | None = None,
        selection: Literal["random", "herding"] | ExemplarsBuffer = "random",
        optimization: MnemonicsOptimizer | Preset | None = "fast",
        storage_dtype: StorageDtype = "float32",
        buffer_transform: Transform | Literal["auto"] | None = "auto",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        distillation: Literal["lucir", "icarl"] = "lucir",
        distillation_weight: float | None = None,
        weight_transfer: bool = True,
        decay_to_one: bool = False,
        finetuning_epochs: int = 50,
        finetuning_lr: float = 0.01,
        predict: Literal["linear", "nearest_mean"] = "linear",
        second_view: Literal["mirror", "bgr"] | None = "mirror",
        imprint: bool = True,
        progress: bool | None = None,
        plugins: Sequence[BasePlugin] | None = None,
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
        **lucir: Any,
    ) -> None:
        require_choice(("lucir", "icarl"), distillation=distillation)
        require_choice(("linear", "nearest_mean"), predict=predict)
        require_choice((True, False), weight_transfer=weight_transfer)
        require_choice((True, False), decay_to_one=decay_to_one)
        if decay_to_one and not weight_transfer:
            raise ValueError(
                "decay_to_one is True and weight_transfer False; wanted both, or neither"
            )
        _require_meaning(lucir, distillation)
        require_whole(0, finetuning_epochs=finetuning_epochs)
        require_positive(finetuning_lr=finetuning_lr)
        given = {
            "exemplars_per_class": exemplars_per_class,
            "memory_size": memory_size,
        }
        require_whole(1, **{name: n for name, n in given.items() if n is not None})
        buffer = MnemonicsBuffer(
            selection,
            per_class=exemplars_per_class,
            max_size=memory_size,
            optimizer=optimization,
            storage_dtype=storage_dtype,
            buffer_transform=buffer_transform,
            mean=mean,
            std=std,
            memory_resident=memory_resident,
            generator=generator,
            progress=progress,
        )
        own: list[BasePlugin] = []
        if weight_transfer:
            own.append(WeightTransferPlugin())
        if distillation == "icarl":
            weight = 1.0 if distillation_weight is None else distillation_weight
            own.append(ScoreDistillationPlugin(weight=weight))
            lucir = {**lucir, "margin_ranking": False}
            distillation_weight = 0.0
        own.append(
            NearestExemplarMeanPlugin(
                buffer,
                second_view=second_view,
                predict=predict == "nearest_mean",
                memory_resident=memory_resident,
            )
        )
        refuse_own_plugins("Mnemonics", own, plugins)
        tuning: dict[str, Any] = {
            "tuned": "all",
            "lr": finetuning_lr,
            "milestones": (),
            "momentum": 0.0,
            "weight_decay": 0.0,
            "penalty": None,
        }
        super().__init__(
            model=model,
            optimizer=optimizer,
            buffer=buffer,
            distillation_weight=(
                5.0 if distillation_weight is None else distillation_weight
            ),
            imprint=imprint,
            balanced_finetuning_epochs=finetuning_epochs,
            balanced_finetuning=tuning if finetuning_epochs else None,
            plugins=[*own, *(plugins or [])],
            memory_resident=memory_resident,
            generator=generator,
            **lucir,
        )
        self._exemplars = buffer
        # By their names as arguments: a checkpoint compares them.
        self.memory_size, self.decay_to_one = memory_size, decay_to_one
        self.optimization = None if optimization is None else "given"
        self.mean = None if mean is None else tuple(map(float, mean))
        self.std = None if std is None else tuple(map(float, std))
        if weight_transfer:
            to_transfer_network(self.model, decay_to_one=decay_to_one)

    def figures(self, test_stream: Any) -> dict[str, Any]:
        """Pictures of the exemplars.

        Args:
            test_stream: Not needed.

        Returns:
            ``exemplars``: before, after, difference; ``embedding``: t-SNE of data and
            of random, herded and optimised exemplars; ``margins``; ``optimization``.

        Raises:
            ValueError: If there are no exemplars, or a buffer of another kind selected
                them.
        """
        return dict(mnemonics_figures(self._exemplars, self.model, self.device))


def _require_meaning(lucir: dict[str, Any], distillation: str) -> None:
    """Refuse arguments of LUCIR that would do nothing here."""
    for name, instead in _RENAMED.items():
        if name in lucir:
            raise ValueError(f"{name} is {lucir[name]!r}; wanted {instead} instead")
    if distillation == "icarl" and (unused := sorted(_LOSSES & lucir.keys())):
        raise ValueError(
            f"{unused} given with distillation 'icarl'; wanted distillation 'lucir'"
        )
