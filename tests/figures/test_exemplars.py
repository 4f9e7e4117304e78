"""Grids and embeddings of exemplars."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch.testing import assert_close

from avalanche_ext.figures import exemplar_embedding, exemplar_grid


def shown(axes):
    [image] = axes.images
    return torch.tensor(image.get_array().data)


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_are_classes_and_columns_exemplars_in_their_order(channels, rng, tmp_path):
    targets = torch.tensor([7, 2, 7, 2, 7, 5])  # ragged: 2, 1 and 3 exemplars
    before = torch.rand(6, channels, 4, 6, generator=rng)
    after = (before + 0.1 * torch.randn(before.shape, generator=rng)).clamp(0, 1)
    figure = exemplar_grid(before.requires_grad_(), after, targets, title="pictures")
    figure.savefig(tmp_path / "grid.png")
    first, second, third = figure.axes
    before = before.detach().double()
    change = after.double() - before
    factor = 0.5 / float(change.abs().max())
    assert [axes.get_title() for axes in (first, second)] == ["before", "after"]
    assert third.get_title() == f"difference × {factor:.3g}"
    assert f"{255 * float(change.abs().max()):.3g} of 255" in third.get_xlabel()
    assert [t.get_text() for t in first.get_yticklabels()] == ["2", "5", "7"]
    assert figure.get_suptitle() == "pictures"
    cells = {(0, 0): 1, (0, 1): 3, (1, 0): 5, (2, 0): 0, (2, 1): 2, (2, 2): 4}
    images = (before, after.double(), 0.5 + factor * change)
    for axes, wanted in zip((first, second, third), images):
        pixels = shown(axes)
        pixels = pixels[..., None] if channels == 1 else pixels
        assert pixels.shape == (3 * 5 - 1, 3 * 7 - 1, channels)
        for row in range(3):
            for column in range(3):
                cell = pixels[5 * row :, 7 * column :][:4, :6].permute(2, 0, 1)
                i = cells.get((row, column))
                assert_close(cell, torch.ones_like(cell) if i is None else wanted[i])
        assert (pixels[4::5] == 1).all() and (pixels[:, 6::7] == 1).all()
        assert axes.images[0].get_clim() == (0, 1)
        grey = axes.images[0].cmap([0.0, 0.5, 1.0])[:, :3]
        assert channels == 3 or (grey[:, 0] == grey[:, 1]).all()


def test_the_largest_change_is_black_or_white_and_none_is_mid_grey():
    before = torch.full((2, 1, 2, 2), 0.5)
    after = before.clone()
    after[1, 0, 0, 0] = 0.375
    *_, third = exemplar_grid(before, after, torch.tensor([0, 0])).axes
    assert third.get_title() == "difference × 4"
    assert shown(third)[:2].unique().tolist() == [0.0, 0.5, 1.0]  # 1: the gap
    *_, same = exemplar_grid(before, before, torch.tensor([0, 1])).axes
    assert same.get_title() == "difference × 1"
    assert set(shown(same).unique().tolist()) == {0.5, 1.0}


def test_only_so_many_classes_and_exemplars_are_drawn(rng):
    images = torch.rand(200, 3, 2, 2, generator=rng)
    targets = torch.arange(200) % 40
    figure = exemplar_grid(images, images, targets, per_class=3, classes=4)
    assert shown(figure.axes[0]).shape == (4 * 3 - 1, 3 * 3 - 1, 3)
    [*names] = figure.axes[0].get_yticklabels()
    assert [t.get_text() for t in names] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("n_classes", [1, 100])
def test_names_of_classes_do_not_overlap_however_many_there_are(n_classes):
    images = torch.zeros(2 * n_classes, 1, 8, 8)
    targets = torch.arange(len(images)) % n_classes
    figure = exemplar_grid(images, images, targets, classes=n_classes)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    labels = figure.axes[0].get_yticklabels()
    boxes = [label.get_window_extent(renderer) for label in labels]
    assert len(boxes) == n_classes
    assert not any(one.overlaps(two) for one, two in pairwise(boxes))
    assert max(figure.get_size_inches()) < 15


def test_pixels_may_leave_0_to_1_by_rounding_only():
    ones, y = torch.ones(1, 1, 2, 2), torch.tensor([0])
    figure = exemplar_grid(ones + 2e-7, ones, y)
    assert shown(figure.axes[0]).max() == 1
    with pytest.raises(ValueError, match=r"after is in \[1.1, 1.1\]; wanted \[0, 1\]"):
        exemplar_grid(ones, 1.1 * ones, y)


GREY, Y = torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("before", "after", "targets", "options", "message"),
    [
        (GREY, GREY[:1], Y, {}, r"\(1, 1, 4, 4\).*wanted \(M, C, H, W\) twice"),
        (GREY[:, 0], GREY[:, 0], Y, {}, "wanted .* twice"),
        (GREY, GREY, Y[:1], {}, r"\(1,\)\]; wanted"),
        (GREY[:0], GREY[:0], Y[:0], {}, r"\(0, 1, 4, 4\)"),
        (GREY.repeat(1, 2, 1, 1), GREY.repeat(1, 2, 1, 1), Y, {}, "1 or 3 channels"),
        (GREY - 0.2, GREY, Y, {}, r"before is in \[-0.2, -0.2\]; wanted \[0, 1\]"),
        (GREY, GREY + torch.nan, Y, {}, r"after is in \[nan, nan\]"),
        (GREY, GREY, Y.float(), {}, "targets is torch.float32; wanted whole numbers"),
        (GREY, GREY, Y, {"per_class": 0}, "per_class is 0; wanted"),
        (GREY, GREY, Y, {"classes": 1.5}, "classes is 1.5; wanted"),
        (GREY, GREY, Y, {"title": None}, "title is None; wanted a str"),
        (GREY, GREY, [0, 1], {}, "targets is .* wanted a Tensor"),
    ],
)
def test_exemplar_grid_refuses_what_does_not_fit(
    before, after, targets, options, message
):
    with pytest.raises(ValueError, match=message):
        exemplar_grid(before, after, targets, **options)


def clusters(rng, n=56, n_classes=7):
    """Far groups of features."""
    y = torch.arange(n) % n_classes
    return 20 * torch.eye(n_classes)[y] + torch.randn(n, n_classes, generator=rng), y


def test_each_panel_embeds_data_and_its_exemplars_light_and_dark(rng, tmp_path):
    data, y = clusters(rng)
    choices = {"random": (data[:21], y[:21]), "one": (data[:1], y[:1])}
    figure = exemplar_embedding(data, y + 3, {k: (f, t + 3) for k, (f, t) in choices.items()}, perplexity=5)  # fmt: skip
    figure.savefig(tmp_path / "t_sne.png")
    assert [axes.get_title() for axes in figure.axes] == ["random", "one"]
    for axes, (features, _) in zip(figure.axes, choices.values()):
        groups = axes.collections
        points = [len(group.get_offsets()) for group in groups]
        assert sum(points[:7]) == len(data) and sum(points[7:]) == len(features)
        assert points[:7] == [8] * 7
    light, dark = figure.axes[0].collections[:7], figure.axes[0].collections[7:]
    colors = [[tuple(g.get_facecolor()[0]) for g in part] for part in (light, dark)]
    for one, two in zip(*colors):
        assert sum(one[:3]) > sum(two[:3]) + 0.5
    assert len({*colors[0]}) == len({*colors[1]}) == 6  # two classes share grey
    red, green, blue, _ = colors[0][5]
    assert colors[0][5] == colors[0][6] and red == green == blue
    shapes = [g.get_paths()[0].vertices.tobytes() for g in dark]
    assert len(set(shapes)) == 6 and shapes[5] == shapes[6]
    [legend] = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [*(f"class {c}" for c in range(3, 8)), "other classes"]


def test_embedded_exemplars_lie_among_their_class(rng):
    data, y = clusters(rng)
    choices = {"same": (data[:7] + 0.01, y[:7])}
    figure = exemplar_embedding(data, y, choices, perplexity=5)
    groups = [torch.tensor(g.get_offsets().data) for g in figure.axes[0].collections]
    centres = torch.stack([group.mean(dim=0) for group in groups[:7]])
    for label, exemplar in enumerate(groups[7:]):
        assert (centres - exemplar).norm(dim=1).argmin() == label


def test_an_embedding_is_fixed_by_its_seed_and_draws_from_no_generator(rng):
    data, y = clusters(rng, 28)

    def points(seed):
        figure = exemplar_embedding(data, y, {"a": (data[:3], y[:3])}, perplexity=4, seed=seed)  # fmt: skip
        offsets = [g.get_offsets().data for g in figure.axes[0].collections]
        return torch.cat([torch.tensor(o) for o in offsets])

    states = torch.get_rng_state(), random.getstate()
    first = points(1)
    assert torch.equal(first, points(1))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()


def test_figures_are_not_among_those_that_pyplot_keeps(rng):
    before = pyplot.get_fignums()
    data, y = clusters(rng, 14, 2)
    exemplar_grid(GREY, GREY, Y)
    exemplar_embedding(data, y, {str(i): (data, y) for i in range(4)}, perplexity=3)
    assert pyplot.get_fignums() == before


DATA, T = torch.zeros(4, 3), torch.arange(4)


@pytest.mark.parametrize(
    ("data", "targets", "exemplars", "options", "message"),
    [
        (DATA, T, {}, {}, "exemplars is empty; wanted at least one"),
        (DATA, T, None, {}, "exemplars is None; wanted a Mapping"),
        (DATA, T, {"a": DATA}, {}, "exemplars 'a' is no pair; wanted"),
        (DATA, T, {"a": (DATA, T)}, {}, "8 samples with exemplars 'a'; .* perplexity, 30"),
        (DATA, T, {"a": (DATA, T)}, {"perplexity": 8}, "8 samples .* perplexity, 8"),
        (DATA, T, {"a": (DATA, T)}, {"perplexity": 0}, "perplexity is 0; wanted"),
        (DATA, T, {"a": (DATA, T)}, {"seed": -1}, "seed is -1; wanted"),
        (DATA, T[:2], {"a": (DATA, T)}, {}, r"data is \(4, 3\) with targets \(2,\)"),
        (DATA, T, {"a": (DATA[:, :2], T)}, {}, r"exemplars 'a' is \(4, 2\) with"),
        (DATA[:, :1], T, {"a": (DATA[:, :1], T)}, {}, "D >= 2"),
        (DATA, T.float(), {"a": (DATA, T)}, {}, "targets of data is torch.float32"),
        (DATA, T, {"a": (DATA / 0, T)}, {}, "exemplars 'a' has nan or infinity"),
        (DATA, T, {"a": (DATA, [0])}, {}, "targets of exemplars 'a' is .* a Tensor"),
    ],
)  # fmt: skip
def test_exemplar_embedding_refuses_what_it_cannot_embed(
    data, targets, exemplars, options, message
):
    with pytest.raises(ValueError, match=message):
        exemplar_embedding(data, targets, exemplars, **options)
