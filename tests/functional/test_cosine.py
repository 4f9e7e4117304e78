"""Cosine scores and imprinted prototypes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

from avalanche_ext.functional.cosine import (
    cosine_logits,
    cosine_scores,
    imprinted_prototypes,
)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 9))
def test_scores_ignore_the_lengths_of_features_and_prototypes(a, b, seed):
    rng = torch.Generator().manual_seed(seed)
    f, w = torch.randn(5, 4, generator=rng), torch.randn(3, 4, generator=rng)
    assert_close(cosine_scores(a * f, b * w), cosine_scores(f, w))


def test_scores_lie_between_minus_one_and_one(rng):
    f = torch.randn(50, 4, generator=rng) * torch.logspace(-20, 20, 50)[:, None]
    assert cosine_scores(f, f).abs().max() <= 1 + 1e-6


def test_logits_agree_with_the_formula_written_slowly(rng):
    f = torch.randn(5, 4, generator=rng, dtype=torch.double)
    w = torch.randn(3, 4, generator=rng, dtype=torch.double)
    slow = [[2.5 * (x @ y) / (x.norm() * y.norm()) for y in w] for x in f]
    assert_close(cosine_logits(f, w, 2.5), torch.tensor(slow, dtype=torch.double))


def test_logits_have_correct_gradients(rng):
    f = torch.randn(5, 4, generator=rng, dtype=torch.double, requires_grad=True)
    w = torch.randn(3, 4, generator=rng, dtype=torch.double, requires_grad=True)
    scale = torch.tensor([1.7], dtype=torch.double, requires_grad=True)
    assert gradcheck(cosine_logits, (f, w, scale))


def test_scores_refuse_other_dimensions():
    with pytest.raises(ValueError, match="4 dimensions, prototypes 5"):
        cosine_scores(torch.ones(2, 4), torch.ones(2, 5))


@pytest.mark.golden("bdr_cwd", "cosine_linear_*.npz")
def test_cosine_layer_agrees_with_the_authors(golden):
    x, w, sigma = (golden[k].requires_grad_() for k in ("x", "weight", "sigma"))
    out = cosine_logits(x, w, sigma)
    assert_close(out, golden["out"], rtol=0, atol=1e-6)
    assert_close(cosine_scores(x, w), golden["out_nosigma"], rtol=0, atol=1e-6)
    grads = torch.autograd.grad(out, (x, w, sigma), golden["grad_out"])
    for name, grad in zip(("grad_x", "grad_weight", "grad_sigma"), grads):
        assert_close(grad, golden[name], rtol=1e-4, atol=1e-6)
    zero = cosine_logits(golden["x_zero_row"], w, sigma)
    assert_close(zero, golden["out_zero_row"], rtol=0, atol=1e-6)


@pytest.mark.golden("bdr_cwd", "split_cosine_*.npz")
def test_split_head_agrees_with_the_authors(golden):
    names = ("x", "weight_old", "weight_new", "sigma")
    x, old, new, sigma = (golden[k].requires_grad_() for k in names)
    scores = cosine_scores(x, torch.cat([old, new]))
    wanted = torch.cat([golden["scores_old"], golden["scores_new"]], dim=1)
    assert_close(scores, wanted, rtol=0, atol=1e-6)
    out = cosine_logits(x, torch.cat([old, new]), sigma)
    assert_close(out, golden["out"], rtol=0, atol=1e-6)
    grads = torch.autograd.grad(out, (x, old, new, sigma), golden["grad_out"])
    for name, grad in zip(names, grads):
        assert_close(grad, golden[f"grad_{name}"], rtol=1e-4, atol=1e-6)


@pytest.mark.golden("bdr_cwd", "imprint_*.npz")
def test_imprinting_agrees_with_the_authors(golden):
    targets = golden["new_targets"] - golden["new_targets"].min()
    wanted = golden["imprinted_weight"]
    ours = imprinted_prototypes(
        golden["new_features"], targets, len(wanted), golden["old_weight"]
    )
    assert_close(ours, wanted, rtol=0, atol=1e-6)


def test_imprinted_prototypes_have_the_mean_length_of_the_old(rng):
    x, old = torch.randn(9, 4, generator=rng), torch.randn(6, 4, generator=rng)
    ours = imprinted_prototypes(x, torch.arange(9) % 3, 3, old)
    assert_close(ours.norm(dim=1), old.norm(dim=1).mean().expand(3))


def test_imprinting_refuses_a_class_without_images():
    with pytest.raises(ValueError, match=r"\[2, 0\] images"):
        imprinted_prototypes(torch.ones(2, 4), torch.zeros(2).long(), 2, torch.eye(4))
