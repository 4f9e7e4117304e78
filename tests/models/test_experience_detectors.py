"""Detectors tell experiences apart, and what they hold never changes later."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from avalanche_ext.functional.recognition import informative_features
from avalanche_ext.models.experience_detectors import ExperienceDetectors

SIZES = (14, 20, 12)  # units of the submodels


class Counted:
    """A classifier whose answer is the mean of a row, and that tells what it saw."""

    classes_ = np.array([0, 1])

    def fit(self, X, y):
        self.seen = torch.from_numpy(X), torch.from_numpy(y)

    def predict_proba(self, X):
        inside = X.mean(1)
        return np.stack([inside, 1 - inside], 1)


class Swapped(Counted):
    """The same, with the columns the other way round."""

    classes_ = np.array([1, 0])

    def predict_proba(self, X):
        return super().predict_proba(X)[:, ::-1]


def experience(k, rng, n=24, labels=None):
    """Rows of the samples of experience k in submodels 0 to k, and their classes."""
    if labels is None:
        labels = 10 * k + torch.arange(n) % 2
    rows = []
    for m in range(k + 1):
        row = 0.3 * torch.rand(len(labels), SIZES[m], generator=rng)
        mine = slice(0, 5) if m == k else slice(5, 10)
        row[:, mine] += 0.5 * torch.rand(len(labels), 5, generator=rng)
        rows.append(row)
    predicted = [torch.arange(len(labels)).flip(0) % 2 for _ in rows]
    return rows, predicted, labels


def filled(rng, n=3, sizes=(24, 24, 24), **options):
    detectors = ExperienceDetectors(**{"features": 4, "num_trees": 7, **options})
    data = [experience(k, rng, size) for k, size in zip(range(n), sizes)]
    for each in data:
        detectors.add(*each)
    return detectors, data


def some(rng, n=11):
    return [torch.rand(n, size, generator=rng) for size in SIZES]


def test_experiences_are_told_apart(rng):
    detectors, _ = filled(rng)
    for k in range(3):
        rows = experience(k, rng)[0]
        rows += some(rng, 24)[k + 1 :]  # later submodels have no say
        p = detectors.probabilities(rows)
        assert p.shape == (24, 3) and p.dtype == torch.double
        assert_close(p.sum(1), torch.ones(24, dtype=torch.double))
        assert (p.argmax(1) == k).double().mean() > 0.9


def test_probabilities_are_those_of_the_chain(rng):
    detectors, _ = filled(rng)
    rows = some(rng)
    found = detectors.probabilities(rows)
    for i in range(len(rows[0])):
        rest = 1.0
        for m in range(2):
            row = rows[m][i : i + 1][:, detectors.selected[m]].numpy()
            inside = detectors._fitted[m].predict_proba(row)[0, 0]
            assert found[i, m] == pytest.approx(inside * rest)
            rest *= 1 - inside
        assert found[i, 2] == pytest.approx(rest)


def test_the_first_experiences_may_be_asked_alone(rng):
    detectors, _ = filled(rng)
    rows = some(rng)
    one, two, three = (detectors.probabilities(rows[:n]) for n in (1, 2, 3))
    assert torch.equal(one, torch.ones(11, 1, dtype=torch.double))
    assert_close(two[:, 0], three[:, 0])
    assert_close(two[:, 1], three[:, 1:].sum(1))


def test_answers_do_not_depend_on_the_other_samples(rng):
    detectors, _ = filled(rng)
    rows, order = some(rng), torch.randperm(11, generator=rng)
    whole = detectors.probabilities(rows)
    assert torch.equal(detectors.probabilities([r[order] for r in rows]), whole[order])
    assert torch.equal(detectors.probabilities([r[3:4] for r in rows]), whole[3:4])


def test_features_and_rows_of_an_experience_never_change(rng):
    detectors = ExperienceDetectors(4, num_trees=3)
    before = []
    for k in range(3):
        rows, predicted, labels = experience(k, rng)
        detectors.add(rows, predicted, labels)
        assert torch.equal(detectors.selected[k], informative_features(rows[k], 4))
        for m in range(k + 1):  # only the features that count are kept
            kept = rows[m][:, detectors.selected[m]]
            assert torch.equal(detectors.rows[m][k - m], kept)
        for old, new in zip(before, [*detectors.selected, *detectors.labels]):
            assert torch.equal(old, new)
        before = [each.clone() for each in detectors.selected]
    assert [len(own) for own in detectors.rows] == [3, 2, 1] and len(detectors) == 3


@pytest.mark.parametrize("table", ["balanced", "code"])
def test_detectors_see_their_own_as_0_and_all_later_ones_as_1(table, rng):
    made = []

    def make():
        made.append(Counted())
        return made[-1]

    detectors, data = filled(
        rng, sizes=(18, 11, 13), table=table, make_detector=make, seed=5
    )
    assert len(made) == 1 + 2  # all anew with each experience but the first
    for m, own in enumerate(made[1:]):
        x, y = own.seen
        n_experiences = 3 - m
        assert y.tolist() == ([0] + [1] * (n_experiences - 1)) * 11
        for k in range(m, 3):
            rows, predicted, labels = data[k]
            features = rows[m][:, detectors.selected[m]]
            drawn = x[k - m :: n_experiences]
            if table == "code":  # sorted by the class predicted, the first ones
                order = sorted(range(len(labels)), key=lambda i: int(predicted[m][i]))
                assert torch.equal(drawn, features[order][:11])
            else:
                same = (drawn[:, None] == features[None]).all(2)
                assert same.any(1).all() and same.sum(0).max() == 1
                counts = labels[same.any(0)].bincount()[10 * k :].tolist()
                assert max(counts) - min(counts) <= 1


def test_own_classifiers_may_have_their_columns_in_any_order(rng):
    first, data = filled(rng, make_detector=Counted)
    second, _ = filled(torch.Generator().manual_seed(0), make_detector=Swapped)
    rows = data[2][0]
    found = first.probabilities(rows)
    assert torch.equal(second.probabilities(rows), found)
    inside = rows[0][:, first.selected[0]].numpy().mean(1)
    assert_close(found[:, 0], torch.from_numpy(inside).double())
    assert first.memory_bytes()["detectors"] == 0


def test_a_loaded_chain_answers_alike_and_goes_on_alike(rng):
    ours, _ = filled(rng, 2)
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    other = ExperienceDetectors(4, num_trees=7)
    other.load_state_dict(torch.load(file, weights_only=True))
    rows = some(rng)
    for k in (2, 3):
        p = ours.probabilities(rows[:k])
        assert torch.equal(other.probabilities(rows[:k]), p)
        if k == 2:
            later = experience(2, rng)
            ours.add(*later)
            other.add(*later)
    assert len(ours) == len(other) == 3


def test_a_seed_fixes_the_forests_and_no_global_state_is_touched(rng):
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    rows = some(rng)

    def answers(seed):
        own = torch.Generator().manual_seed(1)
        return filled(own, sizes=(24, 15, 10), seed=seed)[0].probabilities(rows)

    assert torch.equal(answers(1), answers(1))
    assert not torch.equal(answers(1), answers(2))
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()


def test_memory_is_four_bytes_a_feature_and_row_and_grows_with_the_trees(rng):
    detectors, _ = filled(rng, sizes=(24, 15, 10))
    found = detectors.memory_bytes()
    assert found["relevance_rows"] == 4 * 4 * ((24 + 15 + 10) + (15 + 10) + 10)
    loaded = ExperienceDetectors(4, num_trees=7)
    loaded.load_state_dict(detectors.state_dict())
    assert loaded.memory_bytes() == found
    more, _ = filled(torch.Generator().manual_seed(0), num_trees=14)
    assert 0 < found["detectors"] < more.memory_bytes()["detectors"]
    none = ExperienceDetectors().memory_bytes()
    assert none == {"relevance_rows": 0, "detectors": 0}


def test_options_reach_the_forests(rng):
    options = {"max_depth": 3, "min_samples_leaf": 2, "class_weight": "balanced"}
    detectors, _ = filled(rng, **options, seed=9)
    for forest in detectors._fitted:
        parameters = forest.get_params()
        wanted = {"n_estimators": 7, "random_state": 9, "bootstrap": False, **options}
        wanted |= {"criterion": "log_loss", "max_features": "log2"}
        assert {name: parameters[name] for name in wanted} == wanted


def test_class_weights_make_one_experience_weigh_as_the_later_ones_together(rng):
    # too few rows for a split: a forest answers with its own share
    sizes, leaf = (4, 4, 4), {"min_samples_leaf": 20}
    with pytest.warns(UserWarning, match="reference samples of experience"):
        plain, data = filled(rng, sizes=sizes, **leaf)
    p = plain.probabilities([r[:2] for r in data[2][0]])
    assert_close(p, torch.tensor([[1 / 3, 1 / 3, 1 / 3]] * 2, dtype=torch.double))
    with pytest.warns(UserWarning, match="reference samples of experience"):
        even, _ = filled(
            torch.Generator().manual_seed(0),
            sizes=sizes,
            class_weight="balanced",
            **leaf,
        )
    p = even.probabilities([r[:2] for r in data[2][0]])
    assert_close(p, torch.tensor([[1 / 2, 1 / 4, 1 / 4]] * 2, dtype=torch.double))


def test_few_samples_are_told(rng):
    detectors = ExperienceDetectors(4, num_trees=3)
    detectors.add(*experience(0, rng, 24))
    message = "^9 reference samples of experience 0; wanted at least 10, or the forest"
    with pytest.warns(UserWarning, match=message):
        detectors.add(*experience(1, rng, 9))


def test_more_features_than_units_are_told_and_all_are_used(rng):
    detectors = ExperienceDetectors(13, num_trees=3)
    detectors.add(*experience(0, rng))
    detectors.add(*experience(1, rng))
    with pytest.warns(UserWarning, match="features is 13, but there are 12 units: all"):
        detectors.add(*experience(2, rng))
    assert [len(index) for index in detectors.selected] == [13, 13, 12]
    assert detectors.probabilities(some(rng)).shape == (11, 3)


def test_one_class_a_side_and_any_labels_are_told_apart(rng):
    detectors = ExperienceDetectors(4, num_trees=7)
    for k, label in enumerate((77, 3)):
        detectors.add(*experience(k, rng, labels=torch.full((24,), label)))
    for k in range(2):
        rows = (experience(k, rng)[0] + some(rng, 24)[1:2])[:2]
        p = detectors.probabilities(rows)
        assert (p.argmax(1) == k).double().mean() > 0.8


def test_rows_that_do_not_fit_are_refused_and_change_nothing(rng):
    detectors, _ = filled(rng, 1)
    rows, predicted, labels = experience(1, rng, 6)
    for wrong, message in [
        ((rows[:1], predicted[:1], labels), r"1 times rows and .*wanted 2 times each"),
        ((rows, predicted[:1], labels), "2 times rows and 1 times predictions, of"),
        ((rows, predicted, labels[:5]), r"\[6, 6, 6, 6\] samples; wanted .* of 5"),
        (([], [], labels), "0 times rows and 0 times"),
        (([r[:0] for r in rows], [p[:0] for p in predicted], labels[:0]), r"\(N, F\)"),
        (([rows[0][:, 1:], rows[1]], predicted, labels), r"0 are of .*\(N, 14\), as"),
        (([rows[0], rows[1] / 0], predicted, labels), "experience 1 have nan or inf"),
        (([rows[0] + torch.nan, rows[1]], predicted, labels), "experience 0 have nan"),
    ]:
        with pytest.raises(ValueError, match=message):
            detectors.add(*wrong)
        assert len(detectors) == len(detectors.rows) == len(detectors.labels) == 1
    for asked in ([], some(rng)[:2]):
        message = f"rows are of {len(asked)} experiences; wanted 1 to 1, those known"
        with pytest.raises(ValueError, match=message):
            detectors.probabilities(asked)
    for asked in (rows[0][:, 1:], torch.cat([rows[0]] * 2, 1), rows[0][0]):
        with pytest.raises(
            ValueError, match=r"experience 0 .* wanted \(N, 14\), as wh"
        ):
            detectors.probabilities([asked])
