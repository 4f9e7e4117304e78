"""A model that may be altered at will, and is put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from torch import nn


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put back every attribute of every module at the end, also after an exception.

    That is modes, hooks, parameters, buffers, sub-modules, overloaded functions, and
    what a forward pass has left behind (the features of a `FeatureClassifier`, with
    their graph). Tensors that other ones took the place of come back bit by bit; a
    change in place of a tensor's values is not undone.

    Args:
        model: Any module.
    """
    attributes = [
        (vars(m), dict(vars(m)), [(v, v.copy()) for v in _dicts(m)])
        for m in model.modules()
    ]
    tensors = [(t, t.data) for t in chain(model.parameters(), model.buffers())]
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield
    finally:
        for now, before, dicts in attributes:
            # hooks and parameters are removed by way of the very dicts they are in
            for value, content in dicts:
                value.clear()
                value.update(content)
            now.clear()
            now.update(before)
        for tensor, data in tensors:
            tensor.data = data
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _dicts(module: nn.Module) -> list[dict[object, object]]:
    return [value for value in vars(module).values() if isinstance(value, dict)]
