"""Pictures of a finished run.

A strategy or plugin that has something to show offers a method ``figures(test_stream)
-> dict[str, Figure]``: matplotlib's figures by the name of their file.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.runs.results import write_atomically

if TYPE_CHECKING:
    from avalanche.benchmarks import CLStream
    from avalanche.training.templates import SupervisedTemplate
    from matplotlib.figure import Figure


def write_pictures(
    strategy: SupervisedTemplate, test_stream: CLStream[Any], folder: Path
) -> None:
    """Save all pictures that a strategy and its plugins offer.

    Results are there already and are worth more: what goes wrong is only said, on
    stderr.

    Args:
        strategy: After its last experience.
        test_stream: Handed to ``figures``.
        folder: Where ``NAME.png`` are to lie; made if there is a picture.
    """
    for owner in (strategy, *strategy.plugins):
        try:
            for name, figure in _figures(owner, test_stream):
                _write(figure, folder, name)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run is good
            print(
                f"no pictures of {type(owner).__name__}: "
                f"{type(error).__name__}: {error}; the results are complete",
                file=sys.stderr,
                flush=True,
            )


def _figures(owner: Any, test_stream: CLStream[Any]) -> Iterator[tuple[str, Figure]]:
    """Names and figures of a strategy or plugin, if it offers any."""
    if callable(draw := getattr(owner, "figures", None)):
        yield from draw(test_stream).items()


def _write(figure: Figure, folder: Path, name: str) -> None:
    """Save one figure, all of it or nothing."""
    if Path(name).name != name:
        raise ValueError(f"a picture is called {name!r}; wanted a name of a file")
    folder.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    write_atomically(folder / f"{name}.png", file.getvalue())
