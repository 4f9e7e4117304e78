"""Avalanche's loggers, made to be stopped and resumed.

A killed run has logged part of an experience that its checkpoint does not know. The
text and CSV loggers say with ``state_dict`` how long their files are, and cut them back
to that length with ``load_state_dict``; then they end up as if the run had never
stopped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from avalanche.core import CLExperience
from avalanche.logging import BaseLogger, CSVLogger, TextLogger, WandBLogger


class LogFile:
    r"""A text file of one run, which can be cut back to an earlier length.

    Nothing happens to the file before the first text is written: it is begun anew then,
    unless `resume` was called. Each text reaches the file at once; the file is open
    only meanwhile.

    Args:
        path: The file; its folder is made when needed.
        header: First line of a new file, with its end; empty for none.

    Attributes:
        length: Bytes of this run so far, those before it was resumed included.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log.txt"
        >>> first = LogFile(path)
        >>> first.write("saved\n")
        >>> length = first.length
        >>> first.write("lost\n")
        >>> again = LogFile(path)
        >>> again.resume(length)
        >>> again.write("new\n")
        >>> path.read_text()
        'saved\nnew\n'
    """

    def __init__(self, path: Path, header: str = "") -> None:
        self.path = path
        self.header = header
        self.length = 0

    def write(self, text: str) -> None:
        """Append some text."""
        if self.length == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            text = self.header + text
        with self.path.open("ab") as file:
            self.length += file.write(text.encode())

    def flush(self) -> None:
        """Do nothing: no text is held back."""

    def close(self) -> None:
        """Do nothing: the file is not left open."""

    def resume(self, length: int) -> None:
        """Go on after an earlier part of the run.

        Args:
            length: Bytes to keep, >= 0; what follows them is lost.
        """
        size = self.path.stat().st_size if self.path.exists() else 0
        self.length = min(length, size)
        if self.length < size:
            os.truncate(self.path, self.length)


class ResumableTextLogger(TextLogger):
    """Avalanche's plain lines, in a file.

    It writes no time of day. Between experiences it keeps the length of the file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(file=LogFile(path))

    def state_dict(self) -> dict[str, Any]:
        """Return the length of the file, in bytes."""
        return {"length": self.file.length}

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Cut the file back.

        Args:
            state: What `state_dict` returned.
            experiences: Those trained so far; not needed.
        """
        self.file.resume(state["length"])


class ResumableCSVLogger(CSVLogger):
    """Avalanche's two CSV files, which its own logger empties when it is made.

    Between experiences it keeps the lengths of the files, and the last values that it
    has seen and will print again.

    Args:
        folder: Folder of ``training_results.csv`` and ``eval_results.csv``.
    """

    _KEPT = ("training_exp_id", "in_train_phase", "val_acc", "val_loss")

    def __init__(self, folder: Path) -> None:
        BaseLogger.__init__(self)  # CSVLogger's opens, and so empties, the files
        self.log_folder = folder
        self.training_exp_id = self.in_train_phase = None
        self.val_acc = self.val_loss = 0
        self.training_file = LogFile(
            folder / "training_results.csv",
            "training_exp,epoch,training_accuracy,val_accuracy,training_loss,val_loss\n",
        )
        self.eval_file = LogFile(
            folder / "eval_results.csv",
            "eval_exp,training_exp,eval_accuracy,eval_loss,forgetting\n",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the lengths of the files, in bytes, and the values kept."""
        kept = {name: getattr(self, name) for name in self._KEPT}
        lengths = {
            "training_length": self.training_file.length,
            "eval_length": self.eval_file.length,
        }
        return {**kept, **lengths}

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Cut the files back.

        Args:
            state: What `state_dict` returned.
            experiences: Those trained so far; not needed.
        """
        self.training_file.resume(state["training_length"])
        self.eval_file.resume(state["eval_length"])
        for name in self._KEPT:
            setattr(self, name, state[name])


class ResumableWandBLogger(WandBLogger):
    """Avalanche's W&B logger, for numbers only and with a run that can be resumed.

    Avalanche's own asks W&B for two names that it no longer has (``util.generate_id``
    and ``viz``). The id of the run is kept beside its results, so that a resumed run
    goes on in W&B; W&B drops what it is told again of an interrupted experience.

    Args:
        folder: Folder of the run; W&B's files go to ``wandb/`` below it.
        run_name: Name of the run in W&B.
    """

    def __init__(self, folder: Path, *, run_name: str) -> None:
        file = folder / "wandb_run_id.txt"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(uuid4().hex)
        super().__init__(
            project_name="avalanche_ext",
            run_name=run_name,
            dir=folder,
            params={"id": file.read_text(), "resume": "allow"},
        )

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Log a number; anything else is left out."""
        self.step = x_plot
        if isinstance(value, int | float):
            self.wandb.log({name: value}, step=x_plot)
