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
import reprlib
import sys
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
    def accuracy(self) -> Path:
        """The matrix of accuracies."""
        return self.path / "accuracy.csv"

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
        return path.exists() and bool(_read_json(path).get("finished"))

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
        write_atomically(self.accuracy, matrix_to_csv(matrix))
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

    Raises:
        UsageError: If the file cannot be read, or holds something else than numbers.

    Example:
        >>> path = getfixture("tmp_path") / "accuracy.csv"
        >>> write_atomically(path, matrix_to_csv([[0.25, None]]))
        >>> read_matrix(path)
        [[0.25, None]]
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[1:]
        return [[float(cell) if cell else None for cell in row[1:]] for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path}: {error}; wanted a matrix of accuracies") from error


def read_runs(roots: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Read every run below some folders, each once, in the order of paths.

    A damaged one is left out, with a line on the standard error output.

    Args:
        roots: Folders of results, of one recipe or of one run.

    Yields:
        What :func:`read_run` reads.

    Raises:
        UsageError: If a folder does not exist, or there are runs, but all are damaged.
    """
    seen: set[Path] = set()
    damaged: list[UsageError] = []
    for root in roots:
        if not root.is_dir():
            raise UsageError(f"no folder {root}, wanted one that a run has written")
        for path in sorted(set(root.resolve().rglob("run.json")) - seen):
            seen.add(path)
            try:
                run = read_run(path.parent)
            except UsageError as error:
                damaged.append(error)
            else:
                yield run
    if damaged and len(damaged) == len(seen):
        raise damaged[0]
    for error in damaged:
        print(f"left out: {error}", file=sys.stderr)


def read_run(folder: Path) -> dict[str, Any]:
    """Read one run.

    Args:
        folder: Its folder.

    Returns:
        The contents of its ``run.json``, with the metrics of its ``accuracy.csv`` that
        older runs lack, and the folder under ``"folder"``.

    Raises:
        UsageError: If one of the files is damaged, or they do not fit together.
    """
    from pydantic import ValidationError

    from benchmarks.runs.schema import RunRecord

    path, table = folder / "run.json", folder / "accuracy.csv"
    run = _read_json(path)
    try:
        RunRecord.model_validate(run)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][:2])  # then kinds of a union
        if first["type"] == "missing":
            raise UsageError(f"{path} has no {name}; wanted all of a run") from error
        seen, wanted = reprlib.repr(first["input"]), first["msg"].rpartition(" be ")[2]
        raise UsageError(f"{path}: {name} is {seen}; wanted {wanted}") from error
    if table.exists():
        run["metrics"] = {**_metrics(table, run), **run["metrics"]}
    return {**run, "folder": str(folder)}


def _metrics(path: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    matrix, images = read_matrix(path), run["test_images"]
    n, width = run["experiences_finished"], len(images)
    if len(matrix) != n:
        raise UsageError(f"{path} has {len(matrix)} rows; wanted {n} as run.json says")
    for i, row in enumerate(matrix):
        if len(row) != width:
            raise UsageError(
                f"{path}: row {i} has {len(row)} accuracies; wanted {width} as "
                "run.json says"
            )
        for accuracy in row:
            if accuracy is not None and not 0 <= accuracy <= 1:
                raise UsageError(f"{path}: row {i} has {accuracy}; wanted 0 to 1")
    try:
        return paper_metrics(matrix, images)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not JSON ({error}), wanted a run.json") from error
    if not isinstance(record, dict) or "recipe" not in record:
        raise UsageError(f'{path} has no "recipe", wanted a run.json of this package')
    return record
