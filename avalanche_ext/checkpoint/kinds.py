"""What a checkpoint may hold, and how classes are named in it.

A checkpoint is a *table*: one node for each object that can be shared, in the order of
a breadth-first walk from the strategy (number 0). A value inside a node is an atom, or
a tuple that starts with its tag; ``("ref", n)`` points to node ``n``.
"""

from __future__ import annotations

import functools
import importlib
import io
import types
import weakref
from collections import Counter, OrderedDict, defaultdict
from pathlib import PurePath
from typing import Any

import torch
from avalanche.benchmarks import CLScenario, CLStream
from torch import nn
from torch.utils.data import Dataset


class StateError(ValueError):
    """A state cannot be written or put back; the message names the attribute."""


ATOMS = (type(None), bool, int, float, str, bytes)

DICTS = {cls.__name__: cls for cls in (dict, OrderedDict, defaultdict, Counter)}

#: Functions and types that are referred to by name; calling them is harmless.
NAMED: dict[str, Any] = {
    **{cls.__name__: cls for cls in (bool, dict, float, int, list, set, str, tuple)},
    "torch.ones": torch.ones,
    "torch.zeros": torch.zeros,
}

#: Where an object may come from that was made at run time and is made anew.
_REBUILT = ("avalanche.", "avalanche_ext.", "torch.nn.modules.")

#: Owners of handles into the process or the outer world, which no file can hold.
_HANDLES = (
    "_thread",
    "concurrent",
    "logging",
    "multiprocessing",
    "psutil",
    "subprocess",
    "threading",
    "torchvision.transforms",
    "tqdm",
)

_CONSTRUCTED: dict[str, tuple[type, ...]] = {
    "function": (
        types.FunctionType,
        types.BuiltinFunctionType,
        types.MethodType,
        functools.partial,
    ),
    "class": (type,),
    "module": (types.ModuleType,),
    "file": (io.IOBase,),
    "path": (PurePath,),
    "weak reference": (weakref.ref,),
    "dtype": (torch.dtype,),
    "stream": (CLStream, CLScenario),
}


def class_name(cls: type) -> str:
    """Name a class by its module and its place there.

    Example:
        >>> class_name(OrderedDict)
        'collections:OrderedDict'
    """
    return f"{cls.__module__}:{cls.__qualname__}"


def short_name(name: str) -> str:
    """The part a message shows, and that survives a move between modules.

    Example:
        >>> short_name("collections:OrderedDict")
        'OrderedDict'
    """
    return name.rpartition(":")[2]


def rebuilt_class(name: str) -> type | None:
    """The class of that name if objects of it may be made anew, else None.

    Only classes of Avalanche, of this package and of ``torch.nn`` are; a file can
    name no other, so loading one runs no code of its author.

    Example:
        >>> rebuilt_class("subprocess:Popen") is None
        True
    """
    module, _, qualname = name.partition(":")
    if not module.startswith(_REBUILT):
        return None
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    own = isinstance(found, type) and class_name(found) == name  # not merely imported
    return found if own else None


def constructed_kind(obj: Any) -> str | None:
    """What an object is that the constructor gives and no file can hold, else None."""
    for kind, classes in _CONSTRUCTED.items():
        if isinstance(obj, classes):
            return kind
    if type(obj).__module__.startswith(_HANDLES):
        return f"{type(obj).__name__} object"
    if isinstance(obj, Dataset):  # raw data, which the constructor was given
        return (
            f"dataset of {len(obj)} samples" if hasattr(obj, "__len__") else "dataset"
        )
    return None


def keeps_own_state(obj: Any) -> bool:
    """Whether an object has ``state_dict`` and ``load_state_dict`` to be used."""
    if isinstance(obj, (nn.Module, torch.optim.Optimizer, type)):
        return False
    methods = (getattr(obj, "state_dict", None), getattr(obj, "load_state_dict", None))
    return all(callable(method) for method in methods)
