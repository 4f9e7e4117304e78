from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from avalanche_ext.functional.memory_selection import (
    highest_scores,
    output_uncertainty,
    top_of_each_class,
)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.data())
def test_top_of_each_class_is_balanced_distinct_and_of_the_size_asked(labels, data):
    n = data.draw(st.integers(0, len(labels)))
    rng = torch.Generator().manual_seed(len(labels))
    scores = torch.rand(len(labels), generator=rng).mul(5).round()
    targets = torch.tensor(labels)
    chosen = top_of_each_class(scores, targets, n)
    assert len(chosen) == n == len(set(chosen.tolist()))
    assert (scores[chosen].diff() <= 0).all()
    share = n // len(set(labels))
    for c in set(labels):
        own = torch.nonzero(targets == c).flatten()
        best = own[scores[own].argsort(descending=True, stable=True)[:share]]
        assert set(best.tolist()) <= set(chosen.tolist())


def test_uncertainty_is_the_trace_of_the_outputs_hessian(rng):
    f = torch.randn(5, 4, generator=rng, dtype=torch.double)
    h = f.softmax(1)
    hessian = torch.diag_embed(h) - h[:, :, None] * h[:, None, :]
    wanted = hessian.diagonal(dim1=1, dim2=2).sum(1)
    assert_close(output_uncertainty(f), wanted)


@pytest.mark.golden("ewc_fr_replay", "select.json")
def test_choices_agree_with_the_authors(golden):
    calls = [c for case in golden["collect"] for c in case["calls"]]
    for case in (*golden["score_pick"], *calls):
        scores = torch.tensor(case["scores"]).double()
        scores[torch.tensor(case["exclude"], dtype=torch.long)] = -torch.inf
        ours = highest_scores(scores, case["n"])
        assert ours.flip(0).tolist() == case["indices"]


@pytest.mark.golden("ewc_fr_replay", "select.json")
def test_memorable_points_agree_with_fromp(golden):
    logits = torch.tensor(golden["fromp_logits"])
    labels = torch.tensor(golden["fromp_labels"])
    scores = output_uncertainty(logits)
    assert_close(scores, torch.tensor(golden["fromp_scores"]), rtol=1e-5, atol=1e-6)
    used = 0
    for case in golden["fromp"]:
        n = case["num_points"] // case["num_classes"] * case["num_classes"]
        if len(case["indices"]) != n:
            continue  # given one batch, theirs never truncates
        sign = 1 if case["descending"] else -1
        ours = top_of_each_class(sign * scores, labels, n)
        assert set(ours.tolist()) == set(case["indices"])
        used += 1
    assert used
