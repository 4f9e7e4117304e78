"""A masked model that runs again only what a change of its masks reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from avalanche_ext.models.cut_trace import untouched
from avalanche_ext.models.unit_layers import along_units, unit_axis

_Index = tuple[nn.Module, int]  # a module, and which of its calls in a pass


class _Call:
    """What one call of a module returned, and what for.

    ``contents`` are numbers of the arguments (None: it must run each time), ``held``
    those arguments that were made outside of modules, ``content`` the number of
    ``out``, ``changed`` that of the last change of a mask inside, ``off`` the mask;
    ``writes`` tells whether it wrote into its arguments.
    """

    def __init__(
        self,
        contents: tuple[int, ...] | None,
        held: dict[int, Tensor],
        out: Tensor,
        content: int,
        changed: int,
        off: Tensor | None,
        writes: bool,
    ) -> None:
        self.contents, self.held = contents, held
        self.changed, self.writes = changed, writes
        self.remember(out, content, off)

    def remember(self, out: Tensor, content: int, off: Tensor | None) -> None:
        """Take over an output."""
        self.out, self.content, self.off = out, content, off
        self.versions = self._versions()

    def _versions(self) -> list[int]:
        return [t._version for t in (*self.held.values(), self.out)]

    def is_intact(self) -> bool:
        """Whether nothing was written into what is remembered."""
        return self.versions == self._versions()


class RememberedCalls:
    """Runs a model with masks over the same batches again and again.

    A module that gets the same arguments as in the pass before, with the same masks
    inside, returns what it returned then and is not run. *The same* is known by a
    number that each tensor gets with the module that returned it, one number for one
    content; arguments that were computed outside of modules are compared value by
    value. So a change stops where it makes no difference, such as at the ReLU of a
    unit that is never positive, and branches it does not reach are not run. Outputs
    that the model writes into later are kept as copies; a module that writes into its
    arguments is run whenever these are used. All outputs are bit-equal to those of a
    plain pass.

    The model must be the same function of its inputs in each pass: no randomness in
    evaluation mode, and no change of its weights in between.

    Args:
        model: Any model; altered only while it runs.
        batches: Inputs of the model.
        cache_bytes: Batches whose tensors would go beyond are run plainly. Those of
            one batch come on top until it is known how large they are.
    """

    def __init__(
        self, model: nn.Module, batches: Sequence[Tensor], cache_bytes: int
    ) -> None:
        self.model, self.batches, self.cache_bytes = model, batches, cache_bytes
        self._memories: list[dict[_Index, _Call] | None] = [{} for _ in batches]
        self._memory: dict[_Index, _Call] | None = None
        self._calls: dict[nn.Module, int] = {}  # so far in this pass
        self._around: dict[nn.Module, list[nn.Module]] = {}
        for module in model.modules():
            for inner in module.modules():
                self._around.setdefault(inner, []).append(module)
        hooked = [m for m in self._around if m._forward_hooks or m._forward_pre_hooks]
        # a container is not skipped where someone watches what is inside
        self._watched = {o for m in hooked for o in self._around[m] if o is not m}
        # of others it costs as much to compare arguments as to run them
        self._heavy = {m for m in self._around if any(True for _ in m.parameters())}
        self._numbers = count(1)
        # tensor -> number, version
        self._contents: Any = WeakTensorKeyDictionary()
        self._off: dict[nn.Module, Tensor | None] = {}
        self._changed: dict[nn.Module, int] = {}  # last change of a mask inside
        self._copied: set[_Index] = set()  # the model writes into what they return

    def set_mask(self, site: nn.Module, off: Tensor | None) -> None:
        """Switch units of a module off, and its others on.

        Args:
            site: A layer or norm layer.
            off: True for units whose output is set to 0, bool ``(C,)``; None: none.
        """
        self._off[site] = off
        number = next(self._numbers)
        self._changed |= dict.fromkeys(self._around[site], number)

    def run(self) -> list[Tensor]:
        """Outputs of the masked model in evaluation mode, without gradients.

        Returns:
            One for each batch.
        """
        outputs, left = [], self.cache_bytes
        with untouched(self.model):
            for module in self._around:
                forward = partial(self._forward, module, module.forward)
                cast(Any, module).forward = forward
            for i, x in enumerate(self.batches):
                self._calls, self._memory = {}, self._memories[i]
                outputs.append(self.model(x))
                if self._memory is None:
                    continue
                self._forget_overwritten(self._memory)
                size = _bytes_of(self._memory.values())
                if size > left:
                    self._memories[i] = None
                else:
                    left -= size
        self._memory = None
        return outputs

    def _forward(
        self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        plain = bool(kwargs) or not all(isinstance(a, Tensor) for a in args)
        if self._memory is None or plain:
            return self._masked(module, forward(*args, **kwargs))
        index = (module, self._calls.get(module, 0))
        self._calls[module] = index[1] + 1
        old = self._memory.get(index)
        if old is not None and not old.is_intact():
            old = None
        contents, held = self._contents_of(module, args, old)
        if old and contents and not old.writes and module not in self._watched:
            if old.contents == contents and self._is_current(module, old):
                return self._numbered(self._own(index, old.out), old.content)
            if type(module).forward is nn.Sequential.forward:
                forward = partial(self._rest_of_chain, module, contents[0])
        versions = [a._version for a in args]
        out = self._masked(module, forward(*args))
        if not isinstance(out, Tensor):
            return out
        content = self._content(out)
        if content is None:
            content = self._content_of_output(module, out, old)
            self._numbered(out, content)
        writes = versions != [a._version for a in args]
        changed, off = self._changed.get(module, 0), self._off.get(module)
        own = self._own(index, out)
        self._memory[index] = _Call(contents, held, own, content, changed, off, writes)
        return out

    def _rest_of_chain(self, chain: nn.Module, content: int, x: Tensor) -> Any:
        """Run the children of a Sequential from the first that a change reaches.

        What is between two of them nobody else reads, so that those before need not
        even return what they did, or write into what they get.
        """
        memory = cast(dict[_Index, _Call], self._memory)
        children = cast(list[nn.Module], [*chain._modules.values()])
        last: _Index | None = None
        while children:
            index = (children[0], self._calls.get(children[0], 0))
            call = memory.get(index)
            changed = self._changed.get(children[0], 0)
            if not call or call.contents != (content,) or call.changed != changed:
                break
            if not call.is_intact():
                break
            last, content = index, call.content
            self._calls[children.pop(0)] = index[1] + 1
        if last is not None:
            x = self._numbered(self._own(last, memory[last].out), content)
        for child in children:
            x = child(x)
        return x

    def _contents_of(
        self, module: nn.Module, args: tuple[Tensor, ...], old: _Call | None
    ) -> tuple[tuple[int, ...] | None, dict[int, Tensor]]:
        """Numbers of a module's arguments, and those that have to be held."""
        numbers: list[int] = []
        held: dict[int, Tensor] = {}
        for i, arg in enumerate(args):
            number = self._content(arg)
            if number is None:
                if module not in self._heavy:
                    return None, {}
                like = old.held.get(i) if old else None
                if like is not None and _equal(arg, like):
                    held[i], number = like, self._content(like)
                else:
                    held[i] = arg
                number = number or next(self._numbers)
                self._numbered(arg, number)
            elif old and i in old.held and self._content(old.held[i]) == number:
                held[i] = old.held[i]
            numbers.append(number)
        return tuple(numbers), held

    def _content_of_output(
        self, module: nn.Module, out: Tensor, old: _Call | None
    ) -> int:
        """The old number, where equal outputs are likely and it is so; else a new."""
        layer = module in self._heavy and not any(True for _ in module.children())
        if old is None or layer or not _equal(out, old.out):
            return next(self._numbers)
        return old.content

    def _is_current(self, module: nn.Module, old: _Call) -> bool:
        """Whether masks are as they were; of a site, more are applied to its output."""
        changed = self._changed.get(module, 0)
        if old.changed == changed:
            return True
        off = self._off.get(module)
        if off is None:
            return False
        was = torch.zeros_like(off) if old.off is None else old.off
        if (was & ~off).any():
            return False
        units = (off & ~was).nonzero().flatten()
        if old.out.index_select(unit_axis(module), units).any():
            old.remember(self._masked(module, old.out), next(self._numbers), off)
        old.off, old.changed = off, changed
        return True

    def _masked(self, module: nn.Module, out: Any) -> Any:
        off = self._off.get(module)
        if off is None:
            return out
        return out.masked_fill(along_units(off, module, out), 0)

    def _own(self, index: _Index, out: Tensor) -> Tensor:
        return out.clone() if index in self._copied else out

    def _numbered(self, tensor: Tensor, content: int) -> Tensor:
        self._contents[tensor] = (content, tensor._version)
        return tensor

    def _content(self, tensor: Tensor) -> int | None:
        """Number of a tensor's content; None if it has none, or was written into."""
        content, version = self._contents.get(tensor, (None, 0))
        return content if version == tensor._version else None

    def _forget_overwritten(self, memory: dict[_Index, _Call]) -> None:
        for index in [i for i, call in memory.items() if not call.is_intact()]:
            self._copied.add(index)
            del memory[index]


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def _bytes_of(calls: Iterable[_Call]) -> int:
    """Bytes of what is remembered, each piece of memory once."""
    sizes: dict[int, int] = {}
    for call in calls:
        for tensor in (*call.held.values(), call.out):
            start = tensor.data_ptr()
            sizes[start] = max(sizes.get(start, 0), tensor.nbytes)
    return sum(sizes.values())
