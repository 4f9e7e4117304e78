"""``python -m benchmarks report``: results as one page that needs no network."""

from __future__ import annotations

import argparse
import base64
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.names import UsageError
from benchmarks.report.curves import mean_matrix
from benchmarks.report.figures import draw_chart, draw_matrix, draw_sample
from benchmarks.report.series import Series, make_charts, make_series
from benchmarks.runs.results import write_atomically
from benchmarks.tables.cells import CAPTION, HEADS, Notes, cells, details_of
from benchmarks.tables.rows import Row, by_setting, read_rows, size
from benchmarks.tables.targets import read_targets

TEMPLATE = "page.html.jinja"


def main(arguments: Sequence[str]) -> int:
    """Carry out the command.

    Args:
        arguments: What stands after ``report``.

    Returns:
        Exit code 0.

    Raises:
        UsageError: If a folder does not exist or holds no run, a run is not complete,
            an option is wrong, or the page cannot be written.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks report",
        description="Write one HTML page of plots; it needs no network.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "results", nargs="*", type=Path, help="folders of results; none: results"
    )
    parser.add_argument(
        "--out", type=Path, help="the page; none: report.html in the first folder"
    )
    try:
        given, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from error
    if unknown:
        raise UsageError(f"report does not know {unknown[0]}; see report --help")
    folders = given.results or [Path("results")]
    page = given.out or folders[0] / "report.html"
    if page.is_dir():
        raise UsageError(f"--out is {page}, a folder; wanted the name of a file")
    if not page.parent.is_dir():
        raise UsageError(f"no folder {page.parent}; wanted it to exist")
    html = make_page(read_rows(folders, read_targets()))
    try:
        write_atomically(page, html)
    except OSError as error:
        raise UsageError(f"cannot write {page}: {error.strerror}") from error
    print(page)
    return 0


def make_page(rows: Sequence[Row]) -> str:
    """Lay out all results.

    Args:
        rows: Rows of the table of results, at least one.

    Returns:
        HTML that refers to nothing outside itself.

    Raises:
        UsageError: If a run has no ``accuracy.csv``.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    notes = Notes()
    return environment.get_template(TEMPLATE).render(
        n_runs=sum(len(row.runs) for row in rows),
        heads=HEADS,
        sections=[_section(*item, notes) for item in by_setting(rows).items()],
        caption=CAPTION,
        notes=notes.texts,
    )


def _section(setting: str, rows: Sequence[Row], notes: Notes) -> dict[str, Any]:
    """What the template shows of a setting."""
    series = make_series(rows)
    return {
        "heading": setting,
        "rows": [
            {
                "recipe": row.recipe,
                "details": details_of(row, rows),
                "cells": cells(row, notes),
            }
            for row in rows
        ],
        "legend": [(one, _svg(draw_sample(one.number))) for one in series],
        "charts": [(chart, _svg(draw_chart(chart))) for chart in make_charts(series)],
        "matrices": list(_matrices(series)),
        "pictures": [picture for one in series for picture in _pictures(one)],
        "runs": [_run(run) for row in rows for run in row.runs],
    }


def _svg(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _matrices(series: Sequence[Series]) -> Iterator[dict[str, Any]]:
    """Matrices with something to see: two experiences, and a test set for each."""
    for one in series:
        matrix = mean_matrix(one.matrices)
        if len(matrix) > 1 and len(matrix[0]) > 1:
            svg = draw_matrix(matrix, f"Accuracy matrix of {one.name}")
            yield {"name": one.name, "n": len(one.matrices), "svg": _svg(svg)}


def _pictures(series: Series) -> Iterator[dict[str, Any]]:
    """The method's own pictures, of the first seed."""
    run = series.row.runs[0]
    for path in sorted(Path(run["folder"], "pictures").glob("*.png")):
        content = path.read_bytes()
        width, height = struct.unpack(">II", content[16:24])  # PNG's first chunk
        yield {
            "name": path.stem.replace("_", " "),
            "of": series.name,
            "seed": run["seed"],
            "width": width,
            "height": height,
            "source": f"data:image/png;base64,{base64.b64encode(content).decode()}",
        }


def _run(run: dict[str, Any]) -> dict[str, Any]:
    """What made a run, in words."""
    kept = {kind: size(n) for kind, n in (run.get("memory_bytes") or {}).items()}
    peak = {kind: size(n) for kind, n in (run.get("peak_memory_bytes") or {}).items()}
    return {
        "recipe": run["recipe"],
        "seed": run["seed"],
        "state": f"{run['experiences_finished']} of {run['experiences']} experiences",
        "finished": run["finished"],
        "facts": {
            "command": run.get("command"),
            "commit": run.get("commit"),
            "versions": _words(run.get("versions")),
            "hardware": _words(run.get("hardware")),
            "minutes": run["minutes"],
            "peak memory": _words(peak),
            "method keeps": _words(kept),
        },
    }


def _words(facts: dict[str, Any] | None) -> str:
    known = {name: value for name, value in (facts or {}).items() if value is not None}
    return ", ".join(f"{name} {value}" for name, value in known.items()) or "-"
