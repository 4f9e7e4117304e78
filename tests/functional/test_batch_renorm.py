"""Batch Renormalization, as mathematics."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import batch_norm
from torch.testing import assert_close

from avalanche_ext.functional.batch_renorm import batch_renorm, batch_renorm_eval

SHAPES = [(6, 3), (5, 3, 4), (4, 3, 2, 5), (3, 3, 2, 2, 3), (1, 3, 2, 2), (1, 3)]


def case(shape, rng, dtype=torch.double):
    """An input, and statistics and weights of its three channels."""

    def draw(*size):
        return torch.randn(size, generator=rng, dtype=dtype)

    x = 2 * draw(*shape) + 0.5
    return x, draw(3), 0.5 + draw(3).abs(), draw(3), draw(3)


def restated(x, mean, std, weight, bias, r_max, d_max, eps):
    """Channel by channel, and the gradients of sum(y * gy) by the formula."""
    y, stats, gradients = torch.empty_like(x), [], []
    for c in range(x.shape[1]):
        values = x[:, c]
        mu = values.mean()
        sigma = ((values - mu).square().mean() + eps).sqrt()
        r = min(max(float(sigma / std[c]), 1 / r_max), r_max)
        d = min(max(float((mu - mean[c]) / std[c]), -d_max), d_max)
        normal = (values - mu) / sigma
        y[:, c] = weight[c] * (normal * r + d) + bias[c]
        stats.append((mu, sigma))

        def backward(gy, normal=normal, r=r, d=d, sigma=sigma, w=weight[c]):
            g = gy * w
            gx = r / sigma * (g - g.mean() - normal * (g * normal).mean())
            return gx, (gy * (normal * r + d)).sum(), gy.sum()

        gradients.append(backward)
    return y, *torch.tensor(stats, dtype=x.dtype).T, gradients


@pytest.mark.parametrize("limits", [(1.0, 0.0), (1.25, 0.5), (3.0, 5.0), (1e3, 1e3)])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_renorm_is_the_formula_channel_by_channel(shape, limits, rng):
    x, mean, std, weight, bias = case(shape, rng)
    for leaf in x, weight, bias:
        leaf.requires_grad_()
    r_max, d_max = limits
    y, *found = batch_renorm(
        x, mean, std, weight, bias, r_max=r_max, d_max=d_max, eps=1e-4
    )
    with torch.no_grad():
        wanted, *stats, gradients = restated(
            x, mean, std, weight, bias, r_max, d_max, 1e-4
        )
    assert_close(y, wanted)
    assert_close(found, stats)
    gy = torch.randn(shape, generator=rng, dtype=x.dtype)
    y.backward(gy)
    for c, backward in enumerate(gradients):
        gx, gw, gb = backward(gy[:, c])
        assert_close(x.grad[:, c], gx.detach())
        assert_close((weight.grad[c], bias.grad[c]), (gw.detach(), gb.detach()))


@pytest.mark.parametrize("shape", SHAPES[:4])
def test_limits_of_one_and_zero_give_batch_normalisation(shape, rng):
    x, mean, std, weight, bias = (t.requires_grad_() for t in case(shape, rng))
    y, *_ = batch_renorm(x, mean, std, weight, bias, r_max=1, d_max=0, eps=1e-5)
    wanted = batch_norm(x, None, None, weight, bias, training=True)
    assert_close(y, wanted)
    gy = torch.randn(shape, generator=rng, dtype=x.dtype)
    leaves = x, weight, bias
    ours = torch.autograd.grad(y, leaves, gy)
    assert_close(ours, torch.autograd.grad(wanted, leaves, gy))


def test_without_limits_the_output_is_that_of_evaluation_but_not_its_gradient(rng):
    x, mean, std, weight, bias = case((5, 3, 2, 2), rng)
    x.requires_grad_()
    free = {"r_max": 1e6, "d_max": 1e6}
    y, *_ = batch_renorm(x, mean, std, weight, bias, **free)
    assert_close(y, batch_renorm_eval(x, mean, std, weight, bias))
    y[0].sum().backward()
    # the mean of the batch is subtracted, whatever d puts back
    assert_close(x.grad.sum((0, 2, 3)), torch.zeros(3, dtype=x.dtype))


@pytest.mark.parametrize("shape", SHAPES[:4])
@pytest.mark.parametrize("limits", [(1.0, 0.0), (1.01, 0.01)])
def test_gradients_are_exact_where_both_corrections_are_at_their_limits(
    shape, limits, rng
):
    x, _, _, weight, bias = (t.requires_grad_() for t in case(shape, rng))
    far = torch.full((3,), 40.0).double(), torch.full((3,), 9.0).double()
    r_max, d_max = limits

    def output(x, weight, bias):
        return batch_renorm(x, *far, weight, bias, r_max=r_max, d_max=d_max)[0]

    assert torch.autograd.gradcheck(output, (x, weight, bias))
    assert torch.autograd.gradgradcheck(output, (x, weight, bias))


def test_evaluation_is_an_affine_map_of_exact_gradients(rng):
    x, mean, std, weight, bias = case((4, 3, 2), rng)
    wanted = weight[:, None] * (x - mean[:, None]) / std[:, None] + bias[:, None]
    assert_close(batch_renorm_eval(x, mean, std, weight, bias), wanted)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradcheck(
        lambda x, w, b: batch_renorm_eval(x, mean, std, w, b), leaves
    )


def test_without_weight_and_bias_they_are_one_and_zero(rng):
    x, mean, std, *_ = case((4, 3, 2), rng)
    one, zero = torch.ones(3).double(), torch.zeros(3).double()
    limits = {"r_max": 1.5, "d_max": 0.5}
    for weight, bias in (None, None), (one, None), (None, zero):
        assert_close(
            batch_renorm(x, mean, std, weight, bias, **limits),
            batch_renorm(x, mean, std, one, zero, **limits),
        )
        assert_close(
            batch_renorm_eval(x, mean, std, weight, bias),
            batch_renorm_eval(x, mean, std, one, zero),
        )


@pytest.mark.parametrize("value", [0.0, 3.0, -1e2])
def test_one_value_a_channel_gives_finite_outputs_and_no_gradient(value, rng):
    x = torch.full((1, 3, 1, 1), value, requires_grad=True)
    y, mean, std = batch_renorm(
        x, torch.zeros(3), torch.ones(3), None, None, r_max=1.25, d_max=0.5
    )
    y.sum().backward()
    assert_close((mean, std), (torch.full((3,), value), torch.full((3,), 1e-5**0.5)))
    assert_close(
        y.detach(), torch.full_like(x, min(max(value, -0.5), 0.5)), atol=1e-2, rtol=0
    )
    assert_close(x.grad, torch.zeros_like(x), rtol=0, atol=1e-4)


def test_an_empty_batch_has_the_running_statistics():
    mean, std = torch.randn(3), torch.rand(3)
    y, *found = batch_renorm(
        torch.zeros(0, 3, 2, 2), mean, std, None, None, r_max=1, d_max=0
    )
    assert y.shape == (0, 3, 2, 2)
    assert_close(found, [mean, std])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_of_half_precision_are_single(dtype, rng):
    x, *state = case((64, 3, 4, 4), rng, torch.float32)
    x = (x + 30).to(dtype)
    limits = {"r_max": 1.25, "d_max": 0.5}
    y, *found = batch_renorm(x, *state, **limits)
    wanted, *stats = batch_renorm(x.float(), *state, **limits)
    assert y.dtype == dtype and batch_renorm_eval(x, *state).dtype == dtype
    assert_close(found, stats)
    assert_close(y.float(), wanted, rtol=1e-2, atol=1e-2)


def test_channels_last_stays_so(rng):
    x, *state = case((4, 3, 5, 5), rng)
    last = x.to(memory_format=torch.channels_last)
    y, *_ = batch_renorm(last, *state, r_max=1.25, d_max=0.5)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert_close(y, batch_renorm(x, *state, r_max=1.25, d_max=0.5)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r_max": 0.9}, "r_max is 0.9; wanted a number, at least 1"),
        ({"d_max": -1}, "d_max is -1; wanted a number, at least 0"),
        ({"eps": 0}, "eps is 0; wanted a number, at least 1e-12"),
        ({"x": torch.zeros(4)}, r"x has shape \(4,\); wanted \(B, 3, ...\)"),
        ({"x": torch.zeros(2, 4)}, r"x has shape \(2, 4\); wanted \(B, 3, ...\)"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    arguments = {"x": torch.zeros(2, 3), "r_max": 1, "d_max": 0, "eps": 1e-5} | change
    with pytest.raises(ValueError, match=message):
        batch_renorm(
            arguments.pop("x"), torch.zeros(3), torch.ones(3), None, None, **arguments
        )


@pytest.mark.golden("ar1star", "brn_*.npz")
def test_outputs_and_gradients_agree_with_the_authors(golden):
    mean, std = golden["init_running_mean"], golden["init_running_std"]
    for t in range(golden["n_steps"]):
        leaves = [golden[k].requires_grad_() for k in (f"x{t}", "gamma", "beta")]
        x, gamma, beta = leaves
        limits = {k: golden[f"{k}_used{t}"] for k in ("r_max", "d_max")}
        y, *_ = batch_renorm(x, mean, std, gamma, beta, eps=golden["eps"], **limits)
        assert_close(y.detach(), golden[f"y{t}"], **TIGHT)
        found = torch.autograd.grad(y, leaves, golden[f"gy{t}"])
        wanted = [golden[f"{name}{t}"] for name in ("gx", "ggamma", "gbeta")]
        assert_close(list(found), wanted, **TIGHT)
        mean, std = golden[f"running_mean{t}"], golden[f"running_std{t}"]
        y = batch_renorm_eval(x, mean, std, gamma, beta)
        assert_close(y.detach(), golden[f"y_eval{t}"], **TIGHT)


TIGHT = {"rtol": 1e-5, "atol": 1e-5}
