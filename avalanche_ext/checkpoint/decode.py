"""From a table of plain data back into a freshly constructed strategy."""

from __future__ import annotations

import collections
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from avalanche_ext.checkpoint import kinds
from avalanche_ext.checkpoint.kinds import StateError
from avalanche_ext.checkpoint.match import MISSING, Counterparts
from avalanche_ext.checkpoint.rng import new_generator, set_generator_state
from avalanche_ext.checkpoint.samples import StreamSamples

_TUPLES = {"tuple": tuple, "frozenset": frozenset, "Size": torch.Size}


class Decoder:
    """Takes the counterpart of each node, or makes its object anew, and fills it.

    Nothing of the strategy changes until `commit`.

    Args:
        table: The nodes; number 0 is the strategy.
        strategy: Constructed by the same call as the one saved.
        experiences: Those trained so far, in order.

    Raises:
        StateError: If something has no counterpart and cannot be made anew.
    """

    def __init__(self, table: list[Any], strategy: Any, experiences: list[Any]) -> None:
        self._device = strategy.device
        self._experiences = experiences
        self._samples = StreamSamples(experiences)
        counterparts = Counterparts(table, strategy, experiences)
        self._found, self._paths = counterparts.found, counterparts.paths
        # what to do at the commit, in this order
        self._attributes: list[tuple[Any, dict[str, Any]]] = []
        self._contents: list[Callable[[], None]] = []
        self._own_states: list[Callable[[], None]] = []
        self._objects = [self._make(n, node) for n, node in enumerate(table)]
        for n, node in enumerate(table):
            self._fill(n, node)

    def commit(self) -> None:
        """Change the strategy."""
        for obj, attributes in self._attributes:
            vars(obj).update(attributes)
        for action in (*self._contents, *self._own_states):
            action()

    def value(self, value: Any) -> Any:
        """The object behind a value of the table."""
        if not isinstance(value, tuple):
            return value
        tag, content = value[0], value[1]
        if tag == "ref":
            return self._objects[content]
        if tag in _TUPLES:
            return _TUPLES[tag]([self.value(item) for item in content])
        if tag == "numpy":
            return np.dtype(content).type(value[2])
        if tag == "device":
            return self._device if content is None else torch.device(content)
        if tag == "named":
            return kinds.NAMED[content]
        found = kinds.rebuilt_class(content)
        if tag != "class" or found is None:
            raise StateError(f"unknown value {tag!r} {content!r}")
        return found

    def _make(self, n: int, node: Any) -> Any:
        """The object of a node, still empty if it is new and may contain others."""
        kind, found = node[0], self._found[n]
        if kind == "list":
            return []
        if kind == "deque":
            return collections.deque(maxlen=node[2])
        if kind == "set":
            return set()
        if kind == "dict":
            return self._new_dict(n, node)
        if kind == "tensor":
            return self._tensor(n, node)
        if kind == "array":
            return node[1].numpy().view(node[2]).reshape(node[3])
        if kind == "dataset":
            return self._samples.take(node[1])
        if kind == "experience":
            return self._experiences[node[1]]
        if found is MISSING:
            return self._new_object(n, node)
        return type(found)[node[2]] if kind == "enum" else found

    def _new_object(self, n: int, node: Any) -> Any:
        """An object without a counterpart, if its class may be made anew."""
        if node[0] == "generator":
            return new_generator(
                node[1], self._device if node[3] else torch.device("cpu")
            )
        cls = kinds.rebuilt_class(node[1])
        if node[0] == "object" and cls is not None:
            return object.__new__(cls)
        raise StateError(
            f"{self._paths[n]} was a {kinds.short_name(node[1])} when it was saved; the "
            "new strategy has none there. Construct it by the same code, or give its "
            "owner the methods of avalanche_ext.checkpoint.Resumable"
        )

    def _new_dict(self, n: int, node: Any) -> Any:
        """An empty dictionary; what makes its defaults may be the counterpart's."""
        cls, factory = kinds.DICTS[node[1]], node[3]
        if cls is not collections.defaultdict:
            return cls()
        if factory is not False:
            return cls(self.value(factory))
        own = getattr(self._found[n], "default_factory", None)
        if own is None:
            raise StateError(f"{self._paths[n]}: what makes its defaults is unknown")
        return cls(own)

    def _tensor(self, n: int, node: Any) -> Any:
        """A tensor on the device it is needed on; parameters keep their identity."""
        _, data, cls, requires_grad, on_device = node
        data = data.to(self._device) if on_device else data
        if cls == "Tensor":
            return data.requires_grad_(requires_grad)
        parameter = self._found[n]
        if parameter is MISSING:
            return nn.Parameter(data, requires_grad=requires_grad)

        def assign() -> None:
            parameter.data = data
            parameter.requires_grad_(requires_grad)

        self._contents.append(assign)
        return parameter

    def _fill(self, n: int, node: Any) -> None:
        """Put in what a node contains, at once if it is new, else at the commit."""
        kind, obj = node[0], self._objects[n]
        if kind in ("list", "deque"):
            obj.extend(self.value(item) for item in node[1])
        elif kind == "set":
            for item in node[1]:  # one by one: the order depends on it
                obj.add(self.value(item))
        elif kind == "dict":
            for key, item in node[2]:
                obj[self.value(key)] = self.value(item)
        elif kind == "object":
            attributes = {name: self.value(value) for name, value in node[2]}
            self._attributes.append((obj, attributes))
            if node[3] is not None:
                extra = self.value(node[3])
                self._contents.append(lambda: obj.set_extra_state(extra))
        elif kind == "generator":
            state = self.value(node[2])
            self._contents.append(lambda: set_generator_state(obj, state))
        elif kind == "state":
            state = self.value(node[2])
            self._own_states.append(lambda: self._load_state(n, state))

    def _load_state(self, n: int, state: Any) -> None:
        """Let an object load its own state."""
        load = self._objects[n].load_state_dict
        wanted = "experiences" in inspect.signature(load).parameters
        try:
            load(state, *[self._experiences] if wanted else [])
        except Exception as error:
            raise StateError(
                f"{self._paths[n]} did not accept its state: {error!r}"
            ) from error
