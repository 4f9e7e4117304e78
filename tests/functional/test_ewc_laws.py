"""When the priors of EWC+FR+Replay are exact, in float64 and by dense computations."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from avalanche_ext.functional.fisher import diagonal_fisher
from avalanche_ext.functional.functional_prior import (
    FUNCTION,
    REPLAY,
    mixed_losses,
    quadratic_penalty,
    soft_targets,
)

N, D, C, DELTA = 24, 4, 3, 0.5
ALL = slice(0, N)


class Network:
    """A network as a function of one vector of weights, with data."""

    def __init__(self, module, seed=0):
        rng = torch.Generator().manual_seed(seed)
        self.module = module.double()
        self.x = torch.randn(N, D, generator=rng, dtype=torch.double)
        self.y = torch.randint(C, (N,), generator=rng)
        self.sizes = {n: p.shape for n, p in self.module.named_parameters()}
        self.start = torch.cat([p.detach().flatten() for p in self.module.parameters()])

    def logits(self, w, points=ALL):
        parts = torch.split(w, [s.numel() for s in self.sizes.values()])
        named = {n: p.view(s) for (n, s), p in zip(self.sizes.items(), parts)}
        return functional_call(self.module, named, (self.x[points],))

    def past(self, w):
        loss = cross_entropy(self.logits(w), self.y, reduction="sum")
        return loss + DELTA / 2 * w @ w

    def memory(self, w, anchor, points, role):
        """Sum of mixed_losses over some points."""
        f, soft = self.logits(w, points), soft_targets(self.logits(anchor, points))
        roles = torch.full((len(f),), role)
        return mixed_losses(f, self.y[points], roles, soft.detach()).sum()

    def stationary(self):
        """The optimum of the past: Newton after L-BFGS."""
        w = self.start.clone().requires_grad_()
        search = torch.optim.LBFGS(
            [w], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
        )

        def closure():
            search.zero_grad()
            loss = self.past(w)
            loss.backward()
            return loss

        search.step(closure)
        w = w.detach()
        for _ in range(5):
            step = torch.linalg.solve(
                jacrev(jacrev(self.past))(w), gradient(self.past, w)
            )
            w = w - step
        return w


def linear():
    torch.manual_seed(0)
    return Network(nn.Linear(D, C))


def mlp():
    torch.manual_seed(0)
    return Network(nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, C)))


def gradient(f, w):
    w = w.detach().clone().requires_grad_()
    return torch.autograd.grad(f(w), w)[0]


def moved(w, distance, seed=3):
    rng = torch.Generator().manual_seed(seed)
    d = torch.randn(len(w), generator=rng, dtype=torch.double)
    return w + distance * d / d.norm()


def pull(w, anchor, precision=DELTA):
    """The weight term."""
    return quadratic_penalty(w, anchor, torch.full_like(w, precision))


def error(net, prior, w):
    return (gradient(net.past, w) - gradient(prior, w)).norm().item()


@pytest.mark.parametrize("distance", [0.0, 0.01, 1.0, 5.0])
def test_a_k_prior_of_all_points_is_exact_for_a_linear_model(distance):
    net = linear()
    anchor = net.stationary()

    def prior(w):
        return net.memory(w, anchor, ALL, FUNCTION) + pull(w, anchor)

    assert error(net, prior, moved(anchor, distance)) < 1e-10


def test_a_k_prior_of_a_network_errs_in_proportion_to_the_distance():
    net = mlp()
    anchor = net.stationary()

    def prior(w):
        return net.memory(w, anchor, ALL, FUNCTION) + pull(w, anchor)

    errors = [error(net, prior, moved(anchor, d)) for d in (0.0, 0.001, 0.01)]
    assert errors[0] < 1e-10
    assert errors[2] / errors[1] == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("make", [linear, mlp])
@pytest.mark.parametrize("distance", [0.0, 1.0, 5.0])
def test_replay_of_all_points_is_exact_for_any_network_anywhere(make, distance):
    net = make()

    def prior(w):
        return net.memory(w, net.start, ALL, REPLAY) + pull(w, torch.zeros_like(w))

    assert error(net, prior, moved(net.start, distance)) < 1e-12


def parts_of_the_error(net, w, anchor, m1, m2, ggn):
    """A and B of the exact error, by dense Jacobians."""
    out, both = set(range(N)), set(m1) | set(m2)
    jacobian, at = jacrev(net.logits)(w), jacrev(net.logits)(anchor)
    h, before = net.logits(w).softmax(1), net.logits(anchor).softmax(1)
    r = before - torch.eye(C, dtype=torch.double)[net.y]
    left = sorted(out - both)
    a = torch.einsum("icp,ic->p", jacobian[left], (h - before)[left])
    a = a - ggn @ (w - anchor)
    rest = sorted(out - set(m2))
    b = torch.einsum("icp,ic->p", jacobian[rest], r[rest]) + DELTA * anchor
    bias = torch.einsum("icp,ic->p", at[list(m2)], r[list(m2)])
    return a, b, bias


def dense_ggn(net, w, points):
    jacobian, h = jacrev(net.logits)(w)[points], net.logits(w)[points].softmax(1)
    middle = torch.diag_embed(h) - h[:, :, None] * h[:, None, :]
    return torch.einsum("icp,icd,idq->pq", jacobian, middle, jacobian)


@pytest.mark.parametrize("distance", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("make", [linear, mlp])
def test_the_error_is_the_sum_of_curvature_and_residual(make, distance):
    net = make()
    anchor = net.stationary()
    m1, m2 = list(range(6)), list(range(6, 11))
    ggn = dense_ggn(net, anchor, list(range(11, N)))
    w = moved(anchor, distance)

    def prior(v):
        away = v - anchor
        functions = net.memory(v, anchor, m1, FUNCTION)
        replayed = net.memory(v, anchor, m2, REPLAY)
        return functions + replayed + away @ ggn @ away / 2 + pull(v, anchor)

    e = gradient(net.past, w) - gradient(prior, w)
    a, b, bias = parts_of_the_error(net, w, anchor, m1, m2, ggn)
    assert_close(e, a + b, rtol=0, atol=1e-12)
    if distance == 0:  # replay leaves a constant bias, and nothing else is wrong there
        assert_close(e, -bias, rtol=0, atol=1e-9)
        assert e.norm() > 0.1


@pytest.mark.parametrize("make", [linear, mlp])
def test_centred_replay_of_all_points_is_exact_where_it_starts(make):
    net = make()
    anchor = net.stationary()
    g = gradient(lambda w: net.memory(w, anchor, ALL, REPLAY), anchor)

    def prior(w):
        centred = net.memory(w, anchor, ALL, REPLAY) - g @ (w - anchor)
        return centred + pull(w, anchor)

    assert error(net, prior, anchor) < 1e-10
    plain = error(net, lambda w: prior(w) + g @ (w - anchor), anchor)
    assert plain == pytest.approx(g.norm().item()) and plain > 0.1


def regression(orthogonal, seed=0):
    """Squared loss: its gradient of the past, anchor, and three curvatures."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D, generator=rng, dtype=torch.double)
    if orthogonal:
        x = torch.linalg.qr(x).Q
    y = x @ torch.ones(D).double() + torch.randn(N, generator=rng, dtype=torch.double)
    gram = x.T @ x
    anchor = torch.linalg.solve(gram + DELTA * torch.eye(D).double(), x.T @ y)
    residuals = x @ anchor - y
    empirical = torch.diag(((residuals[:, None] * x) ** 2).sum(0))

    def past(w):
        return ((x @ w - y) ** 2).sum() / 2 + DELTA / 2 * w @ w

    return past, anchor, gram, torch.diag(gram.diag()), empirical


