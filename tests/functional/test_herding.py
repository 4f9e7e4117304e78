"""Herding of exemplars."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from avalanche_ext.functional.herding import herding_indices


@given(st.integers(0, 20), st.integers(1, 30), st.data())
def test_herding_picks_distinct_samples_and_shorter_rankings_are_prefixes(
    seed, n, data
):
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 4, generator=rng)
    ranking = herding_indices(features, n)
    assert sorted(ranking.tolist()) == list(range(n))
    k = data.draw(st.integers(1, n))
    assert torch.equal(herding_indices(features, k), ranking[:k])


def test_herding_agrees_with_the_definition_written_slowly(rng):
    features = torch.randn(12, 3, generator=rng, dtype=torch.double)
    unit = normalize(features, dim=1)
    mean, picked = unit.mean(0), []
    for _ in range(8):
        free = [i for i in range(12) if i not in picked]
        picked.append(
            min(free, key=lambda i: (mean - unit[[*picked, i]].mean(0)).norm().item())
        )
    assert herding_indices(features, 8).tolist() == picked


@pytest.mark.parametrize("n", [0, 6])
def test_herding_refuses_more_picks_than_samples_or_none(n):
    with pytest.raises(ValueError, match=f"{n} exemplars wanted of 5"):
        herding_indices(torch.rand(5, 2), n)


def test_herding_refuses_an_unknown_variant():
    with pytest.raises(ValueError, match="'best'; wanted 'without_replacement'"):
        herding_indices(torch.rand(5, 2), 2, "best")


@pytest.mark.golden("bdr_cwd", "herding_*.npz")
@pytest.mark.parametrize(
    ("variant", "name"),
    [("without_replacement", "order_facil"), ("lucir", "order_lucir_original")],
)
def test_herding_agrees_with_the_authors(golden, variant, name):
    for label, wanted in enumerate(golden[name]):
        rows = (golden["targets"] == label).nonzero().flatten()
        picks = herding_indices(golden["features"][rows], golden["m"], variant)
        assert torch.equal(rows[picks], wanted)
