"""ReReLRP on toy streams, with networks of every make."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.models import IncrementalClassifier
from avalanche.training.plugins import EvaluationPlugin
from cases import N_CLASSES, SIDE, Images, build, toy_extractor, toy_model
from submodel_hosts import NarrowResNet, block
from torch import nn
from torch.optim import SGD

from avalanche_ext.metrics import TaskRecognitionAccuracy
from avalanche_ext.metrics.task_recognition import PREFIXES
from avalanche_ext.models import FeatureClassifier, to_batch_renorm
from avalanche_ext.strategies import ReReLRP

SHAPE = (1, SIDE, SIDE)


def mlp():
    """With batch normalisation behind the first of two layers, one head for all."""
    return toy_model(cosine=False)


def cnn():
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, N_CLASSES))
    return nn.Sequential(block(1, 12), nn.MaxPool2d(2), block(12, 12), *head)


def resnet():
    """Narrow, of torchvision's blocks."""
    model = NarrowResNet()
    model.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def growing():
    """Its head grows with the classes."""
    return FeatureClassifier(toy_extractor(), IncrementalClassifier(8, 2))


def growing_resnet():
    model = resnet()
    model.fc = IncrementalClassifier(32, 2)
    return model


NETWORKS = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet": resnet,
    "growing": growing,
    "growing_resnet": growing_resnet,
    "renorm": lambda: to_batch_renorm(cnn(), momentum=0.1),
}


def sgd(model, lr=0.02):
    return SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-2)


def rerelrp(model=None, **options):
    """Small in everything; the published rate would be too large for it."""
    model = mlp() if model is None else model
    fixed = {
        "input_shape": SHAPE,
        "acc_drop": 0,
        "validation_fraction": 0.3,
        "reference_per_class": 12,
        "features": 6,
        "num_trees": 10,
        "train_epochs": 6,
    }
    if "optimizer" not in options:
        options["optimizer"] = sgd(model)
    return build(ReReLRP, model=model, **{**fixed, **options})


def stream_of(order=range(N_CLASSES), sizes=(2, 2, 2), per_class=24):
    """Experiences of so many classes each, in this order of ids."""
    return nc_benchmark(
        Images(per_class, seed=1),
        Images(10, seed=2),
        n_experiences=len(sizes),
        task_labels=False,
        fixed_class_order=list(order),
        per_exp_classes=dict(enumerate(sizes)),
    )


def trained(strategy, benchmark=None, n=None):
    """The strategy after the first n experiences."""
    benchmark = benchmark or stream_of()
    strategy.train(benchmark.train_stream[:n])
    return strategy


def evaluator():
    return EvaluationPlugin(TaskRecognitionAccuracy(), loggers=[])


def shares(metrics: dict[str, Any]) -> dict[str, float]:
    """Of the stream, by the beginning of their names."""
    found = {p: [v for k, v in metrics.items() if f"{p}_Stream" in k] for p in PREFIXES}
    return {p: values[-1] for p, values in found.items() if values}


def images(n=20, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *SHAPE, generator=generator)
