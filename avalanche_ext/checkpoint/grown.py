"""The model of a new strategy, grown as it grew in training."""

from __future__ import annotations

import copy
from typing import Any

from avalanche.benchmarks import OnlineCLExperience
from avalanche.models import DynamicModule
from avalanche.models.dynamic_modules import avalanche_model_adaptation
from torch import nn


def grown_copy(model: nn.Module, experiences: list[Any]) -> nn.Module:
    """A copy of a new model, adapted to the experiences as in training."""
    grown = copy.deepcopy(model)
    if any(isinstance(module, DynamicModule) for module in grown.modules()):
        grown.train()
        for experience in experiences:
            online = isinstance(experience, OnlineCLExperience)
            if online and experience.access_task_boundaries:
                experience = experience.logging().origin_experience
            avalanche_model_adaptation(grown, experience)
    return grown


def twins(model: nn.Module, grown: nn.Module) -> dict[int, Any]:
    """By id of each module, and of its children: those at its place in the grown one."""
    others = dict(grown.named_modules())
    found: dict[int, Any] = {}
    for name, module in model.named_modules():
        if name in others:
            found[id(module)] = others[name]
            found[id(module._modules)] = others[name]._modules
    return found


def template_name(module: Any, model: nn.Module) -> str | None:
    """Name of the part of the model that a module is a copy of, or None.

    Of several parts of the same class, one with the same structure.
    """
    if not isinstance(module, nn.Module):
        return None
    first: str | None = None
    for name, part in model.named_modules():
        if type(part) is type(module):
            if _structure(part) == _structure(module):
                return str(name)
            first = name if first is None else first
    return first


def _structure(module: nn.Module) -> list[tuple[str, type]]:
    """Names and classes of a module and of all below it."""
    return [(name, type(part)) for name, part in module.named_modules()]
