"""Consolidation of CWR*."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from avalanche_ext.functional.cwr import (
    class_counts,
    consolidated_rows,
    consolidations,
    reset_rows,
    shifted_rows,
)

F64 = torch.double
REPEATS = pytest.mark.parametrize("repeat", ["once", "per_pattern"])


def a_case(seed, k=7, d=3):
    """W, saved, past, data, memory: J is neither empty nor everything."""
    rng = torch.Generator().manual_seed(seed)
    trained, saved = torch.randn(2, k, d, generator=rng, dtype=F64)
    past, data, memory = torch.randint(0, 6, (3, k), generator=rng)
    data[0], data[-1] = 3, 0
    memory = torch.where(past > 0, memory, 0)
    memory[-1] = 0
    return trained, saved, past, data, memory


def class_list(data, memory, repeat):
    """The classes that are consolidated, in the order of the published script."""
    current = [c for c, n in enumerate(data.tolist()) if n]
    replayed = [c for c, n in enumerate(memory.tolist()) for _ in range(n)]
    if repeat == "once":
        return sorted({*current, *replayed})
    return current + replayed


def slowly(trained, saved, past, data, memory, repeat):
    """Row by row, one consolidation after the other."""
    rows = class_list(data, memory, repeat)
    mean = math.fsum(w for c in rows for w in trained[c].tolist())
    mean /= len(rows) * trained.shape[1]
    kept = {c: saved[c].tolist() for c, n in enumerate(past.tolist()) if n}
    for c in rows:
        w = math.sqrt(int(past[c]) / int(data[c] + memory[c])) if c in kept else 0.0
        before = kept.get(c, [0.0] * trained.shape[1])
        kept[c] = [
            (s * w + t - mean) / (w + 1)
            for s, t in zip(before, trained[c].tolist(), strict=True)
        ]
    return kept


@REPEATS
@given(st.integers(0, 10**6))
def test_consolidation_agrees_with_one_row_at_a_time(repeat, seed):
    trained, saved, past, data, memory = a_case(seed)
    k = consolidations(data, memory, repeat)
    ours = consolidated_rows(trained, saved, past, data + memory, k)
    wanted = slowly(trained, saved, past, data, memory, repeat)
    for c, row in wanted.items():
        assert_close(ours[c], torch.tensor(row, dtype=F64))
    known = (past + data + memory > 0).nonzero()[:, 0].tolist()
    assert sorted(wanted) == known


@REPEATS
@given(st.integers(0, 10**6))
def test_classes_that_are_absent_keep_their_rows_to_the_last_bit(repeat, seed):
    trained, saved, past, data, memory = a_case(seed)
    absent = data + memory == 0
    assert absent.any()
    k = consolidations(data, memory, repeat)
    ours = consolidated_rows(trained, saved, past, data + memory, k)
    assert torch.equal(ours[absent], saved[absent])
    assert not torch.equal(ours[~absent], saved[~absent])


@REPEATS
@given(st.integers(0, 10**6))
def test_shifted_rows_of_the_classes_at_hand_have_mean_zero(repeat, seed):
    trained, _, _, data, memory = a_case(seed)
    shifted = shifted_rows(trained, consolidations(data, memory, repeat))
    rows = class_list(data, memory, repeat)
    assert abs(shifted[rows].mean()) < 1e-12
    # what is shifted is one number for all
    assert_close((trained - shifted).std(), torch.tensor(0.0, dtype=F64))


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_shift_and_scale_of_the_head_carry_over(seed, other):
    trained, saved, past, data, memory = a_case(seed)
    k = consolidations(data, memory)
    shift, scale = 1 + other % 7, 2.0 ** (other % 3)
    ours = consolidated_rows(trained, saved, past, data + memory, k)
    shifted = consolidated_rows(trained + shift, saved, past, data + memory, k)
    scaled = consolidated_rows(scale * trained, scale * saved, past, data + memory, k)
    assert_close(shifted, ours)
    assert_close(scaled, scale * ours)


def test_repeating_without_end_forgets_the_past_and_a_long_past_forgets_the_present():
    trained, saved, past, data, memory = a_case(3)
    past, k = past + 1, consolidations(data, memory)
    current = data + memory
    ours = consolidated_rows(trained, saved, past, current, 10**6 * k)
    j = current > 0
    assert_close(ours[j], shifted_rows(trained, k)[j])
    ours = consolidated_rows(trained, saved, past * 10**16, current, k)
    assert_close(ours[j], saved[j], rtol=1e-6, atol=1e-6)


def test_rows_of_a_first_experience_ignore_what_was_never_saved():
    trained, _, _, data, _ = a_case(5)
    nothing, none = torch.full_like(trained, torch.nan), torch.zeros_like(data)
    k = consolidations(data, none)
    ours = consolidated_rows(trained, nothing, none, data, k)
    assert torch.equal(ours[data > 0], shifted_rows(trained, k)[data > 0])
    assert not reset_rows(nothing, none, data).any()


@given(st.integers(0, 10**6))
def test_head_after_reset_is_zero_but_for_known_classes_at_hand(seed):
    _, saved, past, data, memory = a_case(seed)
    reset = reset_rows(saved, past, data + memory)
    for c, row in enumerate(reset):
        known = past[c] > 0 and data[c] + memory[c] > 0
        assert torch.equal(row, saved[c] if known else torch.zeros_like(row))


@given(st.lists(st.integers(0, 6)), st.lists(st.integers(0, 6)))
def test_counts_add_up(some, others):
    def counted(labels):
        return class_counts(torch.tensor(labels, dtype=torch.long), 7)

    assert counted(some).sum() == len(some)
    assert counted(some).tolist() == [some.count(c) for c in range(7)]
    assert torch.equal(counted(some) + counted(others), counted(some + others))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="labels are from 0 to 3; wanted 0 to 2"):
        class_counts(torch.tensor([0, 3]), 3)
    with pytest.raises(ValueError, match="labels are from -1 to 1; wanted 0 to 2"):
        class_counts(torch.tensor([1, -1]), 3)
    with pytest.raises(ValueError, match="repeat is 'twice'; wanted one of 'once'"):
        consolidations(torch.ones(2), torch.ones(2), "twice")


@pytest.mark.golden("ar1star", "cwr_star.npz")
@pytest.mark.parametrize(
    ("variant", "repeat"), [("unique", "once"), ("perpattern", "per_pattern")]
)
def test_heads_follow_the_authors(golden, variant, repeat):
    saved = torch.zeros(50, golden["D"])
    past = torch.zeros(50, dtype=torch.long)
    for e in range(golden["n_exp"]):
        data = class_counts(golden[f"cur_labels{e}"], 50)
        memory = class_counts(golden[f"replay_labels{e}"], 50)
        current = data + memory
        assert torch.equal(past, golden[f"past_j_before{e}"].long())
        assert torch.equal(current, golden[f"cur_j{e}"].long())
        reset = reset_rows(saved, past, current)
        assert_close(reset, golden[f"{variant}_reset_W{e}"], **TIGHT)
        k, trained = consolidations(data, memory, repeat), golden[f"trained_W{e}"]
        saved = consolidated_rows(trained, saved, past, current, k)
        past = past + current
        seen = golden[f"{variant}_saved_mask{e}"]
        assert torch.equal(past > 0, seen)
        assert_close(saved[seen], golden[f"{variant}_saved_W{e}"][seen], **TIGHT)
        final = torch.where(seen[:, None], saved, trained)
        assert_close(final, golden[f"{variant}_final_W{e}"], **TIGHT)


TIGHT = {"rtol": 1e-6, "atol": 1e-6}