@pytest.mark.parametrize("orthogonal", [False, True])
def test_ewc_is_exact_in_linear_regression_with_the_full_curvature_only(orthogonal):
    past, anchor, *curvatures = regression(orthogonal)
    w, errors = moved(anchor, 1.0), []
    for h in curvatures:

        def prior(v, h=h):
            return (v - anchor) @ h @ (v - anchor) / 2 + pull(v, anchor)

        errors.append((gradient(past, w) - gradient(prior, w)).norm().item())
    full, diagonal, empirical = errors
    assert full < 1e-12 and empirical > 0.1
    assert (diagonal < 1e-12) == orthogonal


def slope(net, anchor, curvature):
    """Order of the error of a quadratic prior in the distance."""

    def prior(w):
        away = w - anchor
        return away @ curvature @ away / 2 + pull(w, anchor)

    near, far = (error(net, prior, moved(anchor, d)) for d in (1e-3, 1e-2))
    return torch.tensor(far / near).log10().item()


def test_the_full_curvature_errs_by_the_square_of_the_distance_its_diagonal_by_it():
    net = linear()
    anchor = net.stationary()
    full = dense_ggn(net, anchor, list(range(N)))
    nn.utils.vector_to_parameters(anchor, net.module.parameters())
    diagonals = []
    for kind in ("ggn", "empirical"):
        named = diagonal_fisher(net.module, net.x, net.y, kind=kind)
        diagonals.append(torch.cat([h.flatten() for h in named.values()]))
    assert_close(diagonals[0], full.diag(), rtol=1e-6, atol=1e-9)
    assert slope(net, anchor, full) == pytest.approx(2, abs=0.05)
    for diagonal in diagonals:
        order = slope(net, anchor, torch.diag(diagonal.detach()))
        assert order == pytest.approx(1, abs=0.05)
