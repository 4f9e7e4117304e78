"""Loops that train take turns, epoch by epoch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

#: Trains a number of epochs, each within the context that it is given.
Loop = Callable[["Turn"], None]


class Turn:
    """One side's part: only one side runs at any time.

    Attributes:
        seconds: Of each of its epochs.
    """

    def __init__(self, device: torch.device) -> None:
        """Wait for the first turn."""
        self.seconds: list[float] = []
        self._device = device
        self._go = threading.Event()
        self._next: Turn = self

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Measure one epoch, after all others have run one of theirs."""
        self._hand_over()
        self._wait()
        start = self._now()
        yield
        self.seconds.append(self._now() - start)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _hand_over(self) -> None:
        self._next._go.set()

    def _wait(self) -> None:
        self._go.wait()
        self._go.clear()

    def _leave(self, everyone: Sequence[Turn]) -> None:
        """Be left out from now on."""
        for turn in everyone:
            if turn._next is self:
                turn._next = self._next
        self._hand_over()


def in_turns(loops: Sequence[Loop], device: torch.device) -> list[list[float]]:
    """Run loops in turns: what one does before, in and after an epoch, it does alone.

    Args:
        loops: Each enters ``turn.epoch()`` around each of its epochs.
        device: What is waited for at the ends of an epoch.

    Returns:
        Seconds of the epochs, for each loop.

    Raises:
        Exception: What a loop raised; the others end first.
    """
    turns = [Turn(device) for _ in loops]
    for turn, after in zip(turns, [*turns[1:], turns[0]], strict=True):
        turn._next = after
    errors: list[BaseException] = []
    n_threads = torch.get_num_threads()

    def run(loop: Loop, turn: Turn) -> None:
        turn._wait()
        torch.set_num_threads(n_threads)  # of OpenMP, which counts for each thread
        try:
            loop(turn)
        except BaseException as error:  # noqa: BLE001 (raised again below)
            errors.append(error)
        finally:
            turn._leave(turns)

    pairs = zip(loops, turns, strict=True)
    threads = [threading.Thread(target=run, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    turns[0]._go.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [turn.seconds for turn in turns]
