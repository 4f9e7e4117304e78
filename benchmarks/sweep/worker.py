"""A run within a process of its own, which ends when the sweep does.

``python -m benchmarks.sweep.worker LOG WORD...`` carries out the command of these words
and is stopped as by Ctrl-C when its standard input is closed: also by the death of the
process at the other end, however that came about.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from benchmarks.__main__ import main
from benchmarks.sweep.executor import GRACE


def carry_out(words: Sequence[str], log: Path) -> int:
    """Carry out a command, and keep what it says in a file.

    Args:
        words: What stands after ``python -m benchmarks``.
        log: The file, which is appended to.

    Returns:
        Exit code of the command; 1 if it raised an error.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a", encoding="utf-8", buffering=1) as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):
        print("$", shlex.join(["python", "-m", "benchmarks", *words]))
        try:
            return main(words)
        except Exception:  # noqa: BLE001 (said in the log, and by the exit code)
            traceback.print_exc()
            return 1


def stop_with_parent() -> None:
    """Stop this process as soon as its standard input is closed."""

    def watch() -> None:
        # not sys.stdin.read, which holds a lock that the end of Python waits for
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    stop_with_parent()
    sys.exit(carry_out(sys.argv[2:], Path(sys.argv[1])))
