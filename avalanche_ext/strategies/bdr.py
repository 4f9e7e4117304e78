"""BDR: LUCIR with decorrelated first features and a balanced training loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from avalanche.core import BasePlugin
from torch import nn
from torch.optim import Optimizer

from avalanche_ext._checks import require_choice, require_real
from avalanche_ext._criteria import require_softmax_cross_entropy
from avalanche_ext.functional.decorrelation import Normalization
from avalanche_ext.functional.logit_adjustment import Absent, DispersionWeights
from avalanche_ext.models.class_statistics import CountSource
from avalanche_ext.plugins.bdr import BDRPlugin
from avalanche_ext.plugins.cwd import CwDPlugin
from avalanche_ext.strategies._template import refuse_own_plugins
from avalanche_ext.strategies.lucir import LUCIR


class BDR(LUCIR):
    r"""LUCIR, CwD in the first experience, BDR in all later ones.

    .. math:: L_0 = L_{ce}(z) + coef \cdot L_{cwd}, \qquad
        L_t = L_{ce}(z + \pi) + \lambda L_{less forget} + w L_{margin}

    With ``cwd=False`` it is LUCIR+BDR, with ``bdr=False`` LUCIR+CwD, with both LUCIR,
    bit for bit. The defaults are those of the authors' CIFAR-100 run.

    Args:
        model: As `LUCIR`'s; published with ResNet-18 (``resnet18_cifar``).
        optimizer: Any torch optimizer over the model's parameters.
        cwd: Whether to decorrelate features.
        cwd_coef: ``coef`` of `CwDPlugin`.
        cwd_normalization: ``normalization`` of `CwDPlugin`.
        cwd_experiences: ``experiences`` of `CwDPlugin`.
        bdr: Whether to adjust the logits.
        m1: See `BDRPlugin`, as the following ones.
        m2: Weight of the frequency in the updates.
        momentum: Of the updates of the offsets.
        tro: Exponent of the mixture.
        dispersion_weights: ``"last_class"`` reproduces the published code.
        absent: What classes get that the training data lack.
        zero_dispersion: What classes without spread get.
        psi_source: What the class frequency is counted on.
        normalize_features: Measure dispersions on features of unit length.
        plugins: Further plugins; they act after BDR's own.
        lucir: All other arguments of `LUCIR`.

    Raises:
        ValueError: As `LUCIR`, `CwDPlugin` and `BDRPlugin`; if ``bdr`` and the
            criterion is no softmax cross-entropy.

    References:
        Zhou et al., IEEE TIP 2024 (BDR); Shi et al., CVPR 2022 (CwD); code
        zyuh/BDR-main.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        cwd: bool = True,
        cwd_coef: float = 0.5,
        cwd_normalization: Normalization = "code",
        cwd_experiences: Literal["first", "all"] | Sequence[int] = "first",
        bdr: bool = True,
        m1: float = 0.8,
        m2: float = 0.8,
        momentum: float = 0.99,
        tro: float = 1.0,
        dispersion_weights: DispersionWeights = "per_class",
        absent: Absent = "mask",
        zero_dispersion: Literal["neutral", "raise"] = "neutral",
        psi_source: CountSource = "auto",
        normalize_features: bool = False,
        plugins: Sequence[BasePlugin] | None = None,
        **lucir: Any,
    ) -> None:
        require_choice((True, False), cwd=cwd, bdr=bdr)
        require_real(0, cwd_coef=cwd_coef)
        decorrelation = CwDPlugin(
            cwd_coef, normalization=cwd_normalization, experiences=cwd_experiences
        )
        adjustment = BDRPlugin(
            m1=m1,
            m2=m2,
            momentum=momentum,
            tro=tro,
            dispersion_weights=dispersion_weights,
            absent=absent,
            zero_dispersion=zero_dispersion,
            psi_source=psi_source,
            normalize_features=normalize_features,
        )
        if bdr and "criterion" in lucir:
            require_softmax_cross_entropy(lucir["criterion"])
        own = [*([decorrelation] if cwd else []), *([adjustment] if bdr else [])]
        refuse_own_plugins("BDR", own, plugins)
        super().__init__(
            model=model, optimizer=optimizer, plugins=[*own, *(plugins or [])], **lucir
        )
