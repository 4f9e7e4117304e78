"""Class-wise decorrelation (CwD)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow_bdr_cwd import decorrelated_slowly
from torch.autograd import gradcheck
from torch.nn.functional import normalize
from torch.testing import assert_close

from avalanche_ext.functional import decorrelation
from avalanche_ext.functional.decorrelation import decorrelation_loss

NORMALIZATIONS = ("code", "paper")


@pytest.fixture(params=["pairs", "classes"])
def form(request, monkeypatch):
    """Both ways to compute it, whatever the size of the batch."""
    if request.param == "classes":
        monkeypatch.setattr(decorrelation, "_PAIRS_UP_TO", 0)
    return request.param


@pytest.mark.golden("bdr_cwd", "cwd_*.npz")
def test_decorrelation_agrees_with_the_authors(golden, form):
    x, threshold = golden["features"].requires_grad_(), golden["reject_threshold"]

    def check(unit_length, normalization, loss, gradient):
        ours = decorrelation_loss(
            normalize(x, dim=1) if unit_length else x,
            golden["targets"],
            normalization=normalization,
            reject_threshold=threshold,
            eps=golden["eps"],
        )
        wanted = torch.tensor(golden[loss], dtype=x.dtype)
        tight = 1e-12 if x.dtype == torch.double else 1e-6
        assert_close(ours, wanted, rtol=tight, atol=tight)
        (grad,) = torch.autograd.grad(ours, x)
        assert_close(grad, golden[gradient], rtol=1e-4, atol=tight)

    if "returned_python_zero" in golden:
        loss = decorrelation_loss(x, golden["targets"], reject_threshold=threshold)
        (grad,) = torch.autograd.grad(loss, x)
        assert loss == 0 and (grad == 0).all()
        return
    check(True, "code", "loss", "grad_features")
    check(False, "code", "loss_unnormalised", "grad_unnormalised")
    check(True, "paper", "own_paper_loss", "own_paper_grad_features")


@given(
    st.integers(0, 9),
    st.integers(1, 20),
    st.integers(2, 6),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from(NORMALIZATIONS),
    st.booleans(),
)
def test_decorrelation_agrees_with_the_formula_written_slowly(
    seed, n, d, n_classes, threshold, normalization, by_classes
):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=rng, dtype=torch.double)
    y = torch.randint(n_classes, (n,), generator=rng) * 7 - 3
    with pytest.MonkeyPatch.context() as patch:
        if by_classes:
            patch.setattr(decorrelation, "_PAIRS_UP_TO", 0)
        ours = decorrelation_loss(
            x, y, normalization=normalization, reject_threshold=threshold
        )
    assert_close(
        ours, decorrelated_slowly(x, y, normalization, threshold), rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_decorrelation_has_correct_gradients(normalization, form, rng):
    x = torch.randn(9, 4, generator=rng, dtype=torch.double, requires_grad=True)
    y = torch.tensor([0, 1, 1, 0, 2, 0, 0, 1, 0])
    assert gradcheck(
        lambda f: decorrelation_loss(f, y, normalization=normalization), (x,)
    )


def test_decorrelation_ignores_order_labels_columns_and_length(form, rng):
    x = torch.randn(20, 5, generator=rng, dtype=torch.double)
    y = torch.randint(3, (20,), generator=rng)

    def loss(features, targets):
        return decorrelation_loss(normalize(features, dim=1), targets)

    rows, columns = torch.randperm(20, generator=rng), torch.tensor([3, 0, 4, 1, 2])
    lengths = torch.rand(20, 1, generator=rng, dtype=torch.double) + 0.1
    for features, targets in (
        (x[rows], y[rows]),
        (x, torch.tensor([42, -7, 3])[y]),
        (x[:, columns], y),
        (x * lengths, y),
    ):
        assert_close(loss(features, targets), loss(x, y))


def test_rejected_classes_have_no_gradient_even_if_not_finite(form, rng):
    x = torch.randn(7, 4, generator=rng)
    x[6] = float("nan")
    x.requires_grad_()
    y = torch.tensor([0, 0, 0, 1, 1, 0, 2])
    decorrelation_loss(x, y, reject_threshold=2).backward()
    assert (x.grad[[3, 4, 6]] == 0).all() and (x.grad[:3] != 0).any()


def test_decorrelation_without_a_class_left_is_zero_with_a_graph(form):
    x = torch.randn(3, 4, requires_grad=True)
    loss = decorrelation_loss(x, torch.arange(3))
    loss.backward()
    assert loss == 0 and loss.ndim == 0 and (x.grad == 0).all()


def test_two_images_of_a_class_give_a_constant(form, rng):
    x = torch.randn(8, 6, generator=rng, dtype=torch.double, requires_grad=True)
    loss = decorrelation_loss(x, torch.arange(4).repeat(2))
    loss.backward()
    assert_close(loss.item(), 0.5, atol=1e-5, rtol=0)
    assert x.grad.abs().max() < 1e-3  # what eps leaves


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_constant_features_do_no_harm(normalization, form, rng):
    x = torch.randn(9, 4, generator=rng)
    x[:, 1] = 3.0
    x.requires_grad_()
    loss = decorrelation_loss(x, torch.arange(9) % 2, normalization=normalization)
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all()


def test_uncorrelated_features_cost_nothing(form):
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert decorrelation_loss(x, torch.zeros(4, dtype=torch.long)) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, form, rng):
    x = torch.randn(12, 4, generator=rng).to(dtype)
    y = torch.arange(12) % 3
    with torch.autocast("cpu", torch.bfloat16):
        loss = decorrelation_loss(x, y)
    assert loss.dtype == torch.float32
    assert_close(loss, decorrelation_loss(x.float(), y), rtol=1e-6, atol=1e-7)


def test_large_batches_of_few_features_go_class_by_class(monkeypatch, rng):
    x = torch.randn(40, 2, generator=rng, dtype=torch.double)
    y = torch.randint(3, (40,), generator=rng)
    wanted = decorrelated_slowly(x, y, "code")
    monkeypatch.setattr(decorrelation, "_by_pairs", None)
    assert_close(decorrelation_loss(x, y), wanted)


@pytest.mark.parametrize(
    ("features", "targets", "options", "message"),
    [
        (
            torch.ones(4, 1),
            torch.zeros(4),
            {},
            r"\(4, 1\); wanted \(B, D\) with D >= 2",
        ),
        (torch.ones(4), torch.zeros(4), {}, r"\(4,\); wanted \(B, D\)"),
        (torch.ones(4, 2), torch.zeros(3), {}, r"\(3,\); wanted \(4,\)"),
        (torch.ones(4, 2), torch.zeros(4), {"eps": -1.0}, "eps is -1.0"),
        (torch.ones(4, 2), torch.zeros(4), {"reject_threshold": 0}, "threshold is 0"),
        (torch.ones(4, 2), torch.zeros(4), {"normalization": "x"}, "one of 'code'"),
    ],
)
def test_bad_arguments_are_refused(features, targets, options, message):
    with pytest.raises(ValueError, match=message):
        decorrelation_loss(features, targets, **options)
