"""The folder that a run leaves behind: where its files lie, and how they are written.

``<out>/<recipe>/<seed>/`` holds ``config.yaml`` (the options), ``run.json`` (what was
run, on what, and the figures), ``accuracy.csv`` (the matrix experience x experience),
``checkpoint.pt``, the output of the loggers and, after the last experience of methods
that have some to show, ``pictures/*.png``. Each file is written beside its place
and moved there, so that a kill leaves the old file or the new one, never half of one.
From the last ``run.json`` until the pictures are written, an empty ``.drawing`` lies
there: a kill in between is thus known to `RunFolder.is_finished`.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.names import UsageError
from benchmarks.runs.accuracy_matrix import Matrix, paper_metrics


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The folder of one run.

    Args:
        out: Folder of all results.
        recipe: Name of the recipe.
        seed: Seed of the run.

    Example:
        >>> RunFolder(out=Path("results"), recipe="naive", seed=3).path.as_posix()
        'results/naive/3'
    """

    out: Path
    recipe: str
    seed: int

    @property
    def path(self) -> Path:
        """The folder itself; :meth:`prepare` makes it."""
        return self.out / self.recipe / str(self.seed)

    @property
    def config(self) -> Path:
        """The options, as YAML that ``--config`` reads."""
        return self.path / "config.yaml"

    @property
    def checkpoint(self) -> Path:
        """The state after the last finished experience."""
        return self.path / "checkpoint.pt"

    @property
    def holds_results(self) -> bool:
        """Whether an experience was finished here, so that there is work to lose."""
        names = ("checkpoint.pt", "run.json", "accuracy.csv")
        return any((self.path / name).exists() for name in names)

    @property
    def drawing(self) -> Path:
        """An empty file; it exists while pictures are still to be written."""
        return self.path / ".drawing"

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do here.

        Pictures are not made without the checkpoint that they are made of.
        """
        path = self.path / "run.json"
        if self.drawing.exists() and self.checkpoint.exists():
            return False
        return path.exists() and bool(_read_run(path).get("finished"))

    def prepare(self, config: str) -> None:
        """Make the folder and save the options.

        Args:
            config: The options, as YAML text.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.config, config)

    def write(self, matrix: Matrix, record: Mapping[str, Any]) -> None:
        """Save the matrix and the record of the run so far.

        Args:
            matrix: One row for each finished experience.
            record: Contents of ``run.json``, plain data.
        """
        write_atomically(self.path / "accuracy.csv", matrix_to_csv(matrix))
        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
        write_atomically(self.path / "run.json", text)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole.

    Args:
        path: The file; its folder exists.
        content: The new contents.

    Raises:
        OSError: If the disk is full or not writable; the old file is then intact.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def matrix_to_csv(matrix: Matrix) -> str:
    """Lay out a matrix of accuracies as text.

    Args:
        matrix: E rows of accuracies in [0, 1]; ``None`` where nothing was evaluated.

    Returns:
        A header and a line for each row; every digit is kept, ``None`` is left empty.

    Example:
        >>> print(matrix_to_csv([[1.0, None], [0.5, 1.0]]), end="")
        trained_experience,test_0,test_1
        0,1.0,
        1,0.5,1.0
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    width = len(matrix[0]) if matrix else 0
    writer.writerow(["trained_experience", *(f"test_{j}" for j in range(width))])
    writer.writerows([i, *row] for i, row in enumerate(matrix))
    return text.getvalue()


def read_matrix(path: Path) -> list[list[float | None]]:
    """Read what :func:`matrix_to_csv` wrote.

    Args:
        path: An ``accuracy.csv``.

    Returns:
        One row for each finished experience.

    Example:
        >>> path = getfixture("tmp_path") / "accuracy.csv"
        >>> write_atomically(path, matrix_to_csv([[0.25, None]]))
        >>> read_matrix(path)
        [[0.25, None]]
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [[float(cell) if cell else None for cell in row[1:]] for row in rows]


def read_runs(roots: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Read every ``run.json`` below some folders, each once, in the order of paths.

    Args:
        roots: Folders of results, of one recipe or of one run.

    Yields:
        The contents of each ``run.json``, with its folder under ``"folder"``.

    Raises:
        UsageError: If a folder does not exist, or a ``run.json`` is not one of ours.
    """
    seen: set[Path] = set()
    for root in roots:
        if not root.is_dir():
            raise UsageError(f"no folder {root}, wanted one that a run has written")
        for path in sorted(set(root.resolve().rglob("run.json")) - seen):
            seen.add(path)
            run = _read_run(path)
            matrix = path.with_name("accuracy.csv")
            if "metrics" in run and matrix.exists():  # older runs lack some
                found = paper_metrics(read_matrix(matrix), run["test_images"])
                run["metrics"] = {**found, **run["metrics"]}
            yield {**run, "folder": str(path.parent)}


def _read_run(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not JSON ({error}), wanted a run.json") from error
    if not isinstance(record, dict) or "recipe" not in record:
        raise UsageError(f'{path} has no "recipe", wanted a run.json of this package')
    return record
