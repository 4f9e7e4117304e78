"""What stands in the cells of the table, whatever its form."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.tables.rows import METRICS, Comparison, Row, size, spread, told_apart
from benchmarks.tables.targets import Target

SHOWN = ("final_accuracy", "average_incremental_accuracy", "forgetting")
HEADS = (
    "seeds",
    *(METRICS[name] for name in SHOWN),
    "kept",
    "minutes",
    "paper",
    "difference",
    "mark",
)
CAPTION = (
    "Percent, mean ± standard deviation over seeds. final: accuracy over all classes at "
    "the end; average: mean over experiences of the accuracy over the classes seen so "
    "far; forgets: mean drop from the best accuracy; kept: what the method keeps besides "
    "the network, in bytes; minutes: of a run, training and evaluation; paper: figure of "
    "the metric that its note names, compared only where the protocol is the paper's."
)


class Notes:
    """Footnotes: texts by the number of their first use."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        """The number of a text, from 1 on.

        Args:
            text: The note.

        Returns:
            The same number each time.
        """
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def source_of(target: Target) -> str:
    """What a footnote says of a figure.

    Args:
        target: The figure.

    Returns:
        Its metric, its source and how sure it is.
    """
    runs = f", mean of {target.seeds} runs" if target.seeds else ""
    return f"{METRICS[target.metric]}: {target.source}{runs} ({target.certainty})"


def figure_of(target: Target) -> str:
    """A paper's figure with its spread.

    Args:
        target: The figure.

    Returns:
        A few characters.
    """
    known = target.spread is not None
    return f"{target.value:.1f}" + (f"±{target.spread:.1f}" if known else "")


def details_of(row: Row, rows: Sequence[Row]) -> str:
    """What tells a row from others of its recipe, and what it remembers.

    Args:
        row: One of the rows.
        rows: All rows of the setting.

    Returns:
        Options and memory in a few words.
    """
    return "; ".join([*told_apart(row, rows), row.runs[0]["memory"]])


def cells(row: Row, notes: Notes) -> list[str]:
    """The cells of a row, below `HEADS`.

    Args:
        row: The row.
        notes: Sources of the papers' figures; those of this row are added.

    Returns:
        A text each; several figures of a paper stand one below the other.
    """
    found = row.comparisons()
    return [
        str(len(row.runs)),
        *(spread(row.percent(metric)) for metric in SHOWN),
        size(row.memory_bytes),
        f"{row.minutes:.2f}",
        "\n".join(_paper(c, notes) for c in found),
        "\n".join(
            "-" if c.difference is None else f"{c.difference:+.1f}" for c in found
        ),
        "\n".join(c.mark for c in found),
    ]


def _paper(comparison: Comparison, notes: Notes) -> str:
    target = comparison.target
    if target is None:
        return "-"
    return f"{figure_of(target)} ({notes.number(source_of(target))})"
