"""How an optimisation of exemplars went, and how sure a model is of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from avalanche_ext._checks import require_kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 20
_CHANGE_BINS = 61  # odd: the middle one is of pixels as they were
_LEGEND_ROWS = 12
_ROUNDING = 1e-6  # of pixels that were normalised and brought back
# Okabe and Ito's, told apart by the colour-blind
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
_STYLES = ("solid", "dashed", "dotted", "dashdot")


def margin_histogram(probabilities: Mapping[str, Tensor]) -> Figure:
    r"""Draw how far the likeliest class of each sample is ahead of the second one.

    .. math:: m_n = p_{n(1)} - p_{n(2)}

    is near 0 for samples close to a boundary between classes.

    Args:
        probabilities: By the name of a set of samples, :math:`p`, shape ``(N, K)``,
            K >= 2; rows sum to 1.

    Returns:
        A figure of one pair of axes, bound to no window: ``figure.savefig(path)``. A
        line a set gives the percentage of its samples; the legend, its mean margin.

    Raises:
        ValueError: If there is no set, or rows are no distributions of two or more
            classes.

    Example:
        >>> figure = margin_histogram({"data": torch.tensor([[0.75, 0.25, 0.0]])})
        >>> figure.axes[0].get_legend_handles_labels()[1]
        ['data (mean 0.50)']

    References:
        Liu et al., CVPR 2020 (Mnemonics).
    """
    require_kind(Mapping, probabilities=probabilities)
    if not probabilities:
        raise ValueError("probabilities is empty; wanted at least one set of samples")
    for name, rows in probabilities.items():
        _require_distributions(name, rows)
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    edges = torch.linspace(0, 1, _BINS + 1, dtype=torch.float64)
    for i, (name, rows) in enumerate(probabilities.items()):
        first, second = rows.detach().cpu().double().topk(2).values.T
        margins = (first - second).clamp(0, 1)
        counts = torch.histogram(margins, edges).hist
        axes.stairs(
            (100 * counts / len(margins)).numpy(),
            edges.numpy(),
            color=_COLORS[i % len(_COLORS)],
            linestyle=_STYLES[i % len(_STYLES)],
            linewidth=1.5,
            label=f"{name} (mean {float(margins.mean()):.2f})",
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("probability of the first class less that of the second")
    axes.set_ylabel("samples, %")
    axes.legend(fontsize="small")
    return figure


def optimization_curves(
    outer: Mapping[str, Tensor],
    inner: Mapping[str, Tensor],
    change: Mapping[str, Tensor],
) -> Figure:
    """Draw the losses of exemplars' optimisations and what became of the pixels.

    Three panels: outer losses; inner losses; a histogram of the changes of pixels, on
    a logarithmic scale. A name has one colour in all of them.

    Args:
        outer: By the name of an optimisation, such as "experience 0", the outer loss
            of each step, shape ``(T,)``; at least one.
        inner: The inner losses of each step, shape ``(T,)``, or ``(T, 2)``: before the
            first step of the inner loop (dashed) and before the last one. Empty
            tensors, and missing names, are of optimisations without an inner loop.
        change: Pixels in ``[0, 1]`` after less before, any shape; names may miss.

    Returns:
        A figure bound to no window.

    Raises:
        ValueError: If there is nothing to draw, shapes do not fit, or a number is not
            finite, or a change not in ``[-1, 1]``.

    Example:
        >>> loss, change = torch.tensor([2.0, 1.0]), torch.tensor([0.1, -0.1])
        >>> figure = optimization_curves({"a": loss}, {"a": loss}, {"a": change})
        >>> [line.get_ydata().tolist() for line in figure.axes[0].lines]
        [[2.0, 1.0]]

    References:
        Liu et al., CVPR 2020 (Mnemonics).
    """
    _require_curves(outer, inner, change)
    inner = {name: losses for name, losses in inner.items() if losses.numel()}
    names = list(dict.fromkeys([*outer, *inner, *change]))
    dark_to_bright = colormaps["viridis"]
    colors = {
        name: dark_to_bright(0.9 * i / max(1, len(names) - 1))
        for i, name in enumerate(names)
    }
    columns = math.ceil(len(names) / _LEGEND_ROWS)
    size = (9 + 1.3 * columns, 3)
    figure = Figure(figsize=size, layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, 3))
    for name, losses in outer.items():
        _plot(panels[0], losses, colors[name])
    for name, losses in inner.items():
        *first, last = losses.T if losses.ndim == 2 else (losses,)
        for beginning in first:
            _plot(panels[1], beginning, colors[name], "dashed")
        _plot(panels[1], last, colors[name])
    panels[0].set(xlabel="outer step", ylabel="outer loss")
    panels[1].set(xlabel="outer step", ylabel="inner loss")
    if not inner:
        _write(panels[1], "no inner loop")
    elif any(losses.ndim == 2 for losses in inner.values()):
        note = "dashed: at the beginning of the inner loop"
        panels[1].set_title(note, fontsize="small")
    _change_histogram(panels[2], change, colors)
    handles = [Line2D([], [], color=c, label=name) for name, c in colors.items()]
    figure.legend(
        handles=handles, loc="outside right upper", fontsize="small", ncols=columns
    )
    return figure


def _require_distributions(name: str, rows: Any) -> None:
    """Refuse what are no probabilities of two classes or more."""
    require_kind(Tensor, **{f"probabilities of {name!r}": rows})
    if rows.ndim != 2 or len(rows) == 0 or rows.shape[1] < 2:
        raise ValueError(
            f"probabilities of {name!r} are {tuple(rows.shape)}; wanted (N, K) of at "
            "least one sample and two classes"
        )
    rows = rows.detach().double()
    if not bool((rows >= 0).all()):  # nor nan
        raise ValueError(
            f"probabilities of {name!r} fall to {float(rows.min()):g}; wanted >= 0"
        )
    sums = rows.sum(dim=1)
    worst = float(sums[(sums - 1).abs().argmax()])
    if not abs(worst - 1) <= 1e-3:
        raise ValueError(
            f"probabilities of {name!r} sum to {worst:g} in a row; wanted 1"
        )


def _require_curves(outer: Any, inner: Any, change: Any) -> None:
    """Refuse what cannot be drawn."""
    require_kind(Mapping, outer=outer, inner=inner, change=change)
    if not outer:
        raise ValueError("outer is empty; wanted the losses of an optimisation")
    kinds = {"outer": outer, "inner": inner, "change": change}
    for kind, tensors in kinds.items():
        for name, values in tensors.items():
            what = f"{kind} of {name!r}"
            require_kind(Tensor, **{what: values})
            shape = tuple(values.shape)
            if kind == "outer" and (values.ndim != 1 or not shape[0]):
                raise ValueError(f"{what} is {shape}; wanted (T,), at least one step")
            two = values.ndim == 2 and shape[1] == 2
            if kind == "inner" and values.numel() and values.ndim != 1 and not two:
                raise ValueError(f"{what} is {shape}; wanted (T,) or (T, 2)")
            if not bool(values.isfinite().all()):
                raise ValueError(f"{what} has nan or infinity; wanted finite numbers")
            if kind == "change" and not values.numel():
                raise ValueError(f"{what} is {shape}; wanted at least one pixel")
            largest = float(values.detach().abs().max()) if values.numel() else 0.0
            if kind == "change" and largest > 1 + _ROUNDING:
                raise ValueError(
                    f"{what} reaches {largest:g}; wanted differences of pixels in "
                    "[0, 1]"
                )


def _plot(axes: Axes, losses: Tensor, color: Any, style: str = "solid") -> None:
    """Draw losses over steps; a single step is a dot."""
    dot = "." if len(losses) == 1 else ""
    values = losses.detach().cpu().numpy()
    axes.plot(range(len(values)), values, color=color, linestyle=style, marker=dot)


def _write(axes: Axes, text: str) -> None:
    """Say why a panel is empty."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])


def _change_histogram(
    axes: Axes, change: Mapping[str, Tensor], colors: Mapping[str, Any]
) -> None:
    """Draw which percentage of the pixels changed by how much."""
    axes.set(xlabel="change of pixels, levels of 255", ylabel="pixels, %")
    if not change:
        _write(axes, "no changes given")
        return
    levels = {n: 255 * d.detach().cpu().double().flatten() for n, d in change.items()}
    end = max(float(values.abs().max()) for values in levels.values()) or 1.0
    edges = torch.linspace(-end, end, _CHANGE_BINS + 1, dtype=torch.float64)
    for name, values in levels.items():
        counts = torch.histogram(values, edges).hist
        share = (100 * counts / len(values)).numpy()
        axes.stairs(share, edges.numpy(), color=colors[name], linewidth=1.2)
    axes.set_yscale("log")
