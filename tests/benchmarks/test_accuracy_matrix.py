"""Figures of papers, from a matrix of accuracies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avalanche_ext.functional.average_incremental_accuracy import (
    average_incremental_accuracy,
)
from benchmarks.runs.accuracy_matrix import (
    accuracy_over_experiences,
    backward_transfer,
    forgetting,
    paper_metrics,
)

ACCURACY = st.floats(0, 1)


@st.composite
def runs(draw):
    """A lower triangular matrix, and the number of images of each experience."""
    n = draw(st.integers(2, 6))
    cells = [[draw(ACCURACY) for _ in range(i + 1)] for i in range(n)]
    matrix = [row + [None] * (n - len(row)) for row in cells]
    return matrix, draw(st.lists(st.integers(1, 99), min_size=n, max_size=n))


@given(runs())
def test_accuracy_over_experiences_counts_each_image_once(run):
    matrix, images = run
    hits = [sum(a * n for a, n in zip(r, images, strict=True) if a) for r in matrix]
    slow = [hits[i] / sum(images[: i + 1]) for i in range(len(matrix))]
    np.testing.assert_allclose(accuracy_over_experiences(matrix, images), slow)


@given(runs())
def test_average_is_that_of_the_package_when_images_stand_for_classes(run):
    matrix, images = run
    ours = paper_metrics(matrix, images)["average_incremental_accuracy"]
    square = torch.tensor(np.array(matrix, dtype=float))
    theirs = average_incremental_accuracy(square, images)
    assert ours == pytest.approx(theirs.item())


@given(runs())
def test_forgetting_and_transfer_agree_with_a_slow_restatement(run):
    matrix, _ = run
    a = np.array(matrix, dtype=float)
    old = range(len(a) - 1)
    drops = [np.nanmax(a[:-1, j]) - a[-1, j] for j in old]
    changes = [a[-1, j] - a[j, j] for j in old]
    assert forgetting(matrix) == pytest.approx(np.mean(drops))
    assert backward_transfer(matrix) == pytest.approx(np.mean(changes))


@given(runs())
def test_forgetting_is_at_least_what_transfer_lost(run):
    matrix, _ = run
    assert forgetting(matrix) >= -backward_transfer(matrix) - 1e-12


@given(runs(), st.lists(ACCURACY, min_size=5, max_size=5))
def test_accuracy_of_experiences_not_seen_yet_does_not_count(run, future):
    matrix, images = run
    full = [
        [f if a is None else a for a, f in zip(row, [0.0, *future], strict=False)]
        for row in matrix
    ]
    assert accuracy_over_experiences(full, images) == accuracy_over_experiences(
        matrix, images
    )


def test_complete_test_set_gives_accuracy_and_no_forgetting():
    figures = paper_metrics([[0.25], [0.5], [0.75]], [100])
    assert figures["accuracy_over_experiences"] == [0.25, 0.5, 0.75]
    assert figures["average_incremental_accuracy"] == 0.5
    assert figures["forgetting"] is figures["backward_transfer"] is None


def test_experiences_without_evaluation_are_left_out_of_the_figures():
    rare = [[None], [0.5], [None], [0.75]]
    figures = paper_metrics(rare, [100])
    assert figures["accuracy_over_experiences"] == [None, 0.5, None, 0.75]
    assert figures["average_incremental_accuracy"] == 0.625
    assert figures["final_accuracy"] == 0.75
    square = [[1.0, None, None], [None] * 3, [0.5, 0.25, 1.0]]
    assert forgetting(square) == 0.5 and backward_transfer(square) == -0.5


def test_first_experience_alone_has_no_forgetting():
    assert forgetting([[0.5, None]]) is None


@pytest.mark.parametrize("matrix", [[], [[None, None]]])
def test_figures_of_nothing_are_refused(matrix):
    with pytest.raises(ValueError, match="wanted"):
        paper_metrics(matrix, [1, 1])
