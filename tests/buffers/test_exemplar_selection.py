"""Which samples of an experience exemplars start from."""

from __future__ import annotations

import pytest
import torch
from avalanche.training.storage_policy import (
    ClassBalancedBuffer,
    ReservoirSamplingBuffer,
)
from mnemonics_cases import agent, experience, small_model
from torch import nn

from avalanche_ext import FeatureClassifier
from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.buffers.exemplar_selection import Selection
from avalanche_ext.functional.herding import herding_indices


def selection(kind="random", generator=None):
    return Selection(kind, 4, "auto", generator)


def choose(kind="random", exp=None, quota=3, stored=(), host=None, generator=None):
    exp = experience((2, 0)) if exp is None else exp
    host = agent(small_model()) if host is None else host
    quota = quota if callable(quota) else lambda label, n=quota: n
    return selection(kind, generator).choose(host, exp, dict(stored), quota)


def inputs(exp, label):
    data = exp.dataset.eval()
    return torch.stack([x for x, y in data if int(y) == label])


@pytest.mark.parametrize("kind", ["random", "herding"])
def test_each_class_gets_distinct_samples_of_its_own(kind):
    exp = experience((2, 0), normalize=([0.4], [0.2]))
    for label, choice in choose(kind, exp).items():
        assert choice.position.unique().numel() == 3
        assert (choice.stored == -1).all() and (choice.task_labels == -1).all()
        for position, x in zip(choice.position.tolist(), choice.x):
            wanted, target = exp.dataset.eval()[position]
            assert target == label and torch.equal(x, wanted)


def test_evaluation_images_are_taken_not_augmented_ones():
    exp = experience((0,), augment=[lambda image: torch.zeros_like(image)])
    assert choose(exp=exp)[0].x.count_nonzero() > 0


def test_herding_ranks_by_features_of_unit_length():
    exp, host = experience((2, 0)), agent(small_model())
    found = choose("herding", exp, quota=4, host=host)
    for label, choice in found.items():
        own = inputs(exp, label)
        with torch.no_grad():
            features = host.model.feature_extractor(own)
        assert torch.equal(choice.x, own[herding_indices(features, 4)])


@pytest.mark.golden("mnemonics", "herding_short.npz")
def test_fewer_samples_than_wanted_are_all_kept_in_the_authors_order(golden):
    features, rank = golden["features"], golden["rank"]
    n, size = features.shape[1:]
    exp = experience((0, 1, 2, 3), per_class=n, images=features.view(-1, 1, 1, size))
    host = agent(FeatureClassifier(nn.Flatten(), nn.Linear(size, 4)).double())
    with pytest.warns(UserWarning, match=r"12 exemplars a class wanted.*0: 8, 1: 8"):
        found = choose("herding", exp, quota=12, host=host)
    for label, choice in found.items():
        order = rank[label].argsort() + n * label
        assert choice.position.tolist() == order.tolist()


@pytest.mark.parametrize("kind", ["random", "herding"])
def test_classes_with_fewer_samples_keep_all_once_with_a_warning(kind):
    exp = experience((0, 1, 2), per_class=[2, 6, 1])
    with pytest.warns(UserWarning, match=r"^4 exemplars .* \{0: 2, 2: 1\}"):
        found = choose(kind, exp, quota=4)
    assert {c: sorted(v.position.tolist()) for c, v in found.items() if c != 1} == {
        0: [0, 1],
        2: [8],
    }
    assert len(found[1].position) == 4


@pytest.mark.parametrize("kind", ["random", "herding"])
def test_classes_without_a_quota_are_left_out(kind):
    assert list(choose(kind, quota=lambda label: {2: 2, 0: 0}[label])) == [2]


@pytest.mark.filterwarnings("ignore:9 exemplars a class wanted")
@pytest.mark.parametrize("kind", ["random", "herding"])
def test_a_class_that_comes_back_is_chosen_from_old_exemplars_and_new_samples(kind):
    exp, old = experience((2, 0)), torch.rand(3, 1, 6, 6)
    found = choose(kind, exp, quota=9, stored={2: old}, host=agent(small_model()))[2]
    assert sorted(found.stored[found.stored >= 0].tolist()) == [0, 1, 2]
    assert sorted(found.position[found.position >= 0].tolist()) == [0, 1, 2, 3, 4, 5]
    assert ((found.stored >= 0) != (found.position >= 0)).all()
    for i, (stored, position) in enumerate(zip(found.stored, found.position)):
        wanted = old[stored] if stored >= 0 else exp.dataset.eval()[int(position)][0]
        assert torch.equal(found.x[i], wanted)


