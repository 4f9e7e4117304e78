"""A small convolutional network under AR1*, and notes of its training."""

from __future__ import annotations

from collections import OrderedDict

import torch
from avalanche.core import SupervisedPlugin
from cases import N_CLASSES, SIDE, build, toy_benchmark
from torch import nn
from torch.optim import SGD

from avalanche_ext.strategies import AR1Star

SHAPE = (1, SIDE, SIDE)


def block(inputs, outputs, groups=1):
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=False)
    named = {"conv": conv, "norm": nn.BatchNorm2d(outputs), "relu": nn.ReLU()}
    return nn.Sequential(OrderedDict(named))


def network(warm=True):
    """Four blocks, every other one depthwise; with statistics of noise if warm."""
    blocks = {
        "a": block(1, 8),
        "b": block(8, 8, groups=8),
        "c": block(8, 8),
        "d": block(8, 8, groups=8),
        "pool": nn.AdaptiveAvgPool2d(2),
        "flat": nn.Flatten(),
        "head": nn.Linear(32, N_CLASSES),
    }
    model = nn.Sequential(OrderedDict(blocks))
    if warm:
        model(torch.randn(32, *SHAPE))
    return model


def sgd(model, lr=0.1):
    return SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)


def ar1(model=None, **options):
    """AR1* cut behind the second block."""
    fixed = {"input_shape": SHAPE, "latent_layer": "b", "memory_size": 24}
    model = network() if model is None else model
    return build(AR1Star, model=model, **{**fixed, **options})


def train(strategy, api="old", visits=(0, 1, 2)):
    stream = toy_benchmark(api).train_stream
    for visit in visits:
        strategy.train(stream[visit])
    return strategy


def trained(seed=0, **options):
    torch.manual_seed(seed)
    return train(ar1(**options))


def the(kind, strategy):
    """Its plugin of that class."""
    return next(p for p in strategy.plugins if isinstance(p, kind))


class Notes(SupervisedPlugin):
    """Of each experience: learning rates, momenta at the start, epochs, weights."""

    def __init__(self):
        super().__init__()
        self.rates, self.momenta, self.epochs, self.states = [], [], [], []

    def before_training_epoch(self, strategy, **kwargs):
        if strategy.clock.train_exp_epochs == 0:
            self.momenta.append(len(strategy.optimizer.state))
            self.rates.append(rates(strategy))

    def after_training_exp(self, strategy, **kwargs):
        self.epochs.append(strategy.clock.train_exp_epochs)
        state = strategy.model.state_dict()
        self.states.append({k: v.clone() for k, v in state.items()})


def rates(strategy):
    """Learning rate of each parameter, by name."""
    groups = strategy.optimizer.param_groups
    of = {id(p): group["lr"] for group in groups for p in group["params"]}
    return {n: of[id(p)] for n, p in strategy.model.named_parameters()}
