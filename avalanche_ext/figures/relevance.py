"""What a network's units serve, and what its submodels look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from avalanche_ext._checks import require_kind

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

    from avalanche_ext.functional.relevance import Capacity

_PANEL = 2.0  # inches, width and height of a small picture
_COLUMNS = 6  # small pictures in a row, at most
_LEGEND_ROWS = 15


def capacity_figure(capacity: Mapping[str, Capacity]) -> Figure:
    """Draw which experience froze how many units of each layer first.

    A horizontal bar a layer, the first on top: the percentages of its units that
    experience 0, 1, ... froze first, from dark to bright, and in grey those still free.
    The figure grows with the number of layers.

    Args:
        capacity: Counts of units by the layer's name, in the order to be drawn, each
            with as many experiences; see `avalanche_ext.functional.relevance.capacity`.

    Returns:
        A figure of one pair of axes, bound to no window: ``figure.savefig(path)``.

    Raises:
        ValueError: If it is no mapping, there is no layer, or their numbers of
            experiences differ.

    Example:
        >>> from types import SimpleNamespace
        >>> layer = SimpleNamespace(first_frozen=[3, 1], shared=[0, 2], free=4)
        >>> [axes] = capacity_figure({"conv1": layer}).axes
        >>> [float(bar.get_width()) for bar in axes.patches]
        [37.5, 12.5, 50.0]

    References:
        Bogacka et al., 2025 (ReReLRP).
    """
    require_kind(Mapping, capacity=capacity)
    if not capacity:
        raise ValueError("capacity is empty; wanted at least one layer")
    lengths = sorted({len(layer.first_frozen) for layer in capacity.values()})
    if len(lengths) != 1:
        raise ValueError(
            f"capacity has {len(capacity)} layers of {lengths} experiences; wanted "
            "layers of one and the same number"
        )
    [n] = lengths
    figure = Figure(figsize=(8, 1.5 + 0.25 * len(capacity)), layout="constrained")
    axes = figure.subplots()
    places = range(len(capacity))
    units = [sum(layer.first_frozen) + layer.free for layer in capacity.values()]
    left = [0.0] * len(units)
    shares = [[c.first_frozen[t] for c in capacity.values()] for t in range(n)]
    shares.append([c.free for c in capacity.values()])
    bright = colormaps["viridis"]
    colors = [bright(0.95 * t / max(1, n - 1)) for t in range(n)] + ["lightgrey"]
    labels = [f"experience {t}" for t in range(n)] + ["free"]
    for counts, color, label in zip(shares, colors, labels, strict=True):
        width = [100 * c / max(1, u) for c, u in zip(counts, units, strict=True)]
        axes.barh(places, width, left=left, height=0.8, color=color, label=label)
        left = [start + w for start, w in zip(left, width, strict=True)]
    names = [f"{name} ({u})" for name, u in zip(capacity, units, strict=True)]
    axes.set_yticks(places, names, fontsize="small")
    axes.set_ylim(len(capacity) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("units first frozen by an experience, %")
    columns = math.ceil((n + 1) / _LEGEND_ROWS)
    figure.legend(loc="outside right upper", fontsize="small", ncols=columns)
    return figure


def heatmap_figure(image: Tensor, heatmaps: Tensor, titles: Sequence[str]) -> Figure:
    """Draw an image beside its relevance under each experience's submodel.

    Relevance is summed over the channels. Red speaks for the class explained, blue
    against it, white is 0; each map has its own scale, whose ends stand below it.

    Args:
        image: Shape ``(C, H, W)``, any range: it is spread over black to white; of
            other than 3 channels, their mean is shown.
        heatmaps: :math:`R`, any sign, shape ``(T, C, H, W)`` or ``(T, H, W)``, T >= 1.
        titles: T texts, to stand above the maps.

    Returns:
        A figure of T + 1 small pictures, bound to no window.

    Raises:
        ValueError: If a shape or the titles do not fit, or a number is not finite.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[0.5, -2.0]]])
        >>> figure = heatmap_figure(torch.rand(1, 1, 2), maps, ["experience 0"])
        >>> figure.axes[1].images[0].get_clim()
        (-2.0, 2.0)

    References:
        Bogacka et al., 2025 (ReReLRP).
    """
    require_kind(Tensor, image=image, heatmaps=heatmaps)
    _require_shapes(image, heatmaps, titles)
    maps = heatmaps.detach().cpu().double()
    maps = maps if maps.ndim == 3 else maps.sum(dim=1)
    n = len(maps) + 1
    rows, columns = math.ceil(n / _COLUMNS), min(n, _COLUMNS)
    figure = Figure(figsize=(_PANEL * columns, _PANEL * rows), layout="constrained")
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels:
        panel.set(xticks=[], yticks=[])
    for panel in panels[n:]:
        panel.remove()
    panels[0].imshow(_viewable(image), cmap="gray", vmin=0, vmax=1)
    panels[0].set_title("image", fontsize="small")
    for panel, relevance, title in zip(panels[1:], maps, titles, strict=False):
        end = float(relevance.abs().max())
        panel.imshow(relevance.numpy(), cmap="bwr", vmin=-end or -1, vmax=end or 1)
        panel.set_title(title, fontsize="small")
        panel.set_xlabel(f"±{end:.2g}", fontsize="small")
    return figure


def _require_shapes(image: Tensor, heatmaps: Tensor, titles: Sequence[str]) -> None:
    """Refuse what is no image, or does not fit it."""
    seen = f"image is {tuple(image.shape)}, heatmaps {tuple(heatmaps.shape)}"
    fits = (
        image.ndim == 3
        and heatmaps.ndim in (3, 4)
        and heatmaps.shape[-2:] == image.shape[-2:]
        and image.numel() > 0 < heatmaps.numel()
    )
    if not fits:
        raise ValueError(f"{seen}; wanted (C, H, W) and (T, C, H, W) or (T, H, W)")
    listed = isinstance(titles, Sequence) and not isinstance(titles, str)
    if not listed or not all(isinstance(title, str) for title in titles):
        raise ValueError(f"titles is {titles!r}; wanted a list of texts, one a heatmap")
    if len(titles) != len(heatmaps):
        raise ValueError(f"{len(titles)} titles; wanted {len(heatmaps)}, one a heatmap")
    for name, tensor in {"image": image, "heatmaps": heatmaps}.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} has nan or infinity; wanted finite numbers")


def _viewable(image: Tensor) -> np.ndarray[Any, Any]:
    """An array in [0, 1] that matplotlib shows, ``(H, W, 3)`` or ``(H, W)``."""
    pixels = image.detach().cpu().double()
    pixels = pixels.permute(1, 2, 0) if len(pixels) == 3 else pixels.mean(dim=0)
    low, high = pixels.min(), pixels.max()
    return ((pixels - low) / (high - low).clamp_min(1e-12)).numpy()
