"""What a sweep is made of: one job a run, each checked before any of them starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from benchmarks.names import UsageError
from benchmarks.recipes import Recipe
from benchmarks.recipes.find import find_recipes
from benchmarks.runs.options import Run, read_options
from benchmarks.runs.parser import FREE_ON_RESUME, parse
from benchmarks.runs.results import RunFolder
from benchmarks.sweep.words import folder_name

CLASS_ORDER = "stream_seed"


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One run of a sweep.

    Args:
        command: Words after ``python -m benchmarks``.
        folder: Where the run leaves its results.
        title: Recipe, seed and what else tells it from the other jobs, for people.
        options: The recipe's own options; none if they are those of `after`.
        after: The job that must have finished before, as its folder is read.
    """

    command: Sequence[str]
    folder: RunFolder
    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    after: Job | None = None

    @property
    def log(self) -> Path:
        """What the run has to say, in all attempts."""
        return self.folder.path / "output.txt"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run.

    Args:
        recipes: Names or patterns of recipes; ``BASE/PATTERN`` is of the rows of one.
        seeds: Seeds of the training.
        overrides: Values of each option that is varied.
        fixed: Value of each option that is set for all.
        class_orders: Whether the seed of a run is that of its class order also.
        common: Words of the command line for all runs.
        out: Folder of all results.
    """

    recipes: Sequence[str]
    seeds: Sequence[int] = (0,)
    overrides: Mapping[str, Sequence[str]]
    fixed: Mapping[str, str]
    class_orders: bool = False
    common: Sequence[str] = ()
    out: Path = Path("results")

    def jobs(self) -> list[Job]:
        """Make the jobs, and check that each can be started as asked.

        Returns:
            A job for each recipe, combination of overrides and seed; seeds vary last,
            so that every recipe soon has a result.

        Raises:
            UsageError: If a name or a value is wrong for one of them, two would share
                a folder, or a folder holds results of other options.
        """
        self._refuse_contradiction()
        kinds = [
            (dict(zip(self.overrides, values, strict=True)), run)
            for recipe in find_recipes(self.recipes)
            for values in product(*self.overrides.values())
            for run in [self._parse(recipe, values)]
        ]
        found = [self._job(*kind, seed) for seed in self.seeds for kind in kinds]
        paths = Counter(job.folder.path for job in found)
        for path, n in paths.items():
            if n > 1:
                raise UsageError(f"{path} is the folder of {n} runs; wanted one each")
        return found

    def _refuse_contradiction(self) -> None:
        twice = set(self.overrides) & set(self.fixed)
        if self.class_orders:
            twice |= {CLASS_ORDER} & (set(self.overrides) | set(self.fixed))
        for name in sorted(twice):
            raise UsageError(
                f"{name} is given twice; wanted one of --override, --set and "
                "--class-orders"
            )

    def _parse(self, recipe: Recipe, values: Sequence[str]) -> Run:
        """Check a recipe with one combination of overrides; seeds need no check."""
        varied = dict(zip(self.overrides, values, strict=True))
        own = {**self.fixed, **varied}
        try:
            run = parse(recipe, [*_written(own), *self.common])
        except UsageError as error:
            raise UsageError(f"{recipe.name}: {error}") from error
        if self.class_orders:
            own[CLASS_ORDER] = ""
        for name in own:
            if name not in run.options:
                raise UsageError(
                    f"{name} is no option of {recipe.name} alone, so not of --override "
                    "or --set; options of every run, and --seeds, stand by themselves"
                )
        return run

    def _job(self, varied: Mapping[str, str], kind: Run, seed: int) -> Job:
        name = kind.recipe.name
        title = f"{name} {seed}"
        out, own, options = self.out, {**self.fixed, **varied}, dict(kind.options)
        if varied:
            out /= folder_name(varied)
            title += f" {out.name}"
        if self.class_orders:
            own[CLASS_ORDER], options[CLASS_ORDER] = str(seed), seed
        settings = replace(kind.settings, seed=seed, out=out)
        run = replace(kind, settings=settings, options=options)
        _refuse_other_options(run)
        places = ["--seed", str(seed), "--out", str(out), "--resume"]
        command = ["run", name, *_written(own), *self.common, *places]
        return Job(command=command, folder=run.folder, title=title, options=options)


def _written(options: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def _refuse_other_options(run: Run) -> None:
    """Refuse a folder in which something else was run, instead of calling it done."""
    if not run.folder.config.exists() or not run.folder.holds_results:
        return
    saved = read_options(run.folder.config)
    asked = yaml.safe_load(run.to_yaml())
    for name in sorted(saved.keys() & asked.keys() - FREE_ON_RESUME - {"out", "seed"}):
        if saved[name] != asked[name]:
            raise UsageError(
                f"{run.folder.path} holds a run with {name} {saved[name]}, but "
                f"{asked[name]} is asked for now; choose another --out"
            )
