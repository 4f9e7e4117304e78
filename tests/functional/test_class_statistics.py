"""Size, centre and spread of classes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from avalanche_ext.functional.class_statistics import (
    ClassStatistics,
    class_statistics,
    is_finite,
    merge_statistics,
    sum_statistics,
)


def slowly(features, positions, n_classes):
    counts, means, dispersions = [], [], []
    for k in range(n_classes):
        rows = features[positions == k].double()
        counts.append(float(len(rows)))
        means.append(
            rows.mean(0) if len(rows) else torch.zeros(features.shape[1]).double()
        )
        squares = [(row - means[-1]).square().sum().item() for row in rows]
        dispersions.append(sum(squares) / max(1, len(rows)))
    return ClassStatistics(
        torch.tensor(counts).double(),
        torch.stack(means),
        torch.tensor(dispersions).double(),
    )


def a_set(seed, n, n_classes=4, d=3):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=rng, dtype=torch.double)
    return x, torch.randint(n_classes, (n,), generator=rng)


@given(st.integers(0, 9), st.integers(0, 12))
def test_class_statistics_agree_with_the_formula_written_slowly(seed, n):
    x, y = a_set(seed, n)
    for ours, wanted in zip(class_statistics(x, y, 4), slowly(x, y, 4)):
        assert_close(ours, wanted)


@given(st.integers(0, 9), st.integers(0, 12), st.integers(0, 12))
def test_merged_statistics_are_those_of_the_whole(seed, n, m):
    x, y = a_set(seed, n + m)
    parts = class_statistics(x[:n], y[:n], 4), class_statistics(x[n:], y[n:], 4)
    for ours, wanted in zip(merge_statistics(*parts), class_statistics(x, y, 4)):
        assert_close(ours, wanted)


@given(st.integers(0, 9), st.integers(0, 12), st.integers(0, 12))
def test_summed_statistics_are_those_of_the_whole(seed, n, m):
    x, y = a_set(seed, n + m)
    parts = class_statistics(x[:n], y[:n], 4), class_statistics(x[n:], y[n:], 4)
    # what each process hands to the sum, in order
    handed = [[], []]
    for part, out in zip(parts, handed):
        sum_statistics(part, lambda t, out=out: out.append(t) or t)
    counts = handed[0][0] + handed[1][0]
    means = (handed[0][1] + handed[1][1]) / counts.clamp_min(1)[:, None]
    totals = iter([counts, means * counts.clamp_min(1)[:, None], None])

    def total(t):
        found = next(totals)
        if found is not None:
            return found
        other = parts[1]
        squares = other.dispersions + (other.means - means).square().sum(1)
        return t + other.counts * squares

    for ours, wanted in zip(sum_statistics(parts[0], total), class_statistics(x, y, 4)):
        assert_close(ours, wanted)


def test_statistics_of_features_far_from_zero_keep_their_precision():
    x = 1e6 + torch.tensor([[0.0], [2.0]])
    assert_close(
        class_statistics(x, torch.zeros(2, dtype=torch.long), 1).dispersions,
        torch.ones(1, dtype=torch.double),
    )


def test_statistics_have_no_gradient_and_leave_the_features_alone():
    x = torch.randn(6, 3, requires_grad=True)
    before = x.detach().clone()
    found = class_statistics(x * 1, torch.arange(6) % 2, 2)
    assert not any(t.requires_grad for t in found)
    assert torch.equal(x, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_classes_that_are_not_finite_are_found(value):
    x = torch.zeros(4, 2)
    x[3, 1] = value
    found = class_statistics(x, torch.tensor([0, 1, 0, 2]), 4)
    assert is_finite(found).tolist() == [True, True, False, True]
