"""Which objects of a new strategy the nodes of a table are to be put into."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

from avalanche.evaluation import Metric
from torch import nn
from torch.optim import Optimizer

from avalanche_ext.checkpoint import kinds
from avalanche_ext.checkpoint.grown import grown_copy, twins

MISSING: Any = object()


class Counterparts:
    """Finds for each node the object at the same place of a new strategy.

    The walk goes outwards from the strategy, so that an object is found at the
    shortest of the ways to it. Nothing is changed: a part of the model that grew in
    training is found in a grown copy.

    Args:
        table: The nodes; number 0 is the strategy.
        strategy: Constructed by the same call as the one saved.
        experiences: Those trained so far, in order.
    """

    def __init__(self, table: list[Any], strategy: Any, experiences: list[Any]) -> None:
        self._table = table
        self._grown = grown_copy(strategy.model, experiences)
        self._twins = twins(strategy.model, self._grown)
        self._claimed: set[int] = set()
        self.found: list[Any] = [MISSING] * len(table)
        """By node: the object, or `MISSING`."""
        self.paths: list[str] = [""] * len(table)
        """By node: how messages name it."""
        self._offer(0, strategy, "strategy")
        for n, node in enumerate(table):
            if self.found[n] is MISSING and node[0] == "object":
                self._offer(n, self._stand_in(node), self.paths[n])
            for key, value, place in _children(node):
                child = self._child(self.found[n], key)
                self._offer_value(value, child, self.paths[n] + place)

    def _offer(self, n: int, candidate: Any, path: str) -> None:
        """Take an object as counterpart of a node, if it fits and is not taken."""
        node = self._table[n]
        if node[0] == "object" and path.endswith("]"):
            path += f" ({kinds.short_name(node[1])})"
        self.paths[n] = self.paths[n] or path
        if candidate is MISSING or self.found[n] is not MISSING:
            return
        if _fits(node, candidate) and id(candidate) not in self._claimed:
            self.found[n] = candidate
            if node[0] in ("object", "state", "generator", "tensor"):
                self._claimed.add(id(candidate))

    def _offer_value(self, value: Any, candidate: Any, path: str) -> None:
        """Offer counterparts of all nodes that a value refers to."""
        if not isinstance(value, tuple):
            return
        if value[0] == "ref":
            self._offer(value[1], candidate, path)
        elif value[0] == "tuple":
            own = candidate if isinstance(candidate, tuple) else ()
            for i, item in enumerate(value[1]):
                part = own[i] if i < len(own) else MISSING
                self._offer_value(item, part, f"{path}[{i}]")

    def _stand_in(self, node: Any) -> Any:
        """What to fill for an object that was made at run time, or `MISSING`."""
        _, name, _, _, template = node
        if template is not None:  # a copy of (a part of) the model
            return copy.deepcopy(self._grown.get_submodule(template))
        cls = kinds.rebuilt_class(name)
        if cls is not None and Metric in cls.__mro__ and _needs_nothing(cls):
            return cls()  # only its constructor knows what makes its defaults
        return MISSING

    def _child(self, owner: Any, key: Any) -> Any:
        """Attribute or item of a counterpart, or of its twin in the grown model."""
        if isinstance(owner, Optimizer):
            return MISSING  # its parameters are known from the model, or are new
        if isinstance(owner, (list, tuple)):
            return owner[key] if key < len(owner) else MISSING
        for candidate in (owner, self._twins.get(id(owner))):
            own = candidate if isinstance(candidate, dict) else _attributes(candidate)
            if own.get(key) is not None:
                return own[key]
        return MISSING


def _attributes(obj: Any) -> dict[str, Any]:
    """Attributes of an object; none if it cannot have any."""
    return getattr(obj, "__dict__", {})


def _fits(node: Any, candidate: Any) -> bool:
    """Whether an object can be the counterpart of a node."""
    kind, cls = node[0], type(candidate)
    if kind in ("object", "state", "enum"):
        return bool(kinds.short_name(node[1]) == cls.__qualname__)
    if kind == "generator":
        return bool(node[1] == kinds.class_name(cls))
    if kind == "constructed":
        return bool(kinds.constructed_kind(candidate) == node[1])
    if kind == "tensor":
        return node[2] == "Parameter" and isinstance(candidate, nn.Parameter)
    return kind == cls.__name__ or (kind == "dict" and cls in kinds.DICTS.values())


def _children(node: Any) -> Iterator[tuple[Any, Any, str]]:
    """Key, value and place of what a node contains."""
    if node[0] == "list":
        for i, value in enumerate(node[1]):
            yield i, value, f"[{i}]"
    elif node[0] == "dict":
        for key, value in node[2]:
            if type(key) in kinds.ATOMS:
                yield key, value, f"[{key!r}]"
    elif node[0] == "object":
        for name, value in node[2]:
            yield name, value, f".{name}"


def _needs_nothing(cls: type) -> bool:
    """Whether a class can be constructed without arguments."""
    parameters = inspect.signature(cls).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in variable for p in parameters)
