"""Margins, losses and changes of pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_hex

from avalanche_ext.figures import margin_histogram, optimization_curves


def stairs(axes):
    return [patch.get_data() for patch in axes.patches]


def test_margins_are_first_less_second_in_percent_of_the_set(rng, tmp_path):
    sets = {
        "data": (4 * torch.randn(50, 6, generator=rng)).softmax(1).requires_grad_(),
        "sure": torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
        "torn": torch.tensor([[0.5, 0.5, 0.0]]),
    }
    figure = margin_histogram(sets)
    figure.savefig(tmp_path / "margins.png")
    [axes] = figure.axes
    names = axes.get_legend_handles_labels()[1]
    for rows, data, name in zip(sets.values(), stairs(axes), names, strict=True):
        ordered = rows.detach().double().sort(dim=1).values
        margins = (ordered[:, -1] - ordered[:, -2]).numpy()
        wanted, edges = np.histogram(margins, bins=20, range=(0, 1))
        np.testing.assert_allclose(data.values, 100 * wanted / len(rows))
        np.testing.assert_allclose(data.edges, edges)
        assert name.endswith(f"(mean {margins.mean():.2f})")
        assert data.values.sum() == pytest.approx(100)
    assert stairs(axes)[1].values[-1] == 100 == stairs(axes)[2].values[0]
    styles = [(to_hex(p.get_edgecolor()), p.get_linestyle()) for p in axes.patches]
    assert len({c for c, _ in styles}) == len({s for _, s in styles}) == 3


ROWS = torch.tensor([[0.25, 0.75]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (2 * ROWS, r"probabilities of 'a' sum to 2 in a row; wanted 1"),
        (torch.tensor([[1.5, -0.5]]), "probabilities of 'a' fall to -0.5; wanted >= 0"),
        (ROWS * torch.nan, "probabilities of 'a' fall to nan"),
        (torch.ones(3, 1), r"'a' are \(3, 1\); wanted .* two classes"),
        (ROWS[0], r"'a' are \(2,\); wanted \(N, K\)"),
        (ROWS[:0], r"'a' are \(0, 2\); wanted"),
        ([[1, 0]], "probabilities of 'a' is .* wanted a Tensor"),
    ],
)
def test_margin_histogram_refuses_what_are_no_probabilities(rows, message):
    with pytest.raises(ValueError, match=message):
        margin_histogram({"fine": ROWS, "a": rows})
    with pytest.raises(ValueError, match="probabilities is empty; wanted at least one"):
        margin_histogram({})
    with pytest.raises(ValueError, match="probabilities is None; wanted a Mapping"):
        margin_histogram(None)


def test_curves_are_the_losses_in_one_colour_a_name(rng, tmp_path):
    names = [f"experience {i}" for i in range(15)]
    outer = {n: torch.rand(5 + i, generator=rng) for i, n in enumerate(names)}
    inner = {n: torch.rand(len(outer[n]), 2, generator=rng) for n in names[1:]}
    inner[names[0]] = torch.rand(4, generator=rng).requires_grad_()
    inner["without"] = torch.zeros(7, 0)
    change = {n: 0.2 * torch.rand(2, 1, 3, 3, generator=rng) - 0.1 for n in names[:2]}
    figure = optimization_curves(outer, inner, change)
    figure.savefig(tmp_path / "curves.png")
    losses, inside, changes = figure.axes
    [legend] = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == names
    colors = [line.get_color() for line in legend.get_lines()]
    assert len(set(colors)) == len(names)
    assert [line.get_color() for line in losses.lines] == colors
    for line, values in zip(losses.lines, outer.values(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), values.numpy())
        assert list(line.get_xdata()) == list(range(len(values)))
    pairs = [(i, k) for i in range(1, 15) for k in range(2)]
    for line, (i, k) in zip(inside.lines, pairs):
        np.testing.assert_array_equal(line.get_ydata(), inner[names[i]][:, k].numpy())
        assert line.get_linestyle() == ("--", "-")[k] and line.get_color() == colors[i]
    alone = inside.lines[-1]
    assert len(inside.lines) == 29 and alone.get_linestyle() == "-"
    assert alone.get_color() == colors[0] and "dashed" in inside.get_title()
    assert [p.get_edgecolor() for p in changes.patches] == colors[:2]


def test_changes_are_counted_in_grey_levels_and_unchanged_ones_in_the_middle():
    moved = torch.tensor([0.0, 0.0, 0.0, 51 / 255])
    losses = {"a": torch.ones(1)}
    axes = optimization_curves(losses, {}, {"a": moved, "still": torch.zeros(2)}).axes
    one, still = stairs(axes[2])
    assert one.edges[[0, -1]] == pytest.approx([-51, 51])
    assert one.values[30] == 75 and one.values[60] == 25 and still.values[30] == 100
    assert axes[2].get_yscale() == "log"
    [nothing] = optimization_curves(losses, {}, {"a": torch.zeros(2)}).axes[2].patches
    assert nothing.get_data().values[30] == 100


def test_a_single_step_is_a_dot_and_empty_panels_say_why(tmp_path):
    figure = optimization_curves({"a": torch.ones(1)}, {"a": torch.ones(0, 2)}, {})
    figure.savefig(tmp_path / "curves.png")
    [line] = figure.axes[0].lines
    assert line.get_marker() == "."
    texts = [[t.get_text() for t in axes.texts] for axes in figure.axes]
    assert texts == [[], ["no inner loop"], ["no changes given"]]


def test_figures_are_not_among_those_that_pyplot_keeps():
    before = pyplot.get_fignums()
    margin_histogram({"a": ROWS})
    optimization_curves({"a": torch.ones(2)}, {}, {})
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize(
    ("outer", "inner", "change", "message"),
    [
        ({}, {}, {}, "outer is empty; wanted"),
        (None, {}, {}, "outer is None; wanted a Mapping"),
        ({"a": torch.ones(2, 2)}, {}, {}, r"outer of 'a' is \(2, 2\); wanted \(T,\)"),
        ({"a": torch.ones(0)}, {}, {}, r"outer of 'a' is \(0,\); wanted .* one step"),
        ({"a": ROWS[0] / 0}, {}, {}, "outer of 'a' has nan or infinity"),
        ({"a": [1.0]}, {}, {}, "outer of 'a' is .* wanted a Tensor"),
        ({}, {"a": torch.ones(2, 3)}, {}, "outer is empty"),
        ({"a": ROWS[0]}, {"a": torch.ones(2, 3)}, {}, r"inner of 'a' is \(2, 3\)"),
        ({"a": ROWS[0]}, {}, {"a": ROWS - 2}, "change of 'a' reaches 1.75; wanted"),
        ({"a": ROWS[0]}, {}, {"a": torch.ones(0, 3)}, r"change of 'a' is \(0, 3\)"),
    ],
)
def test_optimization_curves_refuse_what_they_cannot_draw(
    outer, inner, change, message
):
    with pytest.raises(ValueError, match=message):
        optimization_curves(outer, inner, change)
