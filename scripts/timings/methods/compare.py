"""A method beside a bare loop and Avalanche's nearest strategy: all that is measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from timings.measure import Figure
from timings.memory import in_own_process, peak_bytes
from timings.methods.method import Frame, Method, Run
from timings.methods.turns import Loop, Turn, in_turns
from timings.watch import Watch, around_epochs

SIDES = ("ours", "bare", "theirs")
AT_MOST_BARE = {"cpu": 1.15, "cuda": 1.25}
AT_MOST_INFERENCE = 1.2
WATCHED_EPOCHS = 3


def compare(method: Method, frame: Frame, repeats: int) -> dict[str, Any]:
    """Measure one method.

    Args:
        method: Which.
        frame: What the sides share.
        repeats: Epochs, and evaluations, of each side that count; one more does not.

    Returns:
        Seconds of each epoch and evaluation, bytes, shares of time, and under
        ``"figures"`` the medians of ratios, see `paired`, as `Figure`.
    """
    ours, theirs = (trained(make, frame) for make in (method.ours, method.theirs))
    bare = method.bare(frame)
    bare_images: list[int] = []
    epochs = in_turns(
        [
            second_experience(ours, repeats + 1),
            _again(lambda: bare_images.append(bare()), repeats + 1),
            second_experience(theirs, repeats + 1),
        ],
        frame.device,
    )
    inference = method.inference(ours)
    evaluations = in_turns(
        [
            _again(lambda: ours.strategy.eval(ours.test_stream), repeats + 1),
            _again(inference, repeats + 1),
        ],
        frame.device,
    )
    found = {
        "method": method.name,
        "what": method.what,
        "nearest": method.nearest,
        "batch_size": method.batch_size,
        "new_images": len(ours.experiences[1].dataset),
        "bare_images": bare_images[0],
        "epoch_seconds": _counted(SIDES, epochs),
        "evaluation_seconds": _counted(("ours", "bare"), evaluations),
        "kept_bytes": {"ours": _kept(ours), "theirs": _kept(theirs)},
        "outside": outside(method, frame),
    }
    return {**found, "figures": _figures(found, frame.device)}


def trained(make: Callable[..., Run], frame: Frame) -> Run:
    """A run after its first experience."""
    run = make(frame, ())
    run.strategy.train(run.experiences[0])
    return run


def outside(method: Method, frame: Frame) -> dict[str, float]:
    """Time of ours outside of a mini-batch's arithmetic, see `Watch`.

    Args:
        method: Which.
        frame: Its frame.

    Returns:
        ``epoch`` and ``train``, shares of an epoch (median; the first does not count)
        and of the whole call that trains ``epochs`` of the second experience; and
        ``around_seconds``, what that call takes before, between and after its epochs.
    """
    run = trained(method.ours, frame)
    watch = Watch(frame.device)
    watch.follow_arithmetic(run.strategy)
    totals: list[float] = []
    shares: list[float] = []

    @contextmanager
    def epoch() -> Iterator[None]:
        start, before = watch.now(), watch.seconds
        yield
        totals.append(watch.now() - start)
        shares.append(1 - (watch.seconds - before) / totals[-1])

    around_epochs(run.strategy, epoch)
    run.strategy.train_epochs = WATCHED_EPOCHS
    start = watch.now()
    run.strategy.train(run.experiences[1])
    whole = watch.now() - start
    return {
        "epoch": statistics.median(shares[1:]),
        "train": 1 - watch.seconds / whole,
        "epochs": WATCHED_EPOCHS,
        "around_seconds": whole - sum(totals),
    }


def peaks(name: str, frame: Frame) -> dict[str, int]:
    """Peak memory of each side, each in a process of its own.

    Args:
        name: Of a method in the registry.
        frame: Its frame.

    Returns:
        Bytes by side: from before data and network are made until an epoch of the
        second experience has been trained, with all that a strategy does around it.
    """
    return {side: in_own_process(_peak, name, side, frame) for side in SIDES}


def _peak(name: str, side: str, frame: Frame) -> int:
    from timings.methods.registry import METHODS

    return peak(next(m for m in METHODS if m.name == name), side, frame)


def peak(method: Method, side: str, frame: Frame) -> int:
    """Peak memory of one side in this process.

    Args:
        method: Which.
        side: One of `SIDES`.
        frame: Its frame.

    Returns:
        Bytes.
    """
    from avalanche.training import supervised  # noqa: F401  what is loaded once

    import avalanche_ext  # noqa: F401

    images = torch.zeros(1, 3, 8, 8, device=frame.device)
    layer = torch.nn.Conv2d(3, 3, 3, device=frame.device)
    layer(images).sum().backward()

    def run() -> None:
        if side == "bare":
            method.bare(frame)()
        else:
            after = trained(getattr(method, side), frame)
            after.strategy.train(after.experiences[1])

    return peak_bytes(run, frame.device)


def second_experience(run: Run, n_epochs: int) -> Loop:
    """Train the second experience, epoch by epoch in turns.

    Args:
        run: Trained on the first.
        n_epochs: How many.
    """

    def loop(turn: Turn) -> None:
        run.strategy.train_epochs = n_epochs
        around_epochs(run.strategy, turn.epoch)
        run.strategy.train(run.experiences[1])

    return loop


def _again(call: Callable[[], Any], n: int) -> Loop:
    def loop(turn: Turn) -> None:
        for _ in range(n):
            with turn.epoch():
                call()

    return loop


def _counted(
    names: Sequence[str], seconds: list[list[float]]
) -> dict[str, list[float]]:
    return {name: each[1:] for name, each in zip(names, seconds, strict=True)}


def _kept(run: Run) -> dict[str, int]:
    from avalanche_ext.metrics.memory import memory_bytes

    return memory_bytes(run.strategy)


def paired(seconds: Sequence[float], reference: Sequence[float]) -> float:
    """Median of the ratios of turns: what slows a machine for long slows both.

    Args:
        seconds: Of one side, by turn.
        reference: Of the other.
    """
    return statistics.median(a / b for a, b in zip(seconds, reference, strict=True))


def _figures(found: dict[str, Any], device: torch.device) -> list[Figure]:
    name, nearest = found["method"], found["nearest"]
    epoch, evaluation = found["epoch_seconds"], found["evaluation_seconds"]
    return [
        Figure(
            "training",
            paired(epoch["ours"], epoch["bare"]),
            AT_MOST_BARE[device.type],
            False,
            f"an epoch of {name}, over a bare loop of the same arithmetic",
        ),
        Figure(
            "gain",
            paired(epoch["theirs"], epoch["ours"]),
            1,
            True,
            f"an epoch of Avalanche's {nearest} on the same new images, over {name}'s",
        ),
        Figure(
            "evaluation",
            paired(evaluation["ours"], evaluation["bare"]),
            AT_MOST_INFERENCE,
            False,
            "evaluation of the test stream, over bare inference",
        ),
    ]
