"""Path integral, importance and modulation of Synaptic Intelligence."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD
from torch.testing import assert_close

from avalanche_ext.functional.functional_prior import quadratic_penalty
from avalanche_ext.functional.synaptic_intelligence import (
    accumulated_trajectory,
    modulated_gradient,
    path_integral,
    weight_importance,
)

F64 = torch.double


def numbers(n, seed, dtype=F64):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_path_integral_is_the_fall_of_the_loss_in_small_steps():
    # L = sum(a θ⁴ / 4), along a straight line from 1 to -0.5
    a, steps = torch.arange(1.0, 7.0, dtype=F64), 20_000
    path = torch.linspace(1, -0.5, steps + 1, dtype=F64)
    tau = torch.zeros(6, dtype=F64)
    for old, new in pairwise(path):
        moved = (new - old).expand(6)
        tau = path_integral(tau, moved, a * ((old + new) / 2) ** 3)
    assert_close(tau, a * (0.5**4 - 1) / 4, rtol=1e-6, atol=0.0)


def test_path_integral_of_the_updates_is_minus_their_squares():
    tau = torch.zeros(6, dtype=F64)
    for moved in numbers(5, 0):
        tau = path_integral(tau, moved)
    assert_close(tau, -(numbers(5, 0) ** 2).sum(0))


def test_both_path_integrals_agree_for_plain_gradient_descent():
    g = numbers(1, 2)[0]
    ours = path_integral(torch.zeros_like(g), -g)
    assert torch.equal(ours, path_integral(torch.zeros_like(g), -g, g))


@given(
    st.integers(0, 10**6),
    st.floats(1e-6, 100),
    st.floats(0, 1),
    st.sampled_from(["some", None]),
)
def test_importance_is_within_its_bounds_and_monotone(seed, maximum, share, lower):
    minimum = None if lower is None else share * maximum
    cum = (numbers(1, seed)[0] * maximum).sort().values
    f = weight_importance(cum, max_importance=maximum, min_importance=minimum)
    assert (f <= maximum).all() and (f.diff() <= 0).all()
    if minimum is None:
        assert torch.equal(f, torch.minimum(-cum, torch.full_like(cum, maximum)))
    else:
        assert (f >= minimum).all()


def test_importance_of_what_raised_the_loss_is_0_and_of_nothing_too():
    f = weight_importance(torch.tensor([5.0, 0.0, -1e-4, -5.0]))
    assert f.tolist() == pytest.approx([0.0, 0.0, 1e-4, 1e-3])


@given(st.integers(0, 10**6), st.floats(0, 10), st.floats(1e-9, 10))
def test_trajectories_accumulate_weight_by_weight(seed, scale, damping):
    cum, tau, moved = numbers(3, seed)
    ours = accumulated_trajectory(cum, tau, moved, scale=scale, damping=damping)
    for i, value in enumerate(ours.tolist()):
        one, m = float(tau[i]), float(moved[i])
        wanted = float(cum[i]) + scale * one / (m * m + damping)
        assert value == pytest.approx(wanted, rel=1e-9)


def test_no_step_no_importance_and_no_division_by_zero():
    still = torch.zeros(3)
    assert not accumulated_trajectory(still, still, still).any()


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_modulation_is_the_formula_and_exact_at_both_ends(seed, decay):
    g, theta, b = numbers(3, seed)
    b = b.abs().clamp(max=1)
    ours = modulated_gradient(g, theta, b, decay)
    assert_close(ours, (g + decay * theta) * (1 - b) - decay * theta)
    assert torch.equal(modulated_gradient(g, theta, torch.zeros_like(b), decay), g)
    rest = modulated_gradient(g, theta, torch.ones_like(b), decay)
    assert torch.equal(rest, -decay * theta)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_modulated_gradients_scales_its_steps(nesterov):
    """Steps of each weight are those of SGD, times 1 - b; with b = 1 it rests."""
    theta, brake = numbers(1, 4)[0], torch.tensor([0, 0.25, 0.5, 0.9, 1, 1.0])
    decay = torch.tensor([0.1, 0.1, 0.1, 0.0, 0.1, 0.0], dtype=F64)
    brake, lr, mu = brake.to(F64), 0.05, 0.9
    p = [torch.nn.Parameter(w.clone()) for w in theta]
    groups = [{"params": [w], "weight_decay": float(d)} for w, d in zip(p, decay)]
    sgd = SGD(groups, lr=lr, momentum=mu, nesterov=nesterov)
    velocity, slow = torch.zeros(6, dtype=F64), theta.clone()
    for g in numbers(8, 5):
        now = torch.stack([w.detach() for w in p])
        for w, new in zip(p, modulated_gradient(g, now, brake, decay)):
            w.grad = new.clone()
        sgd.step()
        braked = (g + decay * slow) * (1 - brake)
        velocity = mu * velocity + braked
        slow = slow - lr * (braked + mu * velocity if nesterov else velocity)
    ended = torch.stack([w.detach() for w in p])
    assert_close(ended, slow)
    assert torch.equal(ended[4:], theta[4:]) and (ended[:4] != theta[:4]).all()


@pytest.mark.golden("ar1star", "si_update*.npz")
def test_importances_and_penalties_follow_the_authors(golden):
    n, lam = golden["n"], golden["lambd"]
    maximum, xi, c = golden["clip_to"], golden["xi"], golden["c"]
    cum, held = torch.zeros(n), torch.zeros(n)
    for e in range(golden["n_exp"]):
        theta, grads = golden[f"theta{e}"], golden[f"grad{e}"]
        tau = torch.zeros(n)
        for g, old, new in zip(grads, theta[:-1], theta[1:]):
            tau = path_integral(tau, new - old, g)
        assert_close(tau, golden[f"trajectory{e}"], **TIGHT)

        middle = theta[golden[f"penalty_mid_step{e}"] + 1].clone().requires_grad_()
        penalty = lam * quadratic_penalty(middle, theta[0], held)
        assert penalty.item() == pytest.approx(golden[f"penalty_mid{e}"], rel=1e-5)
        (gradient,) = torch.autograd.grad(penalty, middle)
        assert_close(gradient, golden[f"penalty_mid_grad{e}"], rtol=1e-5, atol=1e-12)
        assert quadratic_penalty(theta[0], theta[0], held) == 0

        moved = theta[-1] - theta[0]
        cum = accumulated_trajectory(cum, tau, moved, scale=c, damping=xi)
        assert_close(cum, golden[f"cum_trajectory{e}"], **TIGHT)
        bounds = {"max_importance": maximum}
        held = weight_importance(cum, min_importance=None, **bounds)
        assert_close(held, golden[f"importance{e}"], **TIGHT)
        clipped = weight_importance(cum, **bounds)
        assert_close(clipped, golden[f"importance{e}"].clamp(min=0), **TIGHT)
        assert torch.equal(theta[-1], golden[f"anchor{e}"])


TIGHT = {"rtol": 1e-5, "atol": 1e-12}
