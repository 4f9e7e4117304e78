"""Average incremental accuracy from an accuracy matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from avalanche_ext.functional.average_incremental_accuracy import (
    average_incremental_accuracy,
)


@pytest.mark.golden("bdr_cwd", "average_incremental_accuracy*.json")
def test_average_incremental_accuracy_agrees_with_the_authors(golden):
    for case in golden:
        matrix = torch.tensor(case["task_agnostic_accuracy"], dtype=torch.double)
        average = average_incremental_accuracy(matrix, case["classes_per_phase"])
        wanted = case["average_incremental_accuracy_percent"]
        assert abs(100 * average.item() - wanted) < 1e-6


@given(st.integers(0, 99), st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_average_incremental_accuracy_agrees_with_the_definition_written_slowly(
    seed, counts
):
    size = len(counts)
    rng = torch.Generator().manual_seed(seed)
    matrix = torch.rand(size, size, generator=rng, dtype=torch.double)
    accuracies = []
    for i in range(size):
        hits = sum(counts[j] * matrix[i, j].item() for j in range(i + 1))
        accuracies.append(hits / sum(counts[: i + 1]))
    average = average_incremental_accuracy(matrix, counts)
    assert abs(average.item() - sum(accuracies) / size) < 1e-12
    assert matrix.min() <= average <= matrix.max()


def test_average_incremental_accuracy_does_not_read_future_experiences(rng):
    matrix = torch.rand(4, 4, generator=rng)
    future = torch.ones(4, 4).triu(1).bool()
    without = matrix.masked_fill(future, float("nan"))
    counts = torch.tensor([50, 10, 10, 10])
    assert_close(
        average_incremental_accuracy(without, counts),
        average_incremental_accuracy(matrix, counts),
    )


def test_average_incremental_accuracy_is_in_the_unit_of_the_matrix(rng):
    matrix = torch.rand(3, 3, generator=rng)
    assert_close(
        average_incremental_accuracy(100 * matrix, [5, 5, 5]),
        100 * average_incremental_accuracy(matrix, [5, 5, 5]),
    )


@pytest.mark.parametrize(
    ("shape", "counts", "message"),
    [
        ((2, 3), [5, 5], r"\(2, 3\).*square"),
        ((3, 3), [5, 5], r"\(3, 3\).*2 classes_per_experience"),
        ((0, 0), [], r"\(0, 0\)"),
        ((2, 2), [5, 0], "numbers > 0"),
    ],
)
def test_average_incremental_accuracy_refuses_what_does_not_fit(shape, counts, message):
    with pytest.raises(ValueError, match=message):
        average_incremental_accuracy(torch.ones(shape), counts)
