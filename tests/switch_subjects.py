"""Every strategy of the package on a small convolutional network."""

from __future__ import annotations

from typing import Any

import torch
from cases import SIDE, build
from mnemonics_hosts import PIXELS, quick
from torch import nn

from avalanche_ext.models import (
    CifarResNet,
    CosineClassifier,
    FeatureClassifier,
    TaskClassifier,
    TaskIncrementalClassifier,
)
from avalanche_ext.strategies import (
    BDR,
    LUCIR,
    AR1Star,
    EWCFRReplay,
    Mnemonics,
    ReReLRP,
)

SHAPE = {"input_shape": (1, SIDE, SIDE)}
SMALL = {"reference_per_class": 8, "features": 8, "num_trees": 5, "acc_drop": 0}
STRATEGIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "AR1Star": (
        AR1Star,
        nn.Linear,
        {**SHAPE, "memory_size": 20, "freeze_first": False},
    ),
    "BDR": (BDR, CosineClassifier, {"exemplars_per_class": 5}),
    "EWCFRReplay": (EWCFRReplay, TaskClassifier, {"memory_size": 6}),
    "LUCIR": (LUCIR, CosineClassifier, {"exemplars_per_class": 5}),
    "Mnemonics": (
        Mnemonics,
        CosineClassifier,
        {
            "exemplars_per_class": 2,
            "optimization": quick(),
            **PIXELS,
            "finetuning_epochs": 2,
            "progress": False,
        },
    ),
    "ReReLRP": (ReReLRP, nn.Linear, {**SHAPE, **SMALL}),
}


def small_strategy(name: str, **options: Any) -> Any:
    kind, head, own = STRATEGIES[name]
    torch.manual_seed(0)
    extractor = CifarResNet(n_blocks=1, width=4, in_channels=1)
    if head is TaskClassifier:
        model: nn.Module = TaskIncrementalClassifier(extractor, head(16))
    elif head is nn.Linear:
        model = FeatureClassifier(extractor, nn.Linear(16, 6))
    else:
        model = FeatureClassifier(extractor, head(16))
    return build(kind, model=model, **{"train_epochs": 1, **own, **options})
