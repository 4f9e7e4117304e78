"""The command line of a run: options of every run, and those of the recipe's signature.

Nothing heavy is imported here, so that ``--help`` takes a moment only.
"""

from __future__ import annotations

import re
from argparse import ArgumentError
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NotEmptyStr, PositiveInt

from benchmarks.names import UsageError, nearest
from benchmarks.recipes.recipe import Recipe
from benchmarks.runs.evaluation import LOGGERS, METRICS
from benchmarks.runs.numbers import Seed, refuse_infinite
from benchmarks.runs.options import Run, Settings, read_options
from benchmarks.runs.results import RunFolder
from benchmarks.runs.same_frame import like
from benchmarks.runs.wrong_value import in_plain_words
from benchmarks.streams import STREAMS

FREE_ON_RESUME = {
    "config",
    "resume",
    "device",
    "threads",
    "dataset_root",
    "download",
    "loggers",
    "like",
}
"""Options that say where a run takes place, not what it is: they may differ when a run
is resumed."""


class _Parser(ArgumentParser):
    """Names the file in which options are wrong."""

    def parse_path(self, path: Any, *arguments: Any, **options: Any) -> Namespace:
        read_options(Path(path))
        try:
            return super().parse_path(path, *arguments, **options)
        except ArgumentError as error:
            raise UsageError(f"{path}: {one_line(error, self)}") from error


