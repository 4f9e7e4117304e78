"""Priors of BDR and their update."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow_bdr_cwd import updated_slowly
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from avalanche_ext.functional.class_statistics import class_statistics
from avalanche_ext.functional.logit_adjustment import (
    compactness,
    last_class,
    start_adjustment,
    update_adjustment,
)

F64 = torch.double


def a_state(seed=0, n=60, k=5, d=4):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=rng, dtype=F64)
    # every class twice at least
    y = torch.cat([torch.arange(k).repeat(2), torch.randint(k, (n,), generator=rng)])
    return start_adjustment(class_statistics(x, y[:n], k)), rng


@given(
    st.integers(0, 9),
    st.integers(1, 12),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 2),
    st.booleans(),
)
def test_update_agrees_with_the_code_written_example_by_example(
    seed, n, m, momentum, tro, leak
):
    state, rng = a_state(seed)
    x = torch.randn(n, 4, generator=rng, dtype=F64)
    y = torch.randint(5, (n,), generator=rng)
    last = last_class(y, 5) if leak else None
    new = update_adjustment(
        state, class_statistics(x, y, 5), m=m, momentum=momentum, tro=tro, last=last
    )
    wanted = updated_slowly(state, x, y, m=m, momentum=momentum, tro=tro, leak=leak)
    for ours, theirs in zip((new.means, new.dispersions, new.offsets), wanted):
        assert_close(ours, theirs)
    assert torch.equal(new.counts, state.counts) and torch.equal(new.prior, state.prior)


@pytest.mark.golden("bdr_cwd", "bdr_[bfpls]*.npz")
@pytest.mark.parametrize("variant", ["released", "corrected"])
def test_priors_follow_the_authors(golden, variant):
    corrected = variant == "corrected"
    n_classes, options = len(golden["psi"]), {"tro": golden["tro"]}
    # the authors sum in float32 and mix in float64; the corrected arrays are float64
    tight = {"rtol": 0, "atol": 1e-12}
    loose = {"rtol": 5e-6, "atol": 2e-6}
    state = start_adjustment(
        class_statistics(golden["init_features"], golden["init_targets"], n_classes),
        m=golden["m1"],
        **options,
    )
    assert torch.equal(state.prior, golden["psi"])
    assert torch.equal(state.counts.long(), golden["class_counts"])
    pre = "corr_" if corrected else ""

    def check(disp, omega, pi):
        assert_close(
            state.dispersions.to(disp.dtype), disp, **(tight if corrected else loose)
        )
        ours = compactness(state.dispersions, state.seen)
        assert_close(ours, omega, rtol=0, atol=1e-12 if corrected else 1e-7)
        assert_close(state.offsets, pi, rtol=0, atol=1e-12 if corrected else 1e-7)

    if not golden["t"]:  # training never updates then; the arrays start from 0
        state = state._replace(offsets=torch.zeros_like(state.offsets))
    check(*(golden[f"{pre}init_{name}"] for name in ("disp", "omega", "pi")))
    for i in range(golden["n_updates"]):
        x, y = golden[f"u{i}_features"], golden[f"u{i}_targets"]
        last = last_class(y, n_classes)
        assert last == golden[f"u{i}_leak_class"]
        state = update_adjustment(
            state,
            class_statistics(x, y, n_classes),
            m=golden["m2"],
            momentum=golden["momentum"],
            last=None if corrected else last,
            **options,
        )
        means = golden[f"u{i}_{pre}mu"]
        assert_close(
            state.means.to(means.dtype), means, **(tight if corrected else loose)
        )
        check(*(golden[f"u{i}_{pre}{name}"] for name in ("disp", "omega", "pi")))


@pytest.mark.golden("bdr_cwd", "bdr_degenerate_a.npz")
@pytest.mark.parametrize("absent", [None, 1])
def test_classes_without_spread_or_without_data_are_neutral(golden, absent):
    assert golden["init_pi"].isnan().any()  # where the published code gives nan
    x, y = golden["init_features"], golden["init_targets"]
    name = "rec_" if absent is None else f"rec_absent{absent}_"
    kept = y != (-1 if absent is None else absent)
    state = start_adjustment(class_statistics(x[kept], y[kept], 4))
    steps = [i for i in range(2) if f"{name}u{i}_pi" in golden]
    for step in ("init", *(f"u{i}" for i in steps)):
        if step != "init":
            batch = golden[f"{step}_features"], golden[f"{step}_targets"]
            state = update_adjustment(state, class_statistics(*batch, 4))
        omega = compactness(state.dispersions, state.seen)
        exact = {"rtol": 0, "atol": 1e-12}
        assert_close(omega, golden[f"{name}{step}_omega"], **exact)
        assert_close(state.offsets, golden[f"{name}{step}_pi"], **exact)
        if f"{name}{step}_disp" in golden:
            wanted = golden[f"{name}{step}_disp"].nan_to_num(0)  # nan: none to be had
            assert_close(state.dispersions, wanted, **exact)


def test_shares_sum_to_one_and_equal_classes_have_equal_offsets():
    x = torch.randn(5, 3, dtype=F64).repeat(4, 1)
    y = torch.arange(4).repeat_interleave(5)
    state = start_adjustment(class_statistics(x, y, 4))
    assert_close(state.prior.sum(), torch.tensor(1.0, dtype=F64))
    assert_close(compactness(state.dispersions, state.seen).sum(), state.prior.sum())
    assert_close(state.offsets, state.offsets[:1].expand(4))
    logits, targets = torch.randn(6, 4, dtype=F64), torch.randint(4, (6,))
    adjusted = cross_entropy(logits + state.offsets, targets)
    assert_close(adjusted, cross_entropy(logits, targets))


def test_frequency_alone_is_balanced_softmax_and_stays():
    state, rng = a_state()
    data = class_statistics(torch.randn(9, 4), torch.arange(9) % 5, 5)
    state = start_adjustment(data, m=1.0)
    assert_close(state.offsets, (data.counts / 9).log())
    batch = class_statistics(torch.randn(7, 4, generator=rng), torch.arange(7) % 5, 5)
    after = update_adjustment(state, batch, m=1.0)
    assert_close(after.offsets, state.offsets, rtol=0, atol=1e-12)


def test_counts_may_come_from_elsewhere():
    data = class_statistics(torch.randn(6, 3), torch.arange(6) % 3, 3)
    state = start_adjustment(data, torch.tensor([10, 30, 0]))
    assert_close(state.prior, torch.tensor([0.25, 0.75, 0.0], dtype=F64))
    assert torch.equal(state.counts, data.counts) and not state.seen[2]


def test_update_ignores_the_order_of_a_batch_unless_the_last_class_decides():
    state, rng = a_state()
    x = torch.randn(8, 4, generator=rng, dtype=F64)
    y = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    back = torch.arange(8).flip(0)

    def offsets(rows, leak):
        last = last_class(y[rows], 5) if leak else None
        batch = class_statistics(x[rows], y[rows], 5)
        return update_adjustment(state, batch, momentum=0.5, last=last).offsets

    every = torch.arange(8)
    assert_close(offsets(back, False), offsets(every, False), rtol=0, atol=1e-12)
    assert (offsets(back, True) - offsets(every, True)).abs().max() > 1e-6


def test_a_batch_of_single_samples_moves_means_only():
    state, rng = a_state()
    x = torch.randn(3, 4, generator=rng, dtype=F64)
    new = update_adjustment(state, class_statistics(x, torch.tensor([0, 2, 4]), 5))
    assert torch.equal(new.dispersions, state.dispersions)
    moved = (new.means != state.means).any(1)
    assert moved.tolist() == [True, False, True, False, True]


def test_classes_that_are_not_finite_are_left_as_they_were():
    state, rng = a_state()
    x = torch.randn(4, 4, generator=rng, dtype=F64)
    x[0, 1] = float("nan")
    new = update_adjustment(state, class_statistics(x, torch.tensor([0, 0, 1, 1]), 5))
    assert all(t.isfinite().all() for t in new)
    assert torch.equal(new.means[0], state.means[0])
    assert not torch.equal(new.means[1], state.means[1])


def test_without_any_spread_all_classes_met_share_alike():
    data = class_statistics(torch.randn(3, 2), torch.tensor([0, 1, 3]), 4)
    state = start_adjustment(data, m=0.0)
    third, masked = math.log(1 / 3), math.log(1e-12)
    wanted = torch.tensor([third, third, masked, third], dtype=F64)
    assert_close(state.offsets, wanted)


@pytest.mark.parametrize(
    ("absent", "offset"), [("mask", math.log(1e-12)), ("ignore", 0)]
)
def test_absent_classes_are_masked_or_ignored_until_they_appear(absent, offset):
    data = class_statistics(torch.randn(6, 2), torch.arange(6) % 2, 3)
    state = start_adjustment(data, absent=absent)
    assert state.offsets[2] == pytest.approx(offset)
    same = update_adjustment(state, data, absent=absent)
    assert same.offsets[2] == pytest.approx(offset)
    batch = class_statistics(torch.randn(4, 2), torch.tensor([2, 2, 0, 1]), 3)
    assert update_adjustment(state, batch, absent=absent).seen.all()


def test_statistics_are_float64_where_the_features_are():
    x = torch.randn(6, 2, dtype=torch.bfloat16)
    state = start_adjustment(class_statistics(x, torch.arange(6) % 2, 2))
    new = update_adjustment(state, class_statistics(x, torch.arange(6) % 2, 2))
    assert {t.dtype for t in new} == {F64, torch.bool}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"m": 7}, "m is 7; wanted a number from 0 to 1"),
        ({"tro": -1}, "tro is -1"),
        ({"absent": "typo"}, "'typo'; wanted one of 'mask', 'ignore'"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    data = class_statistics(torch.randn(4, 2), torch.arange(4) % 2, 2)
    with pytest.raises(ValueError, match=message):
        start_adjustment(data, **options)
