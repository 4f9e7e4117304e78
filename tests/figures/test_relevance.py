"""Figures of capacity and relevance."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch.testing import assert_close

from avalanche_ext.figures import capacity_figure, heatmap_figure
from avalanche_ext.functional.relevance import Capacity


def layers(n_layers, n_experiences):
    """Layers of 2E + 1 units: experience t first freezes one, the rest is free."""
    one = Capacity([1] * n_experiences, [0] * n_experiences, n_experiences + 1)
    return {f"backbone.layer{i}.0.conv1": one for i in range(n_layers)}


def boxes_of(figure, artists):
    renderer = FigureCanvasAgg(figure).get_renderer()
    return [artist.get_window_extent(renderer) for artist in artists]


def test_bars_of_each_layer_are_its_shares_and_fill_a_hundred_percent():
    capacity = {
        "conv": Capacity([3, 5, 0], [0, 2, 8], 2),
        "head": Capacity([2, 0, 2], [0, 0, 0], 0),
    }
    [axes] = capacity_figure(capacity).axes
    bars = [[c.patches[i] for c in axes.containers] for i in range(2)]
    widths = [[bar.get_width() for bar in row] for row in bars]
    assert widths == [[30, 50, 0, 20], [50, 0, 50, 0]]
    for row in bars:
        ends = [0.0, *(bar.get_x() + bar.get_width() for bar in row)]
        assert [bar.get_x() for bar in row] == ends[:-1] and ends[-1] == 100
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["conv (10)", "head (4)"]


@pytest.mark.parametrize(("n_layers", "n"), [(1, 1), (25, 5), (50, 20)])
def test_names_and_legend_do_not_overlap_however_many_there_are(n_layers, n, tmp_path):
    figure = capacity_figure(layers(n_layers, n))
    figure.savefig(tmp_path / "capacity.png")
    [axes] = figure.axes
    names = boxes_of(figure, axes.get_yticklabels())
    assert len(names) == n_layers
    assert not any(one.overlaps(two) for one, two in pairwise(names))
    [legend] = figure.legends
    assert len(legend.get_texts()) == n + 1
    inner = figure.bbox
    outer, plot = boxes_of(figure, [legend, axes])
    assert not outer.overlaps(plot) and plot.width > 0.3 * inner.width
    if n_layers > 1:  # one bar is lower than any legend
        assert outer.y0 >= 0 and outer.x1 <= inner.x1


def test_heatmaps_are_symmetric_about_zero_and_sum_over_channels(rng, tmp_path):
    image = torch.rand(3, 5, 7, generator=rng)
    maps = torch.randn(8, 3, 5, 7, generator=rng)
    maps[2] = 0
    titles = [f"experience {t}" for t in range(8)]
    figure = heatmap_figure(image.requires_grad_(), maps.requires_grad_(), titles)
    figure.savefig(tmp_path / "heat.png")
    first, *panels = figure.axes
    assert [panel.get_title() for panel in panels] == titles
    for panel, relevance in zip(panels, maps.detach().double().sum(1)):
        [shown] = panel.images
        end = float(relevance.abs().max())
        assert_close(torch.tensor(shown.get_array().data), relevance)
        assert shown.get_clim() == pytest.approx((-(end or 1), end or 1))
    white = panels[2].images[0].to_rgba(torch.zeros(1, 1).numpy())
    assert white.min() > 0.99
    pixels = torch.tensor(first.images[0].get_array().data)
    assert pixels.shape == (5, 7, 3) and (pixels.min(), pixels.max()) == (0, 1)


def test_heatmaps_without_channels_are_those_with_one(rng):
    image = torch.full((1, 4, 4), 3.0)
    maps = torch.randn(2, 4, 4, generator=rng)
    ours, same = (heatmap_figure(image, m, ["a", "b"]) for m in (maps, maps[:, None]))
    for one, two in zip(ours.axes, same.axes, strict=True):
        assert (one.images[0].get_array() == two.images[0].get_array()).all()
    assert ours.axes[0].images[0].get_array().shape == (4, 4)


def test_figures_are_not_among_those_that_pyplot_keeps(rng):
    before = pyplot.get_fignums()
    capacity_figure(layers(2, 2))
    heatmap_figure(torch.ones(1, 2, 2), torch.randn(1, 2, 2, generator=rng), ["a"])
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize(
    "capacity", [{"a": Capacity([1], [0], 1), "b": Capacity([1, 0], [0, 0], 1)}]
)
def test_capacity_figure_refuses_what_it_cannot_stack(capacity):
    with pytest.raises(ValueError, match=f"capacity has {len(capacity)} layers"):
        capacity_figure(capacity)
    with pytest.raises(ValueError, match="capacity is empty; wanted at least one"):
        capacity_figure({})
    with pytest.raises(ValueError, match="capacity is None; wanted a Mapping"):
        capacity_figure(None)


@pytest.mark.parametrize(
    ("image", "maps", "titles", "message"),
    [
        (torch.zeros(4, 4), torch.zeros(1, 4, 4), "a", r"image is \(4, 4\)"),
        (torch.zeros(1, 4, 4), torch.zeros(1, 4, 5), "a", r"heatmaps \(1, 4, 5\)"),
        (torch.zeros(1, 4, 4), torch.zeros(0, 4, 4), "", r"heatmaps \(0, 4, 4\)"),
        (torch.zeros(1, 4, 4), torch.zeros(2, 4, 4), ["a"], "1 titles; wanted 2"),
        (torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), "a", "titles is 'a'; wanted a li"),
        (torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), [3], r"titles is \[3\]; wanted"),
        (torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), None, "titles is None; wanted"),
        (torch.zeros(1, 4, 4), torch.full((1, 4, 4), torch.nan), ["a"], "heatmaps has"),
        ([[0.0]], torch.zeros(1, 4, 4), "a", "image is .* wanted a Tensor"),
    ],
)
def test_heatmap_figure_refuses_what_does_not_fit(image, maps, titles, message):
    with pytest.raises(ValueError, match=message):
        heatmap_figure(image, maps, titles)
