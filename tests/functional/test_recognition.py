from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from avalanche_ext.functional.recognition import (
    detector_table,
    experience_probabilities,
    informative_features,
)


@pytest.mark.golden("rerelrp", "decision.json")
def test_decisions_agree_with_the_authors(golden):
    for case in golden:
        p_in = torch.tensor([case["p_in"]], dtype=torch.double)
        wanted = torch.tensor([case["p_task"]], dtype=torch.double)
        found = experience_probabilities(p_in)
        assert_close(found, wanted, rtol=0, atol=1e-12)
        assert found.argmax(1).item() == case["task"]


@pytest.mark.golden("rerelrp", "recognition.npz")
def test_features_tables_and_chain_agree_with_the_authors(golden):
    n_experiences = len(golden["classes"])
    for m in range(n_experiences - 1):
        rows = [golden[f"rel.{m}.{k}"] for k in range(m, n_experiences)]
        selected = golden[f"selected.{m}"]
        found = informative_features(rows[0], golden["features_saved"])
        assert set(found.tolist()) == set(selected.tolist())
        rows = [part[:, selected] for part in rows]
        classes = [torch.zeros(len(part), dtype=torch.long) for part in rows]
        x, y = detector_table(rows, classes, table="code")
        assert_close(x, golden[f"X.{m}"], rtol=0, atol=1e-5)
        assert torch.equal(y, golden[f"y.{m}"])
    chain = experience_probabilities(golden["p_in"])
    assert_close(chain, golden["p_task"], rtol=0, atol=1e-12)
    assert torch.equal(chain.argmax(1), golden["pred_task"])


@pytest.mark.parametrize("n_experiences", [1, 2, 3, 8])
def test_experience_probabilities_are_a_distribution(n_experiences, rng):
    p = torch.rand(50, n_experiences - 1, generator=rng, dtype=torch.double)
    p[0], p[1] = 0, 1
    found = experience_probabilities(p)
    assert found.shape == (50, n_experiences)
    assert ((found >= 0) & (found <= 1)).all()
    assert_close(found.sum(1), torch.ones(50, dtype=torch.double))
    assert found[0, -1] == 1 and found[1, 0] == 1
    order = torch.randperm(50, generator=rng)
    assert torch.equal(experience_probabilities(p[order]), found[order])
    for row, wanted in zip(p.tolist(), found.tolist()):
        others = 1.0
        for one, probability in zip([*row, 1.0], wanted):
            assert probability == pytest.approx(one * others, abs=1e-12)
            others *= 1 - one


def test_informative_features_are_those_of_largest_signed_mean(rng):
    rows = torch.randn(9, 12, generator=rng)
    means = rows.mean(0)
    found = informative_features(rows, 4)
    assert len(set(found.tolist())) == 4
    rest = [c for c in range(12) if c not in found.tolist()]
    assert means[found].min() > means[rest].max()
    assert (means[found].diff() > 0).all()
    assert sorted(informative_features(rows, 12).tolist()) == list(range(12))


@st.composite
def experiences(draw):
    """Classes of the rows of some experiences; a row's only feature is its number."""
    sizes = st.lists(st.integers(1, 9), min_size=1, max_size=4)
    counts = draw(st.lists(sizes, min_size=2, max_size=4))
    classes = [
        torch.repeat_interleave(torch.arange(len(own)) + 10 * k, torch.tensor(own))
        for k, own in enumerate(counts)
    ]
    rows = [
        torch.arange(len(ids))[:, None] + 100.0 * k for k, ids in enumerate(classes)
    ]
    return rows, classes


@given(experiences(), st.integers(0, 5))
def test_balanced_tables_draw_evenly_over_classes(data, seed):
    rows, classes = data
    x, y = detector_table(rows, classes, generator=torch.Generator().manual_seed(seed))
    n = min(len(part) for part in rows)
    assert torch.equal(y, torch.tensor([0] + [1] * (len(rows) - 1)).repeat(n))
    for k, ids in enumerate(classes):
        drawn = (x[k :: len(rows), 0] - 100 * k).long()
        assert len(drawn) == len(set(drawn.tolist())) == n
        taken = Counter(ids[drawn].tolist())
        for label, there in Counter(ids.tolist()).items():
            assert taken[label] == there or taken[label] >= max(taken.values()) - 1


def test_the_published_table_loses_the_class_that_comes_last():
    # 3 classes beside 2, 15 rows each: the authors' PathMNIST
    classes = [
        torch.arange(3).repeat_interleave(15),
        torch.arange(2).repeat_interleave(15),
    ]
    rows = [ids[:, None].float() for ids in classes]
    x, _ = detector_table(rows, classes, table="code")
    assert set(x[::2, 0].tolist()) == {0, 1}
    x, _ = detector_table(rows, classes)
    assert Counter(x[::2, 0].tolist()) == {0: 10, 1: 10, 2: 10}


def test_a_seed_fixes_the_draw_and_torchs_own_generator_is_left_alone():
    rows = [torch.arange(40.0)[:, None], torch.arange(10.0)[:, None]]
    classes = [torch.zeros(40, dtype=torch.long), torch.ones(10, dtype=torch.long)]
    before = torch.random.get_rng_state()

    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        return detector_table(rows, classes, generator=generator)[0]

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_wrong_arguments_are_refused():
    rows, ids = torch.ones(3, 2), torch.zeros(3, dtype=torch.long)
    for given_rows, classes, options, message in [
        ([rows], [ids], {}, "rows are of 1 experiences; wanted at least 2"),
        ([rows, rows[:0]], [ids, ids[:0]], {}, r"rows are \[3, 0\] long; wanted"),
        ([rows, rows], [ids, ids[:2]], {}, r"classes are \[3, 2\] long; wanted \[3, 3"),
        ([rows, rows[:, :1]], [ids, ids], {}, r"of shapes \[\(1,\), \(2,\)\]; wanted"),
        ([rows, rows], [ids, ids], {"table": "even"}, "table is 'even'; wanted one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            detector_table(given_rows, classes, **options)
    with pytest.raises(ValueError, match=r"n is 3; wanted 1 to 2"):
        informative_features(rows, 3)
    with pytest.raises(
        ValueError, match=r"rows are of shape \(0, 2\); wanted \(N, F\)"
    ):
        informative_features(rows[:0], 1)
    for p in (1.5, -0.5, torch.nan):
        with pytest.raises(
            ValueError, match=r"in_probabilities are .*; wanted \[0, 1\]"
        ):
            experience_probabilities(torch.tensor([[0.5, p]]))
    with pytest.raises(ValueError, match=r"of shape \(3,\); wanted \(N, T - 1\)"):
        experience_probabilities(torch.ones(3))
