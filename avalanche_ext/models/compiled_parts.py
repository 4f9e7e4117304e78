"""Running the parts of a model that do not grow through `torch.compile`."""

from __future__ import annotations

from types import FunctionType, MethodType, TracebackType
from typing import TYPE_CHECKING, Any

import torch
from avalanche.models import DynamicModule
from torch import nn

from avalanche_ext.models.batch_renorm import (
    BatchRenorm,
    leave_batch_renorm_uncompiled,
)

if TYPE_CHECKING:
    from typing import Self


class CompiledParts:
    """Within its ``with`` the parts of a model that do not grow run compiled.

    The parts are the largest modules, with modules of their own, that hold neither a
    `DynamicModule` (a head that grows, which would be compiled again each time) nor a
    hook. Outside the ``with`` the model is a plain one: copies, hooks and higher
    derivatives know nothing of the compiler. Each part is compiled when it first runs,
    once more for another batch size and for evaluation, and then no more.

    Args:
        model: Any model.
        like: Parts of a model of the same structure; what was compiled for them serves
            this model, too.

    Raises:
        ValueError: If nothing is left to compile.

    Example:
        >>> net = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
        >>> with CompiledParts(net) as parts:
        ...     parts.names
        ['']
    """

    def __init__(self, model: nn.Module, like: CompiledParts | None = None) -> None:
        self.model = model
        self._functions: dict[str, FunctionType] = like._functions if like else {}
        self._found: dict[frozenset[str], dict[str, tuple[nn.Module, Any]]] = {}
        self._before: dict[nn.Module, Any] = {}
        self.names: list[str] = []
        self.look_again()
        if not _largest_parts(model, frozenset()):
            raise ValueError(
                f"compile is True, but {type(model).__name__} has no part to compile; "
                "wanted layers in a module of their own beside the head that grows, as "
                "in FeatureClassifier(feature_extractor, train_classifier)"
            )

    def look_again(self) -> None:
        """Notice that the model has changed."""
        self._modules = [
            (name, module._forward_hooks, module._forward_pre_hooks)
            for name, module in self.model.named_modules()
        ]
        self._found = {}
        if any(isinstance(module, BatchRenorm) for module in self.model.modules()):
            leave_batch_renorm_uncompiled()

    def __enter__(self) -> Self:
        parts = self._parts()
        if any(_at(self.model, name) is not part for name, (part, _) in parts.items()):
            self.look_again()  # one was replaced
            parts = self._parts()
        self.names = list(parts)
        for part, call in parts.values():
            # what a user compiled stays so
            self._before[part] = part._compiled_call_impl
            part._compiled_call_impl = self._before[part] or call
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for part, before in self._before.items():
            part._compiled_call_impl = before
        self._before = {}

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are of another model, for which nothing is compiled."""
        return {"model": self.model}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["model"])  # type: ignore[misc]

    def _parts(self) -> dict[str, tuple[nn.Module, Any]]:
        """By name the parts, and what runs in place of each."""
        hooked = frozenset(name for name, *hooks in self._modules if any(hooks))
        if hooked not in self._found:
            names = _largest_parts(self.model, hooked)
            self._found[hooked] = {name: self._compiled(name) for name in names}
        return self._found[hooked]

    def _compiled(self, name: str) -> tuple[nn.Module, Any]:
        part = self.model.get_submodule(name)
        if name not in self._functions:
            # With code of its own: torch counts compilations by code, and gives up
            # where many parts of one class have more than a few in all.
            self._functions[name] = FunctionType(_run.__code__.replace(), globals())
        return part, torch.compile(MethodType(self._functions[name], part))


def _run(part: nn.Module, *inputs: Any, **named: Any) -> Any:
    return part.forward(*inputs, **named)


def _at(model: nn.Module, name: str) -> Any:
    """The submodule of a name; None if there is none."""
    found: Any = model
    for step in name.split(".") if name else ():
        found = getattr(found, step, None)
    return found


def _largest_parts(model: nn.Module, hooked: frozenset[str]) -> list[str]:
    """Names of the largest modules without hooks and without heads that grow."""
    stay = set(hooked)
    stay |= {n for n, m in model.named_modules() if _may_grow(m)}
    found: list[str] = []

    def collect(name: str, module: nn.Module) -> None:
        children = [(f"{name}.{n}".lstrip("."), m) for n, m in module.named_children()]
        runs = type(module).forward is not nn.Module.forward  # a ModuleList does not
        inside = {f"{name}.{n}".strip(".") for n, _ in module.named_modules()}
        if not runs or inside & stay:
            for child in children:
                collect(*child)
        elif children:  # a layer alone gains nothing
            found.append(name)

    collect("", model)
    return found


def _may_grow(module: nn.Module) -> bool:
    """Whether an experience may change it; a `TransferConv2d` waits for its plugin."""
    if not isinstance(module, DynamicModule):
        return False
    own = type(module)
    same = own.adaptation is DynamicModule.adaptation
    return not (same and own.pre_adapt is DynamicModule.pre_adapt)
