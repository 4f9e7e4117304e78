"""Figures of the report as SVG, to stand within a page: they take on its colours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.report.series import Chart

COLOURS = ("#3b6fd4", "#e06c00", "#00937a", "#c45fa8", "#7d6b00")
"""Of curves: told apart by colour-blind people too, and on light and dark pages."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
MAP = "cividis"
"""Colours of matrices, for colour-blind people too."""
NUMBERED = 10
"""Matrices of at most so many experiences show their numbers."""
_INK = "#010203"  # stands for the colour of the page's text until the SVG is made
_STYLE = {
    "font.size": 10,
    "svg.fonttype": "none",  # text of the page, not outlines
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "grid.color": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "lines.markersize": 4.5,
    "lines.linewidth": 1.6,
}
_SIZE = (4.2, 2.7)  # inches; small, so that the text can be read on a phone


def draw_chart(chart: Chart) -> str:
    """Draw curves over experiences; bars where no curve has two points.

    Args:
        chart: At least one curve.

    Returns:
        An ``<svg>`` element.
    """
    over = any(len(curve.experiences) > 1 for curve in chart.curves.values())
    return _draw(_lines if over else _bars, chart, title=chart.title, size=_SIZE)


def draw_matrix(matrix: Sequence[Sequence[float | None]], title: str) -> str:
    """Draw a matrix of accuracies; blank where nothing was evaluated.

    Args:
        matrix: Rows of accuracies in [0, 1].
        title: For those who cannot see it.

    Returns:
        An ``<svg>`` element.
    """
    return _draw(_cells, matrix, title=title, size=(3.1, 2.6))


def draw_sample(number: int) -> str:
    """Draw a short piece of the curve of a series, for the legend.

    Args:
        number: Of the series, from 1.

    Returns:
        An ``<svg>`` element.
    """
    return _draw(_sample, number, title="", size=(0.5, 0.2))


def look(number: int) -> dict[str, Any]:
    """How the curve of a series looks: no two of the first 70 are alike.

    Args:
        number: Of the series, from 1.

    Returns:
        Options of matplotlib.

    Example:
        >>> look(1)
        {'color': '#3b6fd4', 'marker': 'o', 'linestyle': '-'}
    """
    i = number - 1
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[i // len(COLOURS) % len(DASHES)],
    }


def _draw(paint: Any, what: Any, *, title: str, size: tuple[float, float]) -> str:
    """Make an SVG out of what a function paints."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "svg.hashsalt": f"{title}{what}"}):
        figure = Figure(figsize=size)
        paint(figure, what)
        file = io.StringIO()
        no_date = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=no_date)
    return _for_page(file.getvalue(), title)


def _for_page(svg: str, title: str) -> str:
    """Take what belongs to a file out of an SVG, and put the page's colour in."""
    from markupsafe import escape

    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(
        r"<style.*?</style>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL
    )
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)  # names of groups, alike in all
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    label = (
        f'role="img" aria-label="{escape(title)}"' if title else 'aria-hidden="true"'
    )
    return svg.replace("<svg", f"<svg {label}", 1)


def _axes(figure: Figure) -> Axes:
    width, height = figure.get_size_inches()
    return figure.add_axes(
        (0.62 / width, 0.5 / height, 1 - 0.77 / width, 1 - 0.62 / height)
    )


def _lines(figure: Figure, chart: Chart) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = _axes(figure)
    for number, curve in chart.curves.items():
        x, style = curve.experiences, look(number)
        axes.plot(x, curve.mean, markevery=max(1, len(x) // 10), **style)
        if curve.n > 1:
            pairs = list(zip(curve.mean, curve.spread, strict=True))
            low, high = [m - s for m, s in pairs], [m + s for m, s in pairs]
            colour = style["color"]
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="experiences trained", ylabel=chart.unit)


def _bars(figure: Figure, chart: Chart) -> None:
    axes = _axes(figure)
    numbers: Mapping[int, Any] = chart.curves
    heights = [curve.mean[-1] for curve in numbers.values()]
    spreads = [curve.spread[-1] for curve in numbers.values()]
    bars = axes.bar(
        range(len(numbers)),
        heights,
        yerr=spreads if any(spreads) else None,
        ecolor=_INK,
        color=[look(number)["color"] for number in numbers],
    )
    axes.bar_label(bars, fmt="{:.3g}", fontsize=8, padding=2)
    axes.set_xticks(range(len(numbers)), [str(number) for number in numbers])
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.12)
    axes.set(xlabel="number in the legend", ylabel=chart.unit)


def _cells(figure: Figure, matrix: Sequence[Sequence[float | None]]) -> None:
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    percent = 100 * np.array(matrix, dtype=float)  # None becomes NaN: left blank
    axes = _axes(figure)
    n_trained, n_tests = percent.shape
    axes.grid(visible=False)
    image = axes.imshow(
        percent,
        cmap=MAP,
        vmin=0,
        vmax=100,
        aspect="auto",
        interpolation="none",  # as many pixels as cells, however many those are
        extent=(0.5, n_tests + 0.5, n_trained + 0.5, 0.5),
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="tested on experience", ylabel="trained up to experience")
    if max(percent.shape) > NUMBERED:
        bar = figure.colorbar(image, ax=axes, pad=0.02)
        bar.outline.set_visible(False)
        return
    for (i, j), value in np.ndenumerate(percent):
        if not np.isnan(value):
            ink = ink_on(image.to_rgba(value)[:3])
            axes.text(j + 1, i + 1, f"{value:.0f}", color=ink, ha="center", va="center")


def ink_on(colour: Sequence[float]) -> str:
    """White or black, whichever is easier to read.

    Args:
        colour: Of the background: red, green and blue in [0, 1].

    Returns:
        A colour of CSS.

    Example:
        >>> ink_on((1.0, 1.0, 0.0)), ink_on((0.0, 0.0, 0.5))
        ('#000000', '#ffffff')
    """
    return "#000000" if luminance(colour) > 0.179 else "#ffffff"


def luminance(colour: Sequence[float]) -> float:
    """Relative luminance of a colour, as WCAG 2 has it.

    Args:
        colour: Red, green and blue of sRGB in [0, 1].

    Returns:
        From 0, black, to 1, white.
    """
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour
    ]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _sample(figure: Figure, number: int) -> None:
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.plot([0, 1, 2], [0, 0, 0], markevery=[1], **look(number))
    axes.margins(x=0.02)
