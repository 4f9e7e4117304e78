from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from unrolled_cases import (
    RATE,
    finite_differences,
    problem,
    restated,
    smooth_network,
)

from avalanche_ext.functional.unrolled import hypergradient


@pytest.mark.parametrize("batchnorm", ["eval", "batch"])
@pytest.mark.parametrize("norm", ["none", "1d", "2d"])
def test_hypergradient_is_that_of_finite_differences(norm, batchnorm):
    model, (e, y, data) = smooth_network(norm), problem()
    rates, rows = (
        [0.3, 0.1, 0.5],
        [torch.tensor(r) for r in ([0, 1], [3, 2, 2], [1, 3])],
    )
    found = hypergradient(
        *(model, e, y, data),
        inner_lr=rates,
        inner_steps=3,
        rows=rows,
        batchnorm=batchnorm,
        chunk=2 if batchnorm == "eval" else None,
    )

    def loss(moved):
        return restated(model, moved, y, data, rates, rows, batchnorm)

    assert_close(found.outer_loss.item(), loss(e))
    picked = found.gradient.flatten(1)[:, [0, 7, 14]]
    assert_close(picked, finite_differences(loss, e), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"truncate": 2}, {"parameters": "head"}])
@pytest.mark.parametrize("batchnorm", ["eval", "batch"])
@pytest.mark.parametrize("norm", ["1d", "2d"])
def test_all_modes_and_chunks_give_the_same(norm, batchnorm, options):
    model, (e, y, data) = smooth_network(norm), problem(5)
    whole = {"batchnorm": batchnorm, "chunk": None}
    chunked = [{"chunk": c} for c in (1, 2, 3, 50)] if batchnorm == "eval" else []
    ways = [*({"mode": m, **whole} for m in ("unrolled", "checkpoint")), *chunked]
    common = {"inner_lr": RATE, "inner_steps": 4, **options}
    wanted = hypergradient(model, e, y, data, **common, **whole)
    assert wanted.gradient.abs().max() > 1e-6
    for way in ways:
        found = hypergradient(model, e, y, data, **common, **way)
        for ours, theirs in zip(found[:3], wanted[:3]):
            assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
        assert_close(found.parameters, wanted.parameters, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mode", ["reverse", "unrolled", "checkpoint"])
def test_truncation_to_k_steps_starts_where_the_steps_before_ended(mode):
    model, (e, y, data) = smooth_network("2d"), problem()
    common = {"inner_lr": RATE, "mode": mode}
    found = hypergradient(model, e, y, data, inner_steps=5, truncate=2, **common)
    before = hypergradient(model, e, y, data, inner_steps=3, **common)
    model.load_state_dict(before.parameters, strict=False)
    wanted = hypergradient(model, e, y, data, inner_steps=2, **common)
    assert_close(found.gradient, wanted.gradient, rtol=1e-12, atol=1e-14)
    assert_close(found.parameters, wanted.parameters)
    whole = hypergradient(model, e, y, data, inner_steps=5, truncate=5, **common)
    plain = hypergradient(model, e, y, data, inner_steps=5, **common)
    assert torch.equal(whole.gradient, plain.gradient)


def test_head_by_features_is_the_same_as_by_names():
    model, (e, y, data) = smooth_network("2d"), problem()
    names = [n for n, _ in model.named_parameters() if n.startswith("train_")]
    common = {"inner_lr": RATE, "inner_steps": 3, "chunk": 3}
    found = hypergradient(model, e, y, data, parameters="head", **common)
    wanted = hypergradient(model, e, y, data, parameters=names, **common)
    assert list(found.parameters) == names
    assert_close(found.parameters, wanted.parameters)
    assert_close(found.gradient, wanted.gradient, rtol=1e-10, atol=1e-14)


def test_permuting_the_exemplars_permutes_the_gradient(rng):
    model, (e, y, data) = smooth_network("2d"), problem(6)
    order = torch.randperm(6, generator=rng)
    common = {"inner_lr": RATE, "inner_steps": 3, "chunk": 4}
    found = hypergradient(model, e[order], y[order], data, **common)
    wanted = hypergradient(model, e, y, data, **common)
    assert_close(found.gradient, wanted.gradient[order], rtol=1e-10, atol=1e-14)


def test_an_exemplar_no_step_sees_has_no_gradient():
    model, (e, y, data) = smooth_network("2d"), problem()
    rows = [torch.tensor([0, 2])] * 2
    found = hypergradient(model, e, y, data, inner_lr=RATE, inner_steps=2, rows=rows)
    assert found.gradient.flatten(1).any(1).tolist() == [True, False, True, False]


def test_small_steps_along_the_gradient_lower_the_outer_loss():
    model, (e, y, data) = smooth_network("2d"), problem()
    losses = []
    for _ in range(5):
        found = hypergradient(model, e, y, data, inner_lr=RATE, inner_steps=3)
        losses.append(found.outer_loss.item())
        e = e - 0.5 * found.gradient
    assert losses == sorted(losses, reverse=True)
    assert losses[0] - losses[-1] > 1e-4


def test_float32_is_near_float64():
    model, (e, y, data) = smooth_network("2d"), problem()
    wanted = hypergradient(model, e, y, data, inner_lr=RATE, inner_steps=5).gradient
    data = [(x.float(), t) for x, t in data]
    found = hypergradient(
        model.float(), e.float(), y, data, inner_lr=RATE, inner_steps=5
    ).gradient
    assert found.dtype == torch.float32
    assert (found - wanted).norm() < 1e-5 * wanted.norm()


@pytest.mark.parametrize("mode", ["reverse", "unrolled", "checkpoint"])
def test_without_an_inner_loop_the_gradient_is_zero(mode):
    model, (e, y, data) = smooth_network("2d"), problem()
    common = {"mode": mode, "inner_lr": 0}
    with pytest.warns(UserWarning, match="inner_steps is 0"):
        found = hypergradient(model, e, y, data, inner_steps=0, **common)
    assert not found.gradient.any() and found.inner_losses.shape == (0,)
    assert_close(found.outer_loss.item(), restated(model, e, y, data, []))
    state = model.state_dict()
    for name, value in found.parameters.items():
        assert torch.equal(value, state[name])
        assert value.data_ptr() != state[name].data_ptr()
    found = hypergradient(model, e, y, data, inner_steps=3, **common)
    assert not found.gradient.any() and found.inner_losses.shape == (3,)


@pytest.mark.parametrize("mode", ["reverse", "unrolled", "checkpoint"])
def test_a_single_logit_and_unused_parameters_give_zero(mode):
    e, y, data = problem()
    common = {"inner_lr": RATE, "inner_steps": 2, "mode": mode}
    single = nn.Sequential(nn.Flatten(), nn.Linear(32, 1)).double()
    zeros = [(x, 0 * t) for x, t in data]
    assert not hypergradient(single, e, 0 * y, zeros, **common).gradient.any()
    model = smooth_network("2d", cosine=False)
    wanted = hypergradient(model, e, y, data, **common)
    model.unused = nn.Linear(2, 2).double()
    found = hypergradient(model, e, y, data, **common)
    assert torch.equal(found.gradient, wanted.gradient)
    assert torch.equal(found.parameters["unused.weight"], model.unused.weight)
    found = hypergradient(model, e, y, data, parameters=["unused.weight"], **common)
    assert not found.gradient.any()


def test_tied_parameters_and_masked_classes_work():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.last = nn.Linear(32, 3)

        def forward(self, x):
            x = self.second(self.first(x).tanh()).tanh()
            masked = torch.full((len(x), 2), -1000.0, dtype=x.dtype)
            return torch.cat([self.last(x.flatten(1)), masked], 1)

    model, (e, y, data) = Tied().double(), problem()
    found = hypergradient(model, e, y, data, inner_lr=RATE, inner_steps=2, chunk=3)

    def loss(moved):
        return restated(model, moved, y, data, [RATE] * 2)

    picked = found.gradient.flatten(1)[:, [0, 7, 14]]
    assert_close(picked, finite_differences(loss, e), rtol=1e-6, atol=1e-10)
