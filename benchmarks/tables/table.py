"""``python -m benchmarks table``: ours, mean and spread over seeds, beside the paper's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.names import UsageError
from benchmarks.tables.rows import not_run, read_rows
from benchmarks.tables.targets import read_targets


def main(arguments: Sequence[str]) -> int:
    """Carry out the command.

    Args:
        arguments: What stands after ``table``.

    Returns:
        Exit code 0.

    Raises:
        UsageError: If a folder does not exist or holds no run, or an option or a page
            is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks table",
        description="Print ours beside the papers' figures.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "results", nargs="*", type=Path, help="folders of results; none: results"
    )
    parser.add_argument(
        "--format",
        choices=("terminal", "markdown", "csv", "beside"),
        default="terminal",
        help="csv: a line a figure, with sources and commands; beside: Markdown, the "
        "baselines (runs made with --like, or sweep --baselines) in columns",
    )
    parser.add_argument(
        "--not-run", action="store_true", help="also every published row not run"
    )
    parser.add_argument(
        "--write",
        nargs="+",
        type=Path,
        metavar="PAGE",
        help="instead, write anew the tables of pages, as a comment there says",
    )
    try:
        given, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from error
    if unknown:
        raise UsageError(f"table does not know {unknown[0]}; see table --help")
    if given.write:
        from benchmarks.tables.pages import write_tables

        write_tables(given.write, main)
        return 0
    targets = read_targets()
    folders = given.results or [Path("results")]
    rows = read_rows(folders, targets)
    left = not_run(rows, targets)
    if given.format == "csv":
        from benchmarks.tables.as_csv import write_csv

        write_csv(rows, left if given.not_run else [])
    elif given.format == "markdown":
        from benchmarks.tables.as_markdown import markdown

        print(markdown(rows, left if given.not_run else []), end="")
    elif given.format == "beside":
        from benchmarks.tables.beside import beside

        print(beside(rows, folders), end="")
    else:
        from benchmarks.tables.as_terminal import print_rows

        print_rows(rows, left, everything=given.not_run)
    return 0
