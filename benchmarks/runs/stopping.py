"""How a run ends: finished, failed, or stopped by a person or a scheduler."""

from __future__ import annotations

import shlex
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from benchmarks.names import RunFailed, UsageError
from benchmarks.runs.options import Run, Settings


def execute_until_stopped(run: Run, command: str) -> int:
    """Carry out a run; if it does not come to its end, say how to go on with it.

    SIGTERM is treated like Ctrl-C. Nothing is saved at that moment, since everything
    up to the last finished experience is saved already.

    Args:
        run: Recipe and options.
        command: The command as typed.

    Returns:
        Exit code: 0; 1 if the disk is full or the like; 130 after Ctrl-C, 143 after
        SIGTERM.

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
    except Exception:  # a defect, or memory that ran out: its traceback follows
        print(f"failed; {how_to_resume(run, command)}", file=sys.stderr)
        raise


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
    return f"{saved}\n  {resume_command(run)}"


def resume_command(run: Run) -> str:
    """The command that goes on with a run; its options are in its folder.

    Args:
        run: Recipe and options.

    Returns:
        A line for a shell.
    """
    words = ["python", "-m", "benchmarks", "run", run.recipe.name]
    words += ["--seed", str(run.settings.seed)]
    if run.settings.out != Settings.out:
        words += ["--out", str(run.settings.out)]
    return shlex.join([*words, "--resume"])
