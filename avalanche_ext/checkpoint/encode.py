"""From a strategy, and everything it refers to, to a table of plain data."""

from __future__ import annotations

import collections
import enum
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import CLExperience
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.flat_data import FlatData
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates.base import BaseTemplate
from torch import Tensor, nn

from avalanche_ext.checkpoint import kinds
from avalanche_ext.checkpoint.attributes import has_extra_state, state_attributes
from avalanche_ext.checkpoint.grown import template_name
from avalanche_ext.checkpoint.insertion import insertion_order
from avalanche_ext.checkpoint.kinds import StateError
from avalanche_ext.checkpoint.rng import GENERATORS, generator_state
from avalanche_ext.checkpoint.samples import StreamSamples

# classes whose content is not in their attributes
_BASIC = (
    Tensor,
    np.ndarray,
    dict,
    list,
    set,
    tuple,
    collections.deque,
    int,
    float,
    str,
)
# containers that a constructor fills, whatever is in them, and their owners
_CONSTRUCTED: dict[str, Any] = {
    "plugins": BaseTemplate,
    "metrics": EvaluationPlugin,
    "loggers": EvaluationPlugin,
    "_modules": nn.Module,
}
_REMEDY = (
    "Give its owner the two methods of avalanche_ext.checkpoint.Resumable, which say "
    "what to save."
)


