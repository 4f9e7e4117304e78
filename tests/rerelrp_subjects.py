"""ReReLRP and its plugins as subjects of the contract."""

from __future__ import annotations

from typing import Any

import torch
from cases import SIDE, build, naive_with, toy_model
from torch import nn
from torch.optim import SGD

from avalanche_ext.buffers import ReferenceSamples
from avalanche_ext.models import ExperienceDetectors
from avalanche_ext.plugins import RelevanceFreezingPlugin, TaskRecognitionPlugin
from avalanche_ext.strategies import ReReLRP


def rerelrp_subject(**options: Any) -> Any:
    small = {"reference_per_class": 12, "features": 8, "num_trees": 5}
    small["validation_fraction"] = 0.3
    fixed = {"input_shape": (1, SIDE, SIDE), "acc_drop": 0, **small}
    fixed["train_epochs"] = 6  # beyond chance
    model = toy_model(cosine=False)
    return build(ReReLRP, model=model, optimizer=_slow(model), **{**fixed, **options})


def _slow(model: nn.Module) -> SGD:
    # with its normalisation frozen the toy model diverges at the rate of the others
    return SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)


def freezing_subject(recognise: bool, **options: Any) -> Any:
    model = toy_model(cosine=False)
    plugins: list[Any] = [
        RelevanceFreezingPlugin(
            model,
            input_shape=(1, SIDE, SIDE),
            acc_drop=0,
            validation_fraction=0.3,
            reference=ReferenceSamples(12),
        )
    ]
    if recognise:  # with a selection and generators of its own
        generator = torch.Generator().manual_seed(3)
        plugins.append(
            TaskRecognitionPlugin(
                lambda s: plugins[0].submodels.all_of(s.model),
                detectors=ExperienceDetectors(8, num_trees=5, class_weight="balanced"),
                reference=ReferenceSamples(12, selection="random", generator=generator),
            )
        )
    fixed = {"optimizer": _slow(model), "train_epochs": 6}
    return naive_with(*plugins, model=model, **{**fixed, **options})