def test_own_generator_fixes_the_choice_and_leaves_the_global_one():
    host = agent(small_model())
    state = torch.get_rng_state()
    first, again = (
        choose(quota=2, host=host, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[c].position, again[c].position) for c in first)


BUFFERS = {
    "herding": lambda: HerdingBuffer(max_size=8),
    "per_class": lambda: HerdingBuffer(per_class=3),
    "reservoir": lambda: ReservoirSamplingBuffer(8),
    "balanced": lambda: ClassBalancedBuffer(8),
}


@pytest.mark.parametrize("kind", BUFFERS)
def test_another_buffers_choice_is_taken_in_its_order(kind):
    buffer, exp = BUFFERS[kind](), experience((2, 0))
    found = choose(buffer, exp, quota=3)
    for label, choice in found.items():
        own = [item[0] for item in buffer.buffer.eval() if int(item[1]) == label][:3]
        assert torch.equal(choice.x, torch.stack(own))
        assert (choice.stored == -1).all() and (choice.task_labels == -1).all()
        assert sum(len(choice.x) for choice in found.values()) <= 6


@pytest.mark.parametrize("kind", BUFFERS)
def test_another_buffers_state_comes_back(kind):
    first, other = selection(BUFFERS[kind]()), selection(BUFFERS[kind]())
    stream, host = [experience((2, 0)), experience((1,))], agent(small_model())
    for exp in stream:
        first.choose(host, exp, {}, lambda label: 3)
    other.load_state_dict(first.state_dict(), stream)
    ours, wanted = other.kind.buffer.eval(), first.kind.buffer.eval()
    assert len(ours) == len(wanted) > 0
    for (x, *labels), (x_wanted, *labels_wanted) in zip(ours, wanted):
        assert labels == labels_wanted and torch.equal(x, x_wanted)
    last = experience((4,), seed=3)
    results = []
    for each in (first, other):
        torch.manual_seed(3)
        results.append(each.choose(host, last, {}, lambda label: 2))
    assert all(torch.equal(results[0][c].x, results[1][c].x) for c in results[0])
    assert selection().state_dict() == {}


def test_sizes_are_those_of_the_other_buffer():
    assert selection(HerdingBuffer(per_class=3)).sizes(None, None) == (3, None)
    assert selection(HerdingBuffer(max_size=8)).sizes(None, None) == (None, 8)
    assert selection(ReservoirSamplingBuffer(8)).sizes(None, None) == (None, 8)
    with pytest.raises(ValueError, match="given with a buffer as selection"):
        selection(ReservoirSamplingBuffer(8)).sizes(3, None)


@pytest.mark.parametrize("kind", ["random", "herding"])
def test_sizes_are_20_a_class_or_the_one_given(kind):
    assert selection(kind).sizes(None, None) == (20, None)
    assert selection(kind).sizes(3, None) == (3, None)
    assert selection(kind).sizes(None, 3) == (None, 3)
    for sizes in ((3, 3), (0, None), (None, -1), (2.5, None), (None, True)):
        with pytest.raises(ValueError, match="wanted"):
            selection(kind).sizes(*sizes)


@pytest.mark.parametrize("arguments", [("best", 4), ("random", 0), (nn.Identity(), 4)])
def test_unknown_selections_are_refused(arguments):
    with pytest.raises(ValueError, match="wanted"):
        Selection(*arguments, "auto", None)


def test_features_are_needed_for_herding_only():
    host = agent(nn.Sequential(nn.Flatten(), nn.Linear(36, 6)))
    assert len(choose("random", host=host)) == 2
    with pytest.raises(ValueError, match="does not expose its features"):
        choose("herding", host=host)


def test_features_of_zeros_are_herded_and_those_of_nan_refused():
    host = agent(small_model())
    for parameter in host.model.feature_extractor.parameters():
        parameter.data.zero_()
    assert [len(c.x) for c in choose("herding", host=host).values()] == [3, 3]
    host.model.feature_extractor[1].bias.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="features of class 0 are not finite"):
        choose("herding", host=host)
