from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from avalanche_ext.functional.relevance import (
    accumulated_relevance,
    capacity,
    frozen_units,
    normalised_relevance,
)


@pytest.mark.golden("rerelrp", "relevance_*.npz")
def test_summed_relevance_agrees_with_the_authors(golden):
    for composite in golden["composites"]:
        raw = {k: golden[f"raw.{composite}.{k}"] for k in golden["layers"]}
        units = {layer: normalised_relevance(rows) for layer, rows in raw.items()}
        for layer, found in accumulated_relevance([units]).items():
            wanted = golden[f"R.{composite}.{layer}"]
            assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 2, 3)])
def test_normalised_relevance_is_each_units_share(shape, rng):
    relevance = torch.randn(shape, generator=rng, dtype=torch.double)
    found = normalised_relevance(relevance)
    for row, sample in zip(found, relevance):
        sums = [unit.sum() for unit in sample]
        total = sum(abs(s) for s in sums)
        assert_close(row, torch.stack(sums) / total)
    assert_close(found.abs().sum(1), torch.ones(5, dtype=torch.double))


def test_normalised_relevance_knows_only_the_sign_of_the_start(rng):
    relevance = torch.randn(5, 7, 4, generator=rng)
    found = normalised_relevance(relevance)
    assert_close(normalised_relevance(3 * relevance), found)
    assert_close(normalised_relevance(-3 * relevance), -found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_layer_without_relevance_stays_at_zero(dtype):
    found = normalised_relevance(torch.zeros(2, 3, 4, dtype=dtype))
    assert torch.equal(found, torch.zeros(2, 3))


def test_relevance_does_not_depend_on_batches_and_their_order(rng):
    rows = normalised_relevance(torch.randn(40, 6, generator=rng))
    whole = accumulated_relevance([{"a": rows, "b": rows[:, :2]}])
    order = torch.randperm(40, generator=rng)
    parts = [{"a": rows[o], "b": rows[o, :2]} for o in order.split(7)]
    assert_close(accumulated_relevance(iter(parts)), whole, rtol=0, atol=1e-5)
    assert (whole["a"].abs() <= 40).all()


def test_batches_that_do_not_fit_are_refused():
    one = {"a": torch.ones(1, 2)}
    with pytest.raises(ValueError, match="layers are .'b'.; wanted .'a'."):
        accumulated_relevance([one, {"b": torch.ones(1, 2)}])
    for none in ([], [{}], [{"a": torch.ones(0, 2)}]):
        with pytest.raises(ValueError, match="of 0 samples; wanted at least 1"):
            accumulated_relevance(none)
    with pytest.raises(ValueError, match=r"of shape \(3,\); wanted \(B, C\)"):
        normalised_relevance(torch.ones(3))


def masks(rng, n=6):
    """Units kept by n experiences, more and more of them taken."""
    return [
        {
            "conv": torch.rand(9, generator=rng) < 0.3,
            "fc": torch.rand(5, generator=rng) < 0.2,
        }
        for _ in range(n)
    ]


def test_frozen_units_only_grow(rng):
    keeps = masks(rng)
    before = frozen_units(keeps[:1])
    assert all(torch.equal(before[k], keeps[0][k]) for k in keeps[0])
    for t in range(2, len(keeps) + 1):
        now = frozen_units(keeps[:t])
        assert all((now[k] >= before[k]).all() for k in now)
        before = now
    assert frozen_units([]) == capacity([]) == {}


def test_capacity_counts_units_one_by_one(rng):
    keeps = masks(rng)
    found = capacity(keeps)
    for layer, size in ("conv", 9), ("fc", 5):
        owner = {}
        shared = [0] * len(keeps)
        for k, keep in enumerate(keeps):
            for unit in keep[layer].nonzero()[:, 0].tolist():
                if owner.setdefault(unit, k) < k:
                    shared[k] += 1
        first = [list(owner.values()).count(k) for k in range(len(keeps))]
        assert found[layer] == (first, shared, size - len(owner))
        assert sum(found[layer].first_frozen) + found[layer].free == size


@pytest.mark.golden("rerelrp", "freezing.json")
def test_frozen_units_agree_with_the_authors(golden):
    first = golden[0]
    for record in golden:
        # the head apart: there an experience has rows of its own
        wanted = {k: v for k, v in record["frozen_intended"].items() if k != "fc"}
        keeps = []
        for pruned in record["task_pruned_so_far"].values():
            keeps.append({})
            for layer in wanted:
                gone = first["task_pruned_so_far"]["0"].get(layer, [])
                n = 1 + max([*first["frozen_intended"][layer], *gone])
                keeps[-1][layer] = torch.ones(n, dtype=torch.bool)
                keeps[-1][layer][pruned.get(layer, [])] = False
        found = frozen_units(keeps)
        assert {k: v.nonzero()[:, 0].tolist() for k, v in found.items()} == wanted


def test_masks_that_do_not_fit_are_refused():
    keep = {"a": torch.ones(2, dtype=torch.bool)}
    for other in {}, {"a": torch.ones(3, dtype=torch.bool)}, {"a": torch.ones(2)}:
        with pytest.raises(ValueError, match="keep of experience 1 is .*; wanted"):
            frozen_units([keep, other])
    with pytest.raises(ValueError, match="keep of experience 0 is .*; wanted"):
        capacity([{"a": torch.ones(2, dtype=torch.long)}])