class Encoder:
    """Walks the objects below a strategy, nearest first, and writes a node for each.

    Args:
        strategy: The root, node 0.
        samples: The stream that datasets refer to.
        experiences: Those trained so far, in order.
    """

    def __init__(
        self, strategy: Any, samples: StreamSamples, experiences: list[Any]
    ) -> None:
        self._strategy = strategy
        self._samples = samples
        self._experiences = experiences
        self._numbers: dict[int, int] = {}
        # the objects, kept alive so that their ids stay theirs, and how to name them
        self._queue: list[tuple[Any, str, bool]] = []
        self._constructed: set[int] = set()
        self._add(strategy, "strategy", False)

    def encode(self, **others: Any) -> dict[str, Any]:
        """The table, and values of further roots.

        Raises:
            StateError: If something cannot be saved.
        """
        values = {name: self._value(v, name, True) for name, v in others.items()}
        table = [self._node(*entry) for entry in _growing(self._queue)]
        return {"table": table, **values}

    def _add(self, obj: Any, path: str, plain: bool) -> int:
        """Number of the object's node, which is written later.

        Args:
            obj: The object.
            path: How messages name it.
            plain: Only tensors and plain data are allowed here and below.
        """
        if id(obj) not in self._numbers:
            self._numbers[id(obj)] = len(self._queue)
            self._queue.append((obj, path, plain))
        return self._numbers[id(obj)]

    def _value(self, obj: Any, path: str, plain: bool) -> Any:
        """An atom, or a tagged tuple that may refer to nodes."""
        if type(obj) in kinds.ATOMS:
            return obj
        if isinstance(obj, np.generic) and type(obj.item()) in kinds.ATOMS:
            return ("numpy", obj.dtype.str, obj.item())
        if type(obj) in (tuple, frozenset, torch.Size):
            items = [self._value(o, f"{path}[{i}]", plain) for i, o in enumerate(obj)]
            return (type(obj).__name__, items)
        if isinstance(obj, torch.device):
            own = obj.type != "cpu" and obj.type == self._strategy.device.type
            return ("device", None if own else str(obj))
        for name, named in kinds.NAMED.items():
            if obj is named:
                return ("named", name)
        if isinstance(obj, type):
            name = kinds.class_name(obj)
            if kinds.rebuilt_class(name) is obj:
                return ("class", name)
        return ("ref", self._add(obj, path, plain))

    def _node(self, obj: Any, path: str, plain: bool) -> tuple[Any, ...]:
        """Write one node."""
        node = self._data_node(obj, path, plain)
        if node is not None:
            return node
        if plain:
            raise _refusal(path, obj, "only tensors and plain data are possible here")
        if isinstance(obj, CLExperience):
            return ("experience", self._experience_number(obj, path))
        kind = kinds.constructed_kind(obj)
        if kind is not None:
            return ("constructed", kind)
        if isinstance(obj, enum.Enum):
            return ("enum", kinds.class_name(type(obj)), obj.name)
        if isinstance(obj, FlatData):
            raise _refusal(path, obj, "it is data without an AvalancheDataset around")
        if hasattr(obj, "__next__"):
            raise _refusal(path, obj, "a running iterator has no state to read")
        if isinstance(obj, _BASIC):
            raise _refusal(path, obj, f"it is an unknown kind of {_basic(obj)}")
        if kinds.keeps_own_state(obj) and obj is not self._strategy:
            state = self._value(obj.state_dict(), f"{path}.state_dict()", True)
            return ("state", kinds.class_name(type(obj)), state)
        if hasattr(obj, "__dict__"):
            return self._object_node(obj, path)
        raise _refusal(path, obj, "nothing is known of this class")

    def _data_node(self, obj: Any, path: str, plain: bool) -> tuple[Any, ...] | None:
        """Node of plain data, or None."""
        if type(obj) in (list, collections.deque):
            items = [v for _, v in self._items(enumerate(obj), path, plain, obj)]
            return (type(obj).__name__, items, getattr(obj, "maxlen", None))
        if type(obj) is set:
            order = enumerate(insertion_order(obj))
            return ("set", [v for _, v in self._items(order, path, plain, obj)])
        if kinds.DICTS.get(type(obj).__name__) is type(obj):
            pairs = self._items(obj.items(), path, plain, obj)
            return ("dict", type(obj).__name__, pairs, self._factory(obj))
        if type(obj) in (Tensor, nn.Parameter):
            on_device = obj.device.type != "cpu"
            gradient = obj.requires_grad and obj.is_leaf
            return ("tensor", _compact(obj), type(obj).__name__, gradient, on_device)
        if isinstance(obj, np.ndarray) and obj.dtype.kind in "biuf":
            native = np.ascontiguousarray(obj, obj.dtype.newbyteorder("="))
            data = torch.from_numpy(native.reshape(-1).view(np.uint8))
            return ("array", data, native.dtype.str, list(obj.shape))
        if isinstance(obj, GENERATORS):
            on_device = getattr(obj, "device", torch.device("cpu")).type != "cpu"
            state = self._value(generator_state(obj), path, True)
            return ("generator", kinds.class_name(type(obj)), state, on_device)
        if isinstance(obj, AvalancheDataset):
            try:
                return ("dataset", self._samples.refer(obj))
            except StateError as error:
                raise _refusal(path, obj, str(error)) from None
        return None

    def _factory(self, obj: Any) -> Any:
        """What makes the defaults of a dictionary; False: what the counterpart has."""
        factory = getattr(obj, "default_factory", None)
        if factory is None or isinstance(factory, type):
            value = self._value(factory, "default_factory", True)
            return value if value is None or value[0] != "ref" else False
        return False

    def _items(
        self, pairs: Any, path: str, plain: bool, container: Any
    ) -> list[tuple[Any, Any]]:
        """Keys and values of a container."""
        constructed = id(container) in self._constructed
        result = []
        for key, item in pairs:
            if type(key) in kinds.ATOMS and type(item) in kinds.ATOMS:
                result.append((key, item))  # there can be millions
                continue
            place = f"{path}[{key!r}]"
            if constructed:
                place += f" ({type(item).__name__})"
            elif not self._can_be_made_anew(item):
                raise _refusal(
                    place, item, "nothing tells that a new strategy has it, too"
                )
            key = self._value(key, f"a key of {path}", plain)
            result.append((key, self._value(item, place, plain)))
        return result

    def _can_be_made_anew(self, obj: Any) -> bool:
        """Whether an object needs no counterpart in a new strategy."""
        if type(obj) in kinds.ATOMS or not hasattr(obj, "__dict__"):
            return True
        if id(obj) in self._numbers or isinstance(obj, AvalancheDataset):
            return True
        if isinstance(obj, (*GENERATORS, *_BASIC, CLExperience)):
            return True
        if template_name(obj, self._strategy.model) is not None:
            return True
        if kinds.constructed_kind(obj):
            return True
        cls = kinds.rebuilt_class(kinds.class_name(type(obj)))
        return cls is not None and not kinds.keeps_own_state(obj)

    def _object_node(self, obj: Any, path: str) -> tuple[Any, ...]:
        """Class and attributes; of a module, also what it is a copy of."""
        attributes = []
        for name, value in state_attributes(obj).items():
            if isinstance(obj, _CONSTRUCTED.get(name, ())):
                self._constructed.add(id(value))
            attributes.append((name, self._value(value, f"{path}.{name}", False)))
        extra = None
        if has_extra_state(obj):
            extra = self._value(
                obj.get_extra_state(), f"{path}.get_extra_state()", True
            )
        template = template_name(obj, self._strategy.model)
        return ("object", kinds.class_name(type(obj)), attributes, extra, template)

    def _experience_number(self, experience: Any, path: str) -> int:
        """Place of an experience among those trained so far."""
        sought = experience.logging()
        for i, trained in enumerate(self._experiences):
            own = trained.logging()
            same_stream = own.origin_stream.name == sought.origin_stream.name
            if same_stream and own.current_experience == sought.current_experience:
                return i
        raise _refusal(path, experience, "it is not one of those trained so far")


def _growing(queue: list[Any]) -> Iterator[Any]:
    """All items of a list that grows meanwhile."""
    i = 0
    while i < len(queue):
        yield queue[i]
        i += 1


def _refusal(path: str, obj: Any, reason: str) -> StateError:
    """The error that something cannot be saved."""
    return StateError(f"{path} is a {type(obj).__name__}: {reason}. {_REMEDY}")


def _basic(obj: Any) -> str:
    """Name of the basic class an object belongs to."""
    return next(cls.__name__ for cls in _BASIC if isinstance(obj, cls))


def _compact(tensor: Tensor) -> Tensor:
    """The values on the CPU, without the rest of a larger storage."""
    data = tensor.detach().cpu()
    size = data.numel() * data.element_size()
    strided = data.layout == torch.strided
    return data.clone() if strided and data.untyped_storage().nbytes() != size else data
