"""Which attributes of an object are state, and which stay as constructed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates.base import BaseTemplate
from torch import Tensor, nn

from avalanche_ext.checkpoint import kinds
from avalanche_ext.checkpoint.rng import GENERATORS

#: State of the base class that every module has; the rest are hooks.
_MODULE_STATE = {
    "training",
    "_parameters",
    "_buffers",
    "_non_persistent_buffers_set",
    "_modules",
}
_MODULE_HOOKS = (set(vars(nn.Module())) - _MODULE_STATE) | {"_compiled_call_impl"}

#: Where a strategy keeps what belongs to a running experience, or to the machine (also
#: how its work is done, which a resumed run may do otherwise).
_STRATEGY_TRANSIENT = {
    "_compiled_parts",
    "_eval_streams",
    "adapted_dataset",
    "compile",
    "current_eval_stream",
    "dataloader",
    "device",
    "experience",
    "inference_mode",
    "loss",
    "mb_output",
    "mbatch",
}


def state_attributes(obj: Any) -> dict[str, Any]:
    """Attributes of an object that a checkpoint holds."""
    attributes = dict(vars(obj))
    if isinstance(obj, torch.optim.Optimizer):
        return {name: attributes[name] for name in ("param_groups", "state")}
    if isinstance(obj, nn.Module):
        # what torch.compile wraps around a module is made again at the first call
        if has_extra_state(obj) or type(obj).__module__.startswith("torch._dynamo"):
            return {name: attributes[name] for name in _MODULE_STATE & {*attributes}}
        left_out = _MODULE_HOOKS
    elif isinstance(obj, BaseTemplate):
        left_out = _STRATEGY_TRANSIENT
    else:
        left_out = set()
    if isinstance(obj, EvaluationPlugin):
        attributes.update(_without_figures(obj))
    return {
        name: value
        for name, value in attributes.items()
        if name not in left_out and not _is_handle(obj, value)
    }


def has_extra_state(obj: Any) -> bool:
    """Whether the author of a module takes care of all that is no tensor."""
    return (
        isinstance(obj, nn.Module)
        and type(obj).get_extra_state is not nn.Module.get_extra_state
    )


def _is_handle(owner: Any, value: Any) -> bool:
    """Whether an attribute is a handle into the process, or what a logger writes with.

    It stays as constructed even where the new object has none.
    """
    kind = kinds.constructed_kind(value) or ""
    if not isinstance(owner, BaseLogger):
        return kind.endswith(" object")
    foreign = (
        hasattr(value, "__dict__")
        and not isinstance(value, (Tensor, *GENERATORS))
        and kinds.rebuilt_class(kinds.class_name(type(value))) is None
    )
    return bool(kind) or foreign or isinstance(value, io.IOBase)


def _without_figures(evaluator: EvaluationPlugin) -> dict[str, Any]:
    """Records of an evaluator without the figures, which no plain file can hold."""
    every = evaluator.all_metric_results
    curves = type(every)(*[every.default_factory] if evaluator.collect_all else [])
    for name, (steps, values) in every.items():
        kept = [i for i, value in enumerate(values) if _is_plain(value)]
        curves[name] = ([steps[i] for i in kept], [values[i] for i in kept])
    last = {n: v for n, v in evaluator.last_metric_results.items() if _is_plain(v)}
    return {"all_metric_results": curves, "last_metric_results": last}


def _is_plain(value: Any) -> bool:
    """Whether a metric is a number, a text or an array."""
    return isinstance(value, (*kinds.ATOMS, Tensor, np.generic, np.ndarray))
