"""``python -m benchmarks``: run recipes, list them, show their results.

Only what a command needs is imported, and torch not before its options are checked.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from benchmarks.names import UsageError, nearest

USAGE = """\
usage: python -m benchmarks COMMAND ...

  run RECIPE [options]    run one recipe; `run RECIPE --help` shows its options
  list [RECIPE ...]       show all recipes and streams and what each needs on disk, or
                          the published rows of a recipe, each a recipe of its own
  pretrain FILE [options] train a network and save its weights, for --weights of recipes
  sweep RECIPE [options]  run many recipes, seeds and options, on Ray where it is there
  table [RESULTS ...]     print ours beside the papers' figures (default: results)
  report RESULTS ...      write a page of plots
"""
HELP = {"-h", "--help"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command.

    Args:
        arguments: The command line after the program's name; ``None``: ``sys.argv``.

    Returns:
        Exit code: 0; 1 if a run failed; 2 for a command that cannot be carried out as
        given; 128 + n after signal n.
    """
    # Threads that wait by spinning make small networks many times slower as soon as
    # anything else runs on the machine. Read when torch is imported, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in HELP:
        print(USAGE, end="")
        return 0 if arguments else 2
    try:
        name, *rest = arguments
        if name not in COMMANDS:
            raise UsageError(f"unknown command {name}; {nearest(name, COMMANDS)}")
        if name == "list" and HELP & set(rest):
            print(USAGE, end="")
            return 0
        return COMMANDS[name](rest)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SystemExit as asked:  # for help
        return int(asked.code or 0)
    except BrokenPipeError:  # a reader that has seen enough, such as head
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0


def _run(arguments: list[str]) -> int:
    from benchmarks.recipes import RECIPES

    if not arguments or arguments[0] in HELP:
        print("usage: python -m benchmarks run RECIPE [options]\n")
        for recipe in RECIPES.values():
            if not recipe.is_row:
                print(f"  {recipe.name:<26} {recipe.summary}")
        print("\n`python -m benchmarks list RECIPE` shows its published rows")
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name}; {nearest(name, RECIPES)}")
    from benchmarks.runs.parser import parse

    run = parse(RECIPES[name], rest)
    from benchmarks.runs.stopping import execute_until_stopped

    command = shlex.join(["python", "-m", "benchmarks", "run", *arguments])
    return execute_until_stopped(run, command)


def _list(arguments: list[str]) -> int:
    for argument in arguments:
        if argument.startswith("-"):
            raise UsageError(f"list takes names of recipes, but {argument} was given")
    from benchmarks.listing import print_listing

    print_listing(arguments)
    return 0


def _delegate(module: str) -> Callable[[list[str]], int]:
    def carry_out(arguments: list[str]) -> int:
        main_of: Callable[[list[str]], int] = import_module(module).main
        return main_of(arguments)

    return carry_out


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "list": _list,
    "pretrain": _delegate("benchmarks.pretrain"),
    "sweep": _delegate("benchmarks.sweep"),
    "table": _delegate("benchmarks.tables.table"),
    "report": _delegate("benchmarks.report.command"),
}

if __name__ == "__main__":
    sys.exit(main())
