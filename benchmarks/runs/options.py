"""What is asked of a run: options of every run, and the recipe's own."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from benchmarks.names import UsageError
from benchmarks.recipes.recipe import Recipe
from benchmarks.runs.results import RunFolder

LARGEST_SEED = 2**32 - 1
"""What NumPy's generator takes."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options that every run has.

    Args:
        seed: Seeds Python, NumPy and torch after the benchmark is built; from 0 to
            `LARGEST_SEED`.
        device: ``"auto"`` is CUDA where there is one.
        threads: CPU threads of torch; ``None`` leaves them as they are.
        dataset_root: Folder of the data; ``None`` is Avalanche's own.
        download: Whether missing data may be downloaded.
        smoke: Whether this is the recipe's small size.
        resume: Whether to go on after the last finished experience.
        loggers: Names of loggers; ``None`` chooses by where the output goes.
        metrics: Names of further metrics, besides those of every run.
        eval_every: Evaluate and save after every so many-th experience, and the last;
            >= 1.
        out: Folder of all results.
        note: A remark, for instance which images these are; shown in the table.
        like: Folder of the run in whose frame this one is, ``<out>/<recipe>/<seed>``.
    """

    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    dataset_root: Path | None = None
    download: bool = False
    smoke: bool = False
    resume: bool = False
    loggers: Sequence[str] | None = None
    metrics: Sequence[str] | None = None
    eval_every: int = 1
    out: Path = Path("results")
    note: str = ""
    like: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One parsed command: which recipe, with which options.

    Args:
        recipe: The recipe.
        settings: Options of every run.
        options: The recipe's own options; all of them.
        changed: Names of those that differ from the recipe's protocol.
    """

    recipe: Recipe
    settings: Settings
    options: Mapping[str, Any]
    changed: Sequence[str]

    @property
    def folder(self) -> RunFolder:
        """Where the run leaves its results."""
        return RunFolder(
            out=self.settings.out, recipe=self.recipe.name, seed=self.settings.seed
        )

    @property
    def like(self) -> str | None:
        """Recipe of the run in whose frame this one is, as its folder tells."""
        folder = self.settings.like
        return None if folder is None else folder.resolve().parent.name

    def to_yaml(self) -> str:
        """All options, as ``--config`` reads them."""
        import yaml

        values = {f.name: getattr(self.settings, f.name) for f in fields(Settings)}
        del values["resume"]
        text = yaml.safe_dump(plain({**values, **self.options}), sort_keys=False)
        return (
            f"# python -m benchmarks run {self.recipe.name} --config THIS_FILE\n{text}"
        )


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce values to what JSON and YAML can hold: tuples to lists, paths to text.

    Args:
        values: Options by name.

    Returns:
        The same options.

    Example:
        >>> plain({"milestones": (80, 120), "out": Path("results")})
        {'milestones': [80, 120], 'out': 'results'}
    """
    return dict(json.loads(json.dumps(dict(values), default=str)))


def read_options(path: Path) -> dict[str, Any]:
    """Read the options of a run.

    Args:
        path: A file of YAML.

    Returns:
        Value by name; no value is checked.

    Raises:
        UsageError: If this is no such file.
    """
    import yaml

    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise UsageError(f"{path} is no YAML ({text}); wanted options") from error
    if not isinstance(options, dict):
        found = reprlib.repr(options)
        raise UsageError(f"{path} holds {found}; wanted options, such as seed: 0")
    return options
