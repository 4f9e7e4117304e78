"""How a run ends: finished, failed, or stopped by a person or a scheduler."""

from __future__ import annotations

import linecache
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from benchmarks.names import RunFailed, UsageError
from benchmarks.runs.options import Run


def execute_until_stopped(run: Run, command: str) -> int:
    """Carry out a run; if it does not come to its end, say how to go on with it.

    SIGTERM is treated like Ctrl-C. Nothing is saved at that moment, since everything
    up to the last finished experience is saved already.

    Args:
        run: Recipe and options.
        command: The command as typed.

    Returns:
        Exit code: 0; 1 if the disk is full, training diverged or the like; 130 after
        Ctrl-C, 143 after SIGTERM.

    Raises:
        UsageError: If the run cannot be started as given.
        Exception: Whatever else went wrong, after saying how to resume.
    """
    try:
        with sigterm_interrupts(), host_warnings_hidden():
            from benchmarks.runs.run import execute

            execute(run, command)
        return 0
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        print(f"\nstopped; {how_to_resume(run, command)}", file=sys.stderr)
        return 128 + number
    except (RunFailed, OSError) as error:
        print(f"error: {error}; {how_to_resume(run, command)}", file=sys.stderr)
        return 1
    except UsageError:
        raise
    except Exception as error:
        if raised_by_us(error):
            print(f"error: {error}; {how_to_resume(run, command)}", file=sys.stderr)
            return 1
        # a defect, or memory that ran out: its traceback follows
        print(f"failed; {how_to_resume(run, command)}", file=sys.stderr)
        raise


def raised_by_us(error: Exception) -> bool:
    """Whether an error is a message to people, such as that training diverged.

    Those are the ValueErrors that a ``raise`` statement of `avalanche_ext` raised. Any
    other, also a ValueError of Python or torch within our code, is a defect.

    Args:
        error: As caught.

    Returns:
        Whether its text is enough.
    """
    if not isinstance(error, ValueError):
        return False
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    ours = frame.f_globals.get("__name__", "").startswith("avalanche_ext.")
    text = linecache.getline(frame.f_code.co_filename, line)
    return ours and text.lstrip().startswith("raise ")


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise `KeyboardInterrupt`, with its number, while in the block."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def host_warnings_hidden() -> Iterator[None]:
    """Hide two warnings, while in the block, that a person can do nothing about.

    Avalanche announces changes of its own parts, at every call and past all filters;
    qpsolvers misses solvers that nothing here uses.
    """

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        parts = Path(filename).parts
        host = "avalanche" in parts and issubclass(category, DeprecationWarning)
        if not host and "qpsolvers" not in parts:
            shown(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        shown, warnings.showwarning = warnings.showwarning, show
        yield


def how_to_resume(run: Run, command: str) -> str:
    """Say what is saved, and which command goes on from there.

    Args:
        run: Recipe and options.
        command: The command as typed.

    Returns:
        Two lines.
    """
    if not run.folder.checkpoint.exists():
        return f"no experience was finished; start again with\n  {command}"
    saved = "the experiences finished so far are saved; resume with"
    resume = "" if run.settings.resume else " --resume"
    return f"{saved}\n  {command}{resume}"
