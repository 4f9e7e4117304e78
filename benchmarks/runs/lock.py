"""One process at a time in the folder of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.names import UsageError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder while in the block.

    The operating system holds the lock, so it ends with the process however that dies;
    the file ``.lock`` that is left then locks nothing.

    Args:
        folder: Of a run; made if need be, and removed again if nothing was written.

    Yields:
        Nothing.

    Raises:
        UsageError: If another process is in such a block.
    """
    from filelock import FileLock, Timeout

    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(
            f"{folder} is being written by another process; wanted its end, or "
            "another --out"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is ours
        lock.release()
        for empty in made:
            with suppress(OSError):  # results lie there
                empty.rmdir()
