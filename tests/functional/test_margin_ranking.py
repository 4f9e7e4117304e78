"""Margin ranking between old and new classes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

from avalanche_ext.functional.margin_ranking import margin_ranking_loss


def slowly(scores, targets, n_old, margin, n_negatives):
    total, terms = torch.zeros((), dtype=scores.dtype), 0
    for s, y in zip(scores, targets):
        if y < n_old:
            for negative in sorted(s[n_old:], reverse=True)[:n_negatives]:
                total = total + max(0 * negative, margin - s[y] + negative)
                terms += 1
    return total / max(1, terms)


@given(st.integers(0, 9), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_margin_ranking_agrees_with_the_formula_written_slowly(
    seed, n_old, n_new, n_negatives
):
    rng = torch.Generator().manual_seed(seed)
    scores = torch.rand(7, n_old + n_new, generator=rng, dtype=torch.double) * 2 - 1
    targets = torch.randint(n_old + n_new, (7,), generator=rng)
    ours = margin_ranking_loss(scores, targets, n_old, 0.5, n_negatives)
    assert_close(ours, slowly(scores, targets, n_old, 0.5, n_negatives))


def test_margin_ranking_has_correct_gradients(rng):
    scores = torch.rand(7, 5, generator=rng, dtype=torch.double, requires_grad=True)
    targets = torch.randint(5, (7,), generator=rng)
    assert gradcheck(lambda s: margin_ranking_loss(s, targets, 3), (scores,))


def test_margin_ranking_is_zero_without_old_samples_but_has_a_gradient():
    scores = torch.rand(4, 5, requires_grad=True)
    loss = margin_ranking_loss(scores, torch.full((4,), 4), 3)
    loss.backward()
    assert loss == 0 and (scores.grad == 0).all()


@pytest.mark.parametrize("n_old", [0, 5])
def test_margin_ranking_is_zero_without_old_or_without_new_classes(n_old):
    scores = torch.rand(4, 5, requires_grad=True)
    loss = margin_ranking_loss(scores, torch.arange(4), n_old)
    loss.backward()
    assert loss == 0


def test_margin_ranking_is_zero_when_every_gap_exceeds_the_margin():
    scores = torch.tensor([[1.0, 0.0, 0.4, 0.4]])
    assert margin_ranking_loss(scores, torch.tensor([0]), 2, margin=0.5) == 0


def test_margin_ranking_refuses_no_negatives():
    with pytest.raises(ValueError, match="n_negatives is 0"):
        margin_ranking_loss(torch.rand(2, 3), torch.zeros(2).long(), 1, n_negatives=0)
