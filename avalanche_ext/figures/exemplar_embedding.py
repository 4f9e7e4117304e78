"""Where exemplars lie among the data."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from avalanche_ext._checks import require_kind, require_positive, require_whole
from avalanche_ext.figures.exemplars import require_class_ids

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

_PANEL = 3.2  # inches, of one embedding
_COLUMNS = 3  # embeddings in a row, at most
# Okabe and Ito's, told apart by the colour-blind, and a shape each
_CLASSES = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
)


def exemplar_embedding(
    data: Tensor,
    data_targets: Tensor,
    exemplars: Mapping[str, tuple[Tensor, Tensor]],
    *,
    perplexity: float = 30.0,
    seed: int = 0,
) -> Figure:
    """Draw where several choices of exemplars lie among the data, by t-SNE.

    One panel a choice, each an embedding of its own of data and exemplars together.
    The five classes of the lowest ids have a colour and a shape each, light for data
    and dark for exemplars; crosses, light and dark grey, are the other classes.

    Args:
        data: Features of the data, shape ``(N, D)``, D >= 2.
        data_targets: Their class ids, shape ``(N,)``.
        exemplars: By the name of the choice, features ``(M, D)`` and class ids
            ``(M,)``; at least one choice.
        perplexity: Of t-SNE, about the number of neighbours that count, > 0; below
            N + M.
        seed: Of t-SNE, >= 0.

    Returns:
        A figure bound to no window.

    Raises:
        ValueError: If a shape does not fit, a feature is not finite, or there are too
            few samples for the perplexity.

    Example:
        >>> data, y = torch.randn(12, 4), torch.arange(12) % 2
        >>> choices = {"first": (data[:4], y[:4]), "last": (data[8:], y[8:])}
        >>> figure = exemplar_embedding(data, y, choices, perplexity=3)
        >>> [axes.get_title() for axes in figure.axes]
        ['first', 'last']

    References:
        van der Maaten and Hinton, JMLR 2008 (t-SNE); Liu et al., CVPR 2020 (Mnemonics).
    """
    require_positive(perplexity=perplexity)
    require_whole(0, seed=seed)
    _require_choices(data, data_targets, exemplars, perplexity)
    columns = min(len(exemplars), _COLUMNS)
    rows = math.ceil(len(exemplars) / columns)
    size = (_PANEL * columns + 1.5, _PANEL * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels[len(exemplars) :]:
        panel.remove()
    every = [data_targets, *(y for _, y in exemplars.values())]
    ids = sorted({label for targets in every for label in targets.tolist()})
    for panel, (name, (features, targets)) in zip(
        panels, exemplars.items(), strict=False
    ):
        points = _t_sne(torch.cat([_rows(data), _rows(features)]), perplexity, seed)
        _scatter(panel, points[: len(data)], data_targets, ids, dark=False)
        _scatter(panel, points[len(data) :], targets, ids, dark=True)
        panel.set_title(name, fontsize="small")
        panel.set(xticks=[], yticks=[])
    figure.legend(
        handles=_entries(ids),
        title="light: data\ndark: exemplars",
        loc="outside right upper",
        fontsize="small",
        title_fontsize="small",
    )
    return figure


def _require_choices(
    data: Any, data_targets: Any, exemplars: Any, perplexity: float
) -> None:
    """Refuse what cannot be embedded."""
    require_kind(Mapping, exemplars=exemplars)
    if not exemplars:
        raise ValueError("exemplars is empty; wanted at least one choice")
    pairs = {"data": (data, data_targets)}
    for name, pair in exemplars.items():
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f"exemplars {name!r} is no pair; wanted features, targets")
        pairs[f"exemplars {name!r}"] = (pair[0], pair[1])
    for name, (features, targets) in pairs.items():
        require_kind(Tensor, **{name: features, f"targets of {name}": targets})
        fits = features.ndim == 2 and len(features) > 0 and features.shape[1] > 1
        fits = fits and features.shape[1:] == data.shape[1:]
        if not fits or targets.shape != features.shape[:1]:
            raise ValueError(
                f"{name} is {tuple(features.shape)} with targets "
                f"{tuple(targets.shape)}; wanted (N, D) and (N,), D >= 2 and the same "
                "for all"
            )
        require_class_ids(**{f"targets of {name}": targets})
        if not bool(features.isfinite().all()):
            raise ValueError(f"{name} has nan or infinity; wanted finite numbers")
    for name, (features, _) in exemplars.items():
        if (samples := len(data) + len(features)) <= perplexity:
            raise ValueError(
                f"{samples} samples with exemplars {name!r}; wanted more than the "
                f"perplexity, {perplexity:g}"
            )


def _rows(features: Tensor) -> Tensor:
    return features.detach().cpu().double()


def _t_sne(features: Tensor, perplexity: float, seed: int) -> np.ndarray[Any, Any]:
    """Points in the plane, shape ``(N, 2)``."""
    state = random.getstate()
    from sklearn.manifold import TSNE  # takes long, and draws from the generator

    random.setstate(state)
    method = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    points: np.ndarray[Any, Any] = method.fit_transform(features.numpy())
    return points


def _style(ids: list[int], label: int, *, dark: bool) -> tuple[str, Any]:
    """Marker and colour of a class."""
    place = ids.index(label)
    if place >= len(_CLASSES):
        return "x", "0.35" if dark else "0.8"
    color, marker = _CLASSES[place]
    end, share = (0.0, 0.35) if dark else (1.0, 0.65)
    return marker, tuple((1 - share) * part + share * end for part in to_rgb(color))


def _entries(ids: list[int]) -> list[Line2D]:
    """What the legend shows: a dark mark a class, one for all beyond the first."""
    named = {f"class {c}": c for c in ids[: len(_CLASSES)]}
    if len(ids) > len(_CLASSES):
        named["other classes"] = ids[-1]
    marks = {name: _style(ids, label, dark=True) for name, label in named.items()}
    return [
        Line2D([], [], ls="", ms=5, marker=marker, color=color, label=name)
        for name, (marker, color) in marks.items()
    ]


def _scatter(
    panel: Axes,
    points: np.ndarray[Any, Any],
    targets: Tensor,
    ids: list[int],
    *,
    dark: bool,
) -> None:
    """Draw points class by class, exemplars larger and above the data."""
    labels = targets.cpu().numpy()
    for label in ids:
        mine = points[labels == label]
        marker, color = _style(ids, label, dark=dark)
        panel.scatter(
            mine[:, 0],
            mine[:, 1],
            s=22 if dark else 9,
            marker=marker,
            color=color,
            linewidths=1,
            zorder=2 * dark + (marker != "x"),
        )
