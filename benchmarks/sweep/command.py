"""The command line of a sweep. Importing this module loads neither torch nor Ray."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.runs.parser import (
    FREE_ON_RESUME,
    add_common_options,
    bare,
    canonical,
    make_parser,
    one_line,
)
from benchmarks.sweep.baselines import baseline_jobs, choose_baselines
from benchmarks.sweep.executor import Executor
from benchmarks.sweep.jobs import Plan
from benchmarks.sweep.words import read_pairs, read_seeds, split_values


def main(arguments: Sequence[str]) -> int:
    """Carry out the command.

    Args:
        arguments: What stands after ``sweep`` on the command line.

    Returns:
        Exit code: 0; 1 if a run failed; 128 + n after signal n.

    Raises:
        UsageError: If an option is wrong, for the sweep or for one of its runs; nothing
            was started then.
        SystemExit: After ``--help``.
    """
    parser = ArgumentParser(
        prog="python -m benchmarks sweep",
        description="Run recipes x overrides x seeds. A run that failed or was killed "
        "is tried again from its last finished experience, and the same command again "
        "runs only what is missing.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    add_common_options(parser.add_argument_group("options of every run"))
    common = parser.get_defaults().as_dict()
    _add_options(parser.add_argument_group("options of the sweep"))
    try:
        values = parser.parse_args([canonical(a, parser) for a in arguments]).as_dict()
    except ArgumentError as error:
        _refuse_option_of_recipes(arguments, error)
        raise UsageError(one_line(error, parser)) from error
    values = {name: bare(value) for name, value in values.items()}
    if values["threads"] is None:
        values["threads"] = values["cpus"]
    out = Path(values["out"])
    words = as_words({name: values[name] for name in common if name != "out"}, common)
    plan = Plan(
        recipes=values["recipes"],
        seeds=read_seeds(values["seeds"]),
        overrides={
            name: split_values(text)
            for name, text in read_pairs("--override", values["override"]).items()
        },
        fixed=read_pairs("--set", values["set"]),
        class_orders=values["class_orders"],
        common=words,
        out=out,
    )
    jobs = plan.jobs()
    if values["baselines"] is not None:
        # what is small and what is said of the images, they take over from the run
        shared = {n: values[n] for n in ("device", "threads", "dataset_root")}
        places = as_words({**shared, "download": values["download"]}, common)
        for job in list(jobs):
            chosen = choose_baselines(values["baselines"], job)
            jobs += baseline_jobs(job, chosen, places)
    from benchmarks.sweep.drive import sweep

    return sweep(jobs, _choose_executor(values), retries=values["retries"], out=out)


def _refuse_option_of_recipes(arguments: Sequence[str], error: ArgumentError) -> None:
    """Say how an option that recipes have, and a sweep has not, is given to a sweep."""
    unknown = re.match(r"unrecognized arguments: (--[^\s=]+)", str(error))
    if unknown is None:
        return
    name = unknown[1].removeprefix("--").replace("-", "_")
    if name in FREE_ON_RESUME | {"seed"}:  # of every run
        return
    kinds = (recipe for recipe in RECIPES.values() if not recipe.is_row)
    if any(name in make_parser(kind).get_defaults() for kind in kinds):
        words = [w for a in arguments for w in a.partition("=")[::2] if w]
        value = [*words, "--"][words.index(unknown[1]) + 1]
        pair = f"{name}={'true' if value.startswith('--') else value}"
        raise UsageError(
            f"{unknown[1]} is an option of a recipe; wanted --set {pair}"
        ) from error


def _add_options(group: Any) -> None:
    add = group.add_argument
    add("recipes", nargs="+", metavar="RECIPE", help="name, pattern, or RECIPE/PATTERN")
    add("--seeds", type=str, default="0", help="e.g. 0-4 or 0,2,5")
    pairs: dict[str, Any] = {"action": "append", "default": [], "type": str}
    add(
        "--override",
        metavar="KEY=V,V",
        help="vary an option of the recipes; may be repeated",
        **pairs,
    )
    add(
        "--set",
        metavar="KEY=V",
        help="set an option of the recipes; may be repeated",
        **pairs,
    )
    add(
        "--class-orders",
        action="store_true",
        help="let the class order of a run follow its seed (its stream_seed)",
    )
    add(
        "--baselines",
        nargs="*",
        metavar="NAME",
        help="afterwards, baselines in the frame of each run; all that apply",
    )
    add("--jobs", type=PositiveInt | None, help="runs at once; without Ray then")
    add("--address", type=str, help="of a Ray cluster; null: one on this machine")
    add("--cpus", type=PositiveInt, default=1, help="CPUs, so threads, of a run")
    add("--gpus", type=NonNegativeFloat, default=0.0, help="GPUs of a run, on Ray")
    add("--retries", type=NonNegativeInt, default=2, help="of a run that failed")


def as_words(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Write options as a command line does.

    Args:
        values: Value by name.
        defaults: Those that need not be written.

    Returns:
        Words.

    Example:
        >>> as_words({"smoke": True, "note": "", "device": "cpu"}, {"note": ""})
        ['--smoke', '--device=cpu']
    """
    words: list[str] = []
    for name, value in values.items():
        if value == defaults.get(name):
            continue
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, list):
            words += [f"--{name}", *value]
        else:
            words.append(f"--{name}={value}")
    return words


def _choose_executor(values: Mapping[str, Any]) -> Executor:
    """Ray where it is installed and ``--jobs`` does not say otherwise."""
    jobs, address = values["jobs"], values["address"]
    if jobs and address:
        raise UsageError("--jobs and --address are given; wanted one of them")
    found = find_spec("ray") is not None
    if address and not found:
        raise UsageError(
            "--address is given, but Ray is not installed; wanted the extra sweep: "
            "pip install -e '.[sweep]'"
        )
    if found and not jobs:
        from benchmarks.sweep.on_ray import OnRay

        return OnRay(
            address=address,
            cpus=values["cpus"],
            gpus=values["gpus"],
            out=Path(values["out"]),
        )
    if values["gpus"]:
        raise UsageError(
            f"--gpus is {values['gpus']:g}; wanted Ray for it (the extra sweep, and no "
            "--jobs): processes share the GPUs that CUDA_VISIBLE_DEVICES names"
        )
    from benchmarks.sweep.processes import Processes

    reason = "" if found else " (Ray is not installed)"
    return Processes(n_slots=jobs or 1, python=sys.executable, why=reason)
