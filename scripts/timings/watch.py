"""Where the time of a strategy goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

#: What of a strategy is a mini-batch's own arithmetic: passes, loss and step...
PASSES = ("forward", "criterion", "backward", "optimizer_step")
#: ...and what plugins do in between: further losses, statistics, masks on gradients.
#: The rest is loading batches, calling the callbacks, all other callbacks, metrics.
CALLBACKS = (
    "before_forward",
    "after_forward",
    "before_backward",
    "after_backward",
    "before_update",
    "after_update",
)


class Watch:
    """Adds up the seconds that methods of some objects take.

    Args:
        device: What is waited for before and after each call.

    Attributes:
        seconds: So far; a call within another one counts once.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds = 0.0
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._inside = False

    def follow(self, owner: Any, *names: str) -> None:
        """Count more methods.

        Args:
            owner: Of them.
            names: Theirs.
        """
        for name in names:
            setattr(owner, name, self.watched(getattr(owner, name)))

    def follow_arithmetic(self, strategy: Any) -> None:
        """Count `PASSES` of a strategy, and `CALLBACKS` of its plugins but metrics.

        Args:
            strategy: Any of Avalanche's.
        """
        from avalanche.core import SupervisedPlugin

        self.follow(strategy, *PASSES)
        for plugin in strategy.plugins:
            if isinstance(plugin, SupervisedPlugin):
                self.follow(plugin, *(c for c in CALLBACKS if c in _own(plugin)))

    def now(self) -> float:
        """Seconds on a clock, once the device has done its work."""
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        return time.perf_counter()

    def watched(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, counted.

        Args:
            method: Any function.
        """

        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return method(*args, **kwargs)
            self._inside, start = True, self.now()
            try:
                return method(*args, **kwargs)
            finally:
                self._inside, self.seconds = False, self.seconds + self.now() - start

        return watched


def _own(plugin: Any) -> set[str]:
    """Names that a plugin's classes define, other than Avalanche's empty callbacks."""
    return {
        name
        for kind in type(plugin).__mro__
        if not kind.__module__.startswith("avalanche.core")
        for name in vars(kind)
    }


def around_epochs(
    strategy: Any, context: Callable[[], AbstractContextManager[Any]]
) -> None:
    """Enter a context at each epoch of a strategy, callbacks of all plugins within.

    Args:
        strategy: Any of Avalanche's.
        context: Called at the start of each epoch.
    """
    begin, end = strategy._before_training_epoch, strategy._after_training_epoch
    entered: list[AbstractContextManager[Any]] = []

    def before(**kwargs: Any) -> None:
        entered.append(context())
        entered[-1].__enter__()
        begin(**kwargs)

    def after(**kwargs: Any) -> None:
        end(**kwargs)
        entered.pop().__exit__(None, None, None)

    strategy._before_training_epoch = before
    strategy._after_training_epoch = after
