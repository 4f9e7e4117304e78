"""The buffer of herded exemplars."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from avalanche.training.plugins import ReplayPlugin
from cases import APIS, naive_with, toy_benchmark, toy_model

from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.functional.herding import herding_indices

CPU = torch.device("cpu")


def agent():
    """A strategy as far as a buffer looks at it."""
    model = toy_model()
    model.train_classifier.grow(range(6))
    return SimpleNamespace(model=model, device=CPU)


def filled(buffer, api="old", n=3):
    strategy, benchmark = agent(), toy_benchmark(api)
    for experience in benchmark.train_stream[:n]:
        buffer.post_adapt(strategy, experience)
    return buffer, strategy, benchmark


def images(buffer):
    return torch.stack([item[0] for item in buffer.buffer])


@pytest.mark.parametrize("api", APIS)
def test_every_class_gets_its_number_of_exemplars(api):
    buffer, _, _ = filled(HerdingBuffer(per_class=5), api)
    counts = torch.tensor(list(buffer.buffer.targets)).bincount()
    assert counts.tolist() == [5] * 6
    items = {len(item) for item in buffer.buffer}
    assert items == ({2} if api == "new" else {3})


def test_exemplars_are_the_herded_samples_of_the_evaluation_features():
    buffer, strategy, benchmark = filled(HerdingBuffer(per_class=5), n=1)
    data = benchmark.train_stream[0].dataset
    x = torch.stack([item[0] for item in data])
    y = torch.tensor(list(data.targets))
    strategy.model.eval()
    with torch.no_grad():
        strategy.model(x)
    wanted = []
    for label in (0, 1):
        rows = (y == label).nonzero().flatten()
        picks = herding_indices(strategy.model.features[rows], 5)
        wanted.append(x[rows[picks]])
    assert torch.equal(images(buffer), torch.cat(wanted))


def test_model_is_left_as_found():
    strategy = agent()
    before = copy.deepcopy(strategy.model.state_dict())
    HerdingBuffer().post_adapt(strategy, toy_benchmark().train_stream[0])
    assert strategy.model.training
    for name, value in strategy.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_total_budget_is_shared_and_shrinks_to_prefixes():
    buffer, strategy, benchmark = filled(HerdingBuffer(max_size=10), n=1)
    first = images(buffer)
    assert len(first) == 10
    for experience in benchmark.train_stream[1:]:
        buffer.post_adapt(strategy, experience)
    counts = torch.tensor(list(buffer.buffer.targets)).bincount().tolist()
    assert counts == [2, 2, 2, 2, 1, 1]
    assert torch.equal(images(buffer)[:4], first[[0, 1, 5, 6]])
    buffer.resize(None, 6)
    assert torch.equal(images(buffer)[:2], first[[0, 5]])


def test_more_classes_than_budget_keeps_the_budget():
    buffer, _, _ = filled(HerdingBuffer(max_size=4))
    assert len(buffer.buffer) == 4


def test_fewer_samples_than_wanted_warns_and_keeps_all():
    with pytest.warns(UserWarning, match=r"100 exemplars .* \{0: 24, 1: 24\}"):
        buffer, _, _ = filled(HerdingBuffer(per_class=100), n=1)
    assert len(buffer.buffer) == 48


def test_a_class_seen_again_is_ranked_over_old_and_new_samples():
    buffer, strategy, benchmark = filled(HerdingBuffer(per_class=5), n=1)
    buffer.post_adapt(strategy, benchmark.train_stream[0])
    assert len(buffer.buffer) == 10


def test_state_points_at_samples_and_restores_them():
    buffer, _, benchmark = filled(HerdingBuffer(max_size=9))
    state = buffer.state_dict()
    stored = sum(t.numel() for t in state["rows"].values())
    assert stored == 2 * 9
    other = HerdingBuffer(max_size=9)
    other.load_state_dict(state, list(benchmark.train_stream))
    assert torch.equal(images(other), images(buffer))
    assert list(other.buffer.targets) == list(buffer.buffer.targets)


def test_bytes_are_those_of_the_raw_images():
    buffer, _, _ = filled(HerdingBuffer(per_class=5))
    assert HerdingBuffer().memory_bytes() == {"exemplars": 0}
    assert buffer.memory_bytes() == {"exemplars": 30 * 6 * 6 * 4}


def test_it_serves_avalanches_replay():
    strategy = naive_with(ReplayPlugin(12, storage_policy=HerdingBuffer(max_size=12)))
    for experience in toy_benchmark().train_stream:
        strategy.train(experience)
    assert len(strategy.plugins[0].storage_policy.buffer) == 12


def test_features_that_are_not_finite_are_refused_with_the_class():
    strategy = agent()
    strategy.model.feature_extractor[1].weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="features of class 0 are not finite"):
        HerdingBuffer().post_adapt(strategy, toy_benchmark().train_stream[0])


def test_a_model_without_features_is_refused():
    strategy = SimpleNamespace(model=torch.nn.Linear(2, 2), device=CPU)
    with pytest.raises(ValueError, match="does not expose its features"):
        HerdingBuffer().post_adapt(strategy, toy_benchmark().train_stream[0])


@pytest.mark.parametrize(
    "sizes",
    [{"per_class": 0}, {"max_size": -1}, {"per_class": 1, "max_size": 1}],
)
def test_sizes_that_are_not_positive_or_two_are_refused(sizes):
    with pytest.raises(ValueError, match="wanted"):
        HerdingBuffer(**sizes)


def test_a_number_per_class_cannot_be_resized():
    with pytest.raises(ValueError, match="made with max_size"):
        HerdingBuffer(per_class=5).resize(None, 10)
