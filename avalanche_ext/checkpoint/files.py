"""Reading and writing a file of tensors and plain data."""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path
from typing import Any

import torch


def write_atomically(path: Path, content: Any) -> None:
    """Write the file whole or not at all.

    A temporary file in the same folder is written, forced to the disk and renamed.
    On any error the old file stays as it is and the temporary one is removed.

    Args:
        path: Where to; the folder must exist.
        content: Tensors and plain data.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    path = path.resolve()  # a link stays a link
    # One fixed name, so that processes killed while saving leave one file behind.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:  # hides that the disk is full
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # not every system opens folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: Path) -> Any:
    """Content of a file, on the CPU; nothing in it is executed.

    Raises:
        Exception: Of many classes, if this is no such file or it is damaged.
    """
    with zipfile.ZipFile(path) as parts:  # torch itself does not look at checksums
        damaged = parts.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
    return torch.load(path, map_location="cpu", weights_only=True)
