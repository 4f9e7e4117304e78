"""What exemplars look like, before and after an optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from avalanche_ext._checks import require_kind, require_whole

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

_CELL = 0.34  # inches, of one exemplar in a grid
_GRID = (6.0, 12.0)  # inches, width and height of a panel at most
_ROUNDING = 1e-6  # of pixels that were normalised and brought back


def exemplar_grid(
    before: Tensor,
    after: Tensor,
    targets: Tensor,
    *,
    per_class: int = 10,
    classes: int = 10,
    title: str = "",
) -> Figure:
    r"""Draw exemplars before and after an optimisation, and what has changed.

    Three panels with a row a class, in the order of their ids, and a column an
    exemplar. The third one shows :math:`1/2 + k (a - b)` of pixels a after and b
    before, where k, stated above it, spreads the largest change to black or white.

    Args:
        before: Pixels b in ``[0, 1]``, shape ``(M, C, H, W)``, C 1 (grey) or 3.
        after: Pixels a of the same exemplars.
        targets: Class ids, shape ``(M,)``; their numbers may differ.
        per_class: Exemplars a class at most, the first ones, >= 1.
        classes: Classes at most, those of the lowest ids, >= 1.
        title: Stands above all.

    Returns:
        A figure bound to no window: ``figure.savefig(path)``.

    Raises:
        ValueError: If shapes do not fit, or a pixel is not in ``[0, 1]``.

    Example:
        >>> before = torch.full((2, 1, 4, 4), 0.5)
        >>> figure = exemplar_grid(before, before + 0.125, torch.tensor([3, 7]))
        >>> [axes.get_title() for axes in figure.axes]
        ['before', 'after', 'difference × 4']

    References:
        Liu et al., CVPR 2020 (Mnemonics).
    """
    require_whole(1, per_class=per_class, classes=classes)
    require_kind(str, title=title)
    _require_images(before, after, targets)
    was, now = (_pixels(images) for images in (before, after))
    largest = float((now - was).abs().max())
    scale = 0.5 / largest if largest else 1.0
    ids = sorted(set(targets.tolist()))[:classes]
    rows = [(targets == label).nonzero()[:per_class, 0].cpu() for label in ids]
    columns = max(map(len, rows))
    cell = min(_CELL, _GRID[0] / columns, _GRID[1] / len(rows))
    width, height = max(1.6, cell * columns), max(0.4, cell * len(rows))
    height *= before.shape[2] / before.shape[3]
    size = (3 * width + 0.8, height + 1.0)
    figure = Figure(figsize=size, layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, 3))
    images = {
        "before": was,
        "after": now,
        f"difference × {scale:.3g}": (0.5 + scale * (now - was)).clamp(0, 1),
    }
    for panel, (name, shown) in zip(panels, images.items(), strict=True):
        panel.imshow(_mosaic(shown, rows, columns), cmap="gray", vmin=0, vmax=1)
        panel.set_title(name, fontsize="small")
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    step = before.shape[2] + _gap(before)
    middles = [step * i + (before.shape[2] - 1) / 2 for i in range(len(ids))]
    panels[0].set_yticks(middles, map(str, ids), fontsize=min(8, 60 * cell))
    panels[0].tick_params(length=0)
    panels[0].set_ylabel("class", fontsize="small")
    note = f"largest: {255 * largest:.3g} of 255,\nmid-grey: no change"
    panels[2].set_xlabel(note, fontsize="small")
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def _require_images(before: Any, after: Any, targets: Any) -> None:
    """Refuse what is no set of exemplars twice."""
    require_kind(Tensor, before=before, after=after, targets=targets)
    shapes = [tuple(t.shape) for t in (before, after, targets)]
    fits = (
        before.ndim == 4
        and before.numel() > 0
        and before.shape[1] in (1, 3)
        and after.shape == before.shape
        and targets.shape == before.shape[:1]
    )
    if not fits:
        raise ValueError(
            f"before, after and targets are {shapes}; wanted (M, C, H, W) twice, with "
            "1 or 3 channels C, and (M,)"
        )
    require_class_ids(targets=targets)
    for name, pixels in {"before": before, "after": after}.items():
        low, high = (float(end) for end in pixels.detach().aminmax())
        if not -_ROUNDING <= low <= high <= 1 + _ROUNDING:  # nor nan
            raise ValueError(f"{name} is in [{low:g}, {high:g}]; wanted [0, 1]")


def require_class_ids(**arguments: Tensor) -> None:
    """Refuse class ids that are no whole numbers.

    Args:
        **arguments: Tensors by the names the user knows them by.

    Raises:
        ValueError: For the first that does not fit.
    """
    for name, targets in arguments.items():
        if targets.is_floating_point() or targets.dtype == torch.bool:
            raise ValueError(f"{name} is {targets.dtype}; wanted whole numbers")


def _pixels(images: Tensor) -> Tensor:
    return images.detach().cpu().double().clamp(0, 1)


def _gap(images: Tensor) -> int:
    """White pixels between two images."""
    return max(1, images.shape[2] // 16)


def _mosaic(
    images: Tensor, rows: Sequence[Tensor], columns: int
) -> np.ndarray[Any, Any]:
    """Images side by side, ``(height, width, 3)`` or ``(height, width)``, for imshow.

    Args:
        images: Shape ``(M, C, H, W)``.
        rows: Which images stand in each row.
        columns: Cells in a row; those without an image are white.
    """
    _, c, h, w = images.shape
    gap = _gap(images)
    cells = images.new_ones(len(rows), columns, c, h + gap, w + gap)
    for row, chosen in zip(cells, rows, strict=True):
        row[: len(chosen), :, :h, :w] = images[chosen]
    mosaic = cells.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    mosaic = mosaic[:-gap, :-gap]  # gaps stand between images only
    return (mosaic if c == 3 else mosaic[..., 0]).numpy()
