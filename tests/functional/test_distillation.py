"""Distillation of softened probabilities."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax
from torch.testing import assert_close

from avalanche_ext.functional.distillation import distillation_loss


def scores(rng, *shape, dtype=torch.double):
    return 3 * torch.randn(2, *shape, generator=rng, dtype=dtype)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 7.0])
@pytest.mark.parametrize("shape", [(1, 1), (5, 4), (2, 30)])
def test_distillation_agrees_with_the_formula_written_slowly(shape, temperature, rng):
    z, r = scores(rng, *shape)
    slow = 0.0
    for b in range(shape[0]):
        p, q = [[float((v / temperature).exp()) for v in each[b]] for each in (z, r)]
        for ours, theirs in zip(p, q):
            ours, theirs = ours / sum(p), theirs / sum(q)
            slow += theirs * torch.tensor(theirs / ours).log() / shape[0]
    assert_close(
        distillation_loss(z, r, temperature).item(), float(slow), rtol=1e-6, atol=1e-6
    )


def test_distillation_is_zero_exactly_where_the_probabilities_agree(rng):
    z, r = scores(rng, 5, 4)
    shift = torch.randn(5, 1, generator=rng, dtype=torch.double)
    assert distillation_loss(z + shift, z).abs() < 1e-15
    assert distillation_loss(z, r) > 0.1
    assert_close(distillation_loss(z + shift, r), distillation_loss(z, r - shift))


def test_distillation_of_a_single_class_is_zero(rng):
    z, r = scores(rng, 5, 1)
    assert distillation_loss(z, r) == 0


def test_distillation_has_the_gradient_of_cross_entropy_with_soft_targets(rng):
    z, r = scores(rng, 6, 3)
    z.requires_grad_()
    (ours,) = torch.autograd.grad(distillation_loss(z, r, 3.0), z)
    (theirs,) = torch.autograd.grad(cross_entropy(z / 3, softmax(r / 3, 1)), z)
    assert_close(ours, theirs)


def test_distillation_times_squared_temperature_tends_to_half_the_variance(rng):
    z, r = scores(rng, 6, 3)
    hot = 1e4**2 * distillation_loss(z, r, 1e4)
    assert_close(hot, (z - r).var(1, correction=0).mean() / 2, rtol=1e-3, atol=0)


def test_distillation_is_the_form_of_the_published_code(rng):
    z, r = scores(rng, 6, 5)
    t, beta, n_old = 2.0, 0.25, 5
    each = kl_div(log_softmax(z / t, 1), softmax(r / t, 1), reduction="none")
    assert_close(distillation_loss(z, r, t), each.mean() * t * t * beta * n_old)


def test_distillation_has_correct_gradients(rng):
    z, r = scores(rng, 5, 4)
    assert gradcheck(distillation_loss, (z.requires_grad_(), r))


def test_a_masked_class_counts_for_nothing(rng):
    z, r = scores(rng, 5, 4, dtype=torch.float)
    wanted = distillation_loss(z[:, :3], r[:, :3])
    z[:, 3] = r[:, 3] = -1000
    assert_close(distillation_loss(z, r), wanted)


def test_half_precision_is_computed_in_single(rng):
    z, r = scores(rng, 5, 4, dtype=torch.bfloat16)
    assert torch.equal(distillation_loss(z, r), distillation_loss(z.float(), r.float()))


def test_distillation_refuses_wrong_arguments():
    two = torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"\(2, 2\), reference \(2, 3\); wanted both"):
        distillation_loss(two, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"\(2,\), reference \(2,\); wanted both"):
        distillation_loss(torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match="at least one class"):
        distillation_loss(torch.ones(2, 0), torch.ones(2, 0))
    with pytest.raises(ValueError, match="temperature is 0; wanted a number above 0"):
        distillation_loss(two, two, 0)