def make_parser(recipe: Recipe) -> ArgumentParser:
    """Build the parser of one recipe.

    Args:
        recipe: The recipe.

    Returns:
        A parser that raises `argparse.ArgumentError` and leaves exiting to the caller.
    """
    parser = _Parser(
        prog=f"python -m benchmarks run {recipe.name}",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file of options")
    group = parser.add_argument_group("options of every run")
    add = group.add_argument
    add("--seed", type=Seed, default=0, help="seed of the training")
    add("--resume", action="store_true", help="go on after the last experience saved")
    add_common_options(group)
    parser.add_function_arguments(recipe.function, as_group=True)
    parser.set_defaults(dict(recipe.defaults))
    return parser


def add_common_options(group: Any) -> None:
    """Add the options of every run that many runs can share.

    Args:
        group: Group of arguments of a parser.
    """
    add = group.add_argument
    add(
        "--device",
        type=Literal["auto", "cpu", "cuda"],
        default="auto",
        help="auto: cuda where there is one",
    )
    add(
        "--threads",
        type=PositiveInt | None,
        help="CPU threads; null: torch's choice; 1 is best for small_cnn",
    )
    add("--dataset-root", type=str, help="folder of the data; null: Avalanche's own")
    add("--download", action="store_true", help="fetch missing data")
    add("--smoke", action="store_true", help="small sizes on split_digits: seconds")
    add(
        "--loggers",
        nargs="+",
        metavar="NAME",
        help="Avalanche's loggers by name; null: text, and interactive in a terminal",
    )
    add(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="further metrics by name, e.g. gradient_reconstruction or timing",
    )
    add(
        "--eval-every",
        type=PositiveInt,
        default=1,
        help="evaluate and save after every so many-th experience, and the last",
    )
    add("--out", type=NotEmptyStr, default="results", help="folder of all results")
    add("--note", type=str, default="", help="remark that the table shows")
    add(
        "--like",
        type=str,
        help="folder of a finished run, whose stream, network, schedule, note and bytes "
        "of memory (but for copies of networks) are the defaults here",
    )


def parse(recipe: Recipe, arguments: Sequence[str]) -> Run:
    """Parse the options of a run.

    Args:
        recipe: The recipe.
        arguments: What stands after its name on the command line.

    Returns:
        The run. With ``--resume`` its options are those it was started with.

    Raises:
        UsageError: If an option is unknown, has a wrong value, or contradicts the run
            that ``--resume`` is to go on with.
        SystemExit: After ``--help`` or ``--print_config``.
    """
    parser = make_parser(recipe)
    protocol = parser.get_defaults().as_dict()
    arguments = [canonical(argument, parser) for argument in arguments]
    try:
        saved = _set_defaults(parser, recipe, arguments)
        values = parser.parse_args(arguments).as_dict()
    except ArgumentError as error:
        raise UsageError(one_line(error, parser)) from error
    refuse_infinite(values)
    _refuse_unknown("stream", [values["stream"]], STREAMS)
    _refuse_unknown("logger", values["loggers"] or (), LOGGERS)
    _refuse_unknown("metric", values["metrics"] or (), METRICS)
    _refuse_conflict(values, saved)
    if saved:
        values["like"] = saved["like"]
    return _run(recipe, values, protocol)


def _run(recipe: Recipe, values: Mapping[str, Any], protocol: Mapping[str, Any]) -> Run:
    names = {field.name for field in fields(Settings)}
    own = {k: bare(v) for k, v in values.items() if k not in {*names, "config"}}
    settings = {k: bare(v) for k, v in values.items() if k in names}
    settings["out"] = Path(settings["out"])
    for name in ("dataset_root", "like"):
        if settings[name] is not None:
            settings[name] = Path(settings[name]).expanduser()
    changed = [name for name in own if own[name] != protocol[name]]
    return Run(
        recipe=recipe, settings=Settings(**settings), options=own, changed=changed
    )


def bare(value: Any) -> Any:
    """Take a checked value out of its type: a ``PositiveInt`` becomes an ``int``.

    Args:
        value: Of an option.

    Returns:
        The same, of Python's own type.
    """
    if isinstance(value, list | tuple):
        return type(value)(bare(item) for item in value)
    kinds = [k for k in (bool, int, float, str) if isinstance(value, k)]
    return kinds[0](value) if kinds else value


def canonical(argument: str, parser: ArgumentParser) -> str:
    """Read ``--train-epochs`` as ``--train_epochs`` and ``--dataset_root`` likewise.

    Args:
        argument: A word of the command line.
        parser: Knows the options.

    Returns:
        The word as the parser knows it.
    """
    name, equals, value = argument.partition("=")
    known = {option.replace("-", "_"): option for option in _options(parser)}
    if not name.startswith("--"):
        return argument
    return known.get(name.replace("-", "_"), name) + equals + value


def _options(parser: ArgumentParser) -> list[str]:
    names = [o for action in parser._actions for o in action.option_strings]
    return [o for o in names if o.startswith("--") and o != "--print_shtab"]


def _set_defaults(
    parser: ArgumentParser, recipe: Recipe, arguments: Sequence[str]
) -> dict[str, Any]:
    """Make the saved run's options the defaults; or the smoke sizes, or another run's.

    An option given on the command line or in ``--config`` then still wins.

    Returns:
        The options of the saved run; empty without ``--resume`` or without such a run.
    """
    prints = ("-h", "--help", "--print_config")
    quiet = [a for a in arguments if a.partition("=")[0] not in prints]
    asked = parser.parse_args(quiet)
    folder = RunFolder(out=Path(asked.out), recipe=recipe.name, seed=asked.seed)
    if asked.resume and folder.config.exists():
        try:
            saved: dict[str, Any] = parser.parse_path(str(folder.config)).as_dict()
        except UsageError as error:
            raise UsageError(
                f"{error}; delete it and give the run's options again, or choose "
                "another --out"
            ) from error
        here = {"config", "out", "seed"}
        parser.set_defaults({k: v for k, v in saved.items() if k not in here})
        return saved
    others = []
    if asked.like is not None:
        given = parser.parse_args(quiet, defaults=False)
        others.append(_of_other_run(parser, recipe, asked.like, given))
    if asked.smoke:  # given here, so that it wins
        others.append(dict(recipe.smoke))
    elif others and others[0]["smoke"]:
        others.insert(0, dict(recipe.smoke))
    for options in others:
        parser.set_defaults(options)
    return {}


def _of_other_run(
    parser: ArgumentParser, recipe: Recipe, folder: str, given: Container[str]
) -> dict[str, Any]:
    """What ``--like`` takes over, each value of its option's type."""
    known = parser.get_defaults()
    path = Path(folder).expanduser()
    taken = like(path, recipe.name, known=known, given=given)
    typed = parser.parse_object(taken).as_dict()
    return {name: typed[name] for name in taken}


def _refuse_conflict(values: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    for name in saved.keys() - FREE_ON_RESUME - {"out", "seed"}:
        if values[name] != saved[name]:
            raise UsageError(
                f"--{name} {values[name]} differs from the {saved[name]} that the run "
                f"was started with; leave it out to resume, or choose another --out"
            )


def _refuse_unknown(kind: str, names: Iterable[str], valid: Iterable[str]) -> None:
    for name in names:
        if name not in valid:
            raise UsageError(f"unknown {kind} {name}; {nearest(name, valid)}")


def one_line(error: ArgumentError, parser: ArgumentParser) -> str:
    """An error of the parser in one line, with the nearest name of an option.

    Args:
        error: The error.
        parser: Knows the options.

    Returns:
        The line.
    """
    text = " ".join(str(error).split())
    text = re.sub(r'^Parser key "([^"]+)":', r"--\1:", text).replace("typing.", "")
    unknown = re.search(r"^unrecognized arguments: (--[^\s=]+)|^Option '(\S+)'", text)
    if unknown is None:
        return in_plain_words(text)
    name = unknown[1] or f"--{unknown[2]}"
    return f"unknown option {name}; {nearest(name, _options(parser))}"
