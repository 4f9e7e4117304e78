"""Subjects of the contract for transferred weights and distilled scores."""

from __future__ import annotations

from typing import Any

from cases import SIDE, naive_with, toy_model
from torch import nn

from avalanche_ext.models import (
    CosineClassifier,
    FeatureClassifier,
    to_transfer_network,
)
from avalanche_ext.plugins import ScoreDistillationPlugin, WeightTransferPlugin


def model_with_convolutions(decay_to_one: bool = False) -> FeatureClassifier:
    """Two convolutions whose transfer can begin, and a cosine classifier."""
    extractor = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, SIDE - 2)
    ).append(nn.Flatten())
    model = FeatureClassifier(extractor, CosineClassifier(8))
    to_transfer_network(model, decay_to_one=decay_to_one)
    return model


def weight_transfer(decay_to_one: bool = False, **options: Any) -> Any:
    """Naive with transfer."""
    model = model_with_convolutions(decay_to_one)
    return naive_with(WeightTransferPlugin(), model=model, **options)


def fixed_width_distillation(**options: Any) -> Any:
    """With a classifier that does not say which classes it knows."""
    plugin = ScoreDistillationPlugin(freeze_old_prototypes=False)
    return naive_with(plugin, model=toy_model(cosine=False), **options)
