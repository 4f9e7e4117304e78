"""Less-forget distillation and its weight."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from avalanche_ext.functional.less_forget import (
    adaptive_distillation_weight,
    less_forget_loss,
    mimic_scores_loss,
)


def test_less_forget_is_zero_for_equal_directions_and_two_for_opposite(rng):
    x = torch.randn(5, 4, generator=rng)
    lengths = torch.rand(5, 1, generator=rng) + 0.1
    assert less_forget_loss(x, lengths * x).abs() < 1e-6
    assert_close(less_forget_loss(x, -lengths * x), torch.tensor(2.0))


def test_less_forget_agrees_with_the_formula_written_slowly(rng):
    f, g = torch.randn(2, 5, 4, generator=rng, dtype=torch.double)
    slow = sum(1 - (a @ b) / (a.norm() * b.norm()) for a, b in zip(f, g)) / 5
    assert_close(less_forget_loss(f, g), slow)


def test_less_forget_has_correct_gradients(rng):
    f, g = torch.randn(2, 5, 4, generator=rng, dtype=torch.double)
    assert gradcheck(less_forget_loss, (f.requires_grad_(), g))


def test_less_forget_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(3, 2\); wanted \(2, 2\)"):
        less_forget_loss(torch.ones(2, 2), torch.ones(3, 2))


def test_mimic_scores_is_the_mean_squared_distance_of_score_vectors(rng):
    s, r = torch.randn(2, 5, 3, generator=rng, dtype=torch.double)
    assert_close(mimic_scores_loss(s, r), ((s - r) ** 2).sum(1).mean())


@pytest.mark.parametrize("mode", ["old_over_new", "new_over_old", "fixed"])
def test_weight_is_the_base_for_as_many_old_as_new_classes(mode):
    assert adaptive_distillation_weight(5.0, 7, 7, mode) == 5.0


def test_weight_of_the_paper_is_that_of_the_code_with_old_and_new_swapped():
    paper = adaptive_distillation_weight(5.0, 50, 10, "new_over_old")
    assert paper == adaptive_distillation_weight(5.0, 10, 50, "old_over_new")


@pytest.mark.parametrize(("n_old", "n_new"), [(0, 1), (1, 0), (-1, 5)])
def test_weight_refuses_counts_that_are_not_positive(n_old, n_new):
    with pytest.raises(ValueError, match=f"{n_old} old and {n_new} new"):
        adaptive_distillation_weight(5.0, n_old, n_new)


def test_weight_refuses_an_unknown_mode():
    with pytest.raises(ValueError, match="'up'; wanted 'old_over_new'"):
        adaptive_distillation_weight(5.0, 1, 1, "up")


@pytest.mark.golden("bdr_cwd", "adaptive_lambda.json")
def test_weight_agrees_with_the_authors(golden):
    for case in golden:
        weights = case["lambda_per_phase"]
        for i in range(1, case["n_increments"] + 1):
            n_old = case["first"] + (i - 1) * case["increment"]
            ours = adaptive_distillation_weight(
                case["lambda_base"], n_old, case["increment"]
            )
            assert ours == pytest.approx(weights[i], abs=1e-12)
