"""EWC of the points that no memory holds."""

from __future__ import annotations

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, with_task_labels
from avalanche.benchmarks.utils import DataAttribute, as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier
from cases import APIS, N_CLASSES, SIDE, naive_with, task_model, toy_benchmark
from cases import toy_extractor as extractor
from prior_cases import Points
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.testing import assert_close

from avalanche_ext.buffers import MemorablePastBuffer
from avalanche_ext.models import FeatureClassifier
from avalanche_ext.models.past_data import forward, parameters_by_name
from avalanche_ext.plugins import FunctionalPriorPlugin, LeftOutEWCPlugin

N = 48  # samples of each experience of the toy stream


def by_the_book(model, data, ggn=False, logits_of=forward):
    """One backward pass an example (and class)."""
    named = parameters_by_name(model)
    total = {n: torch.zeros_like(p) for n, p in named.items()}
    model.eval()
    for x, y, *t in data:
        logits = logits_of(model, x[None], torch.tensor(t) if t else None)
        h = logits.softmax(1)[0].tolist()
        for c, weight in enumerate(h) if ggn else [(y, 1.0)]:
            loss = cross_entropy(logits, torch.tensor([c]))
            found = torch.autograd.grad(
                loss, list(named.values()), retain_graph=True, allow_unused=True
            )
            for name, g in zip(named, found):
                total[name] += 0 if g is None else weight * g.square()
    model.train()
    return total


def assert_same(ours, wanted):
    assert ours.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(ours[name], value, rtol=1e-4, atol=1e-6, msg=name)


class Additions(SupervisedPlugin):
    """Notes what the EWC plugin adds to each loss, and what it should add."""

    def __init__(self, ewc):
        super().__init__()
        self.ewc, self.added, self.wanted, self.sizes = ewc, {}, {}, {}
        self.first = First()

    def before_backward(self, strategy, **kwargs):
        k = strategy.clock.train_exp_counter
        added = strategy.loss.item() - self.first.loss
        self.added.setdefault(k, []).append(added)
        energy = 0.0
        for name, p in strategy.model.named_parameters():
            if name in self.ewc.anchor:
                a = self.ewc.anchor[name]
                h = torch.zeros_like(a) + self.ewc.importance.get(name, 0)
                away = p.detach()[tuple(map(slice, a.shape))] - a
                energy += ((h + self.ewc.prior_precision) * away**2).sum().item() / 2
        self.sizes[k] = len(strategy.adapted_dataset)
        self.wanted.setdefault(k, []).append(energy / self.sizes[k])


class First(SupervisedPlugin):
    """Notes the loss before it."""

    def before_backward(self, strategy, **kwargs):
        self.loss = strategy.loss.item()


def watched(ewc, *earlier, api=APIS[1], **options):
    """Train with the plugin; returns what it added and what λ = 1 would have."""
    watcher = Additions(ewc)
    options.setdefault("model", task_model())
    strategy = naive_with(*earlier, watcher.first, ewc, watcher, **options)
    strategy.train(toy_benchmark(api).train_stream)
    return watcher


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("size", [0, 6])
def test_importance_is_the_summed_fisher_of_what_no_memory_holds(api, size):
    buffer = MemorablePastBuffer(size)
    ewc = LeftOutEWCPlugin(buffer=buffer)
    strategy = naive_with(FunctionalPriorPlugin(buffer), ewc, model=task_model())
    total = {}
    for k, experience in enumerate(toy_benchmark(api).train_stream):
        strategy.train(experience)
        rest = buffer.left_out(k) if size else range(N)
        own = by_the_book(strategy.model, experience.dataset.subset(list(rest)))
        assert len(rest) == N - size
        total = {n: h + total.get(n, 0) for n, h in own.items()}
        assert_same(ewc.importance, total)


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_importance_is_a_sum_in_any_chunk_and_batch_size(chunk):
    def importance(**options):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 8), nn.ReLU())
        model = FeatureClassifier(net, nn.Linear(8, N_CLASSES))
        ewc = LeftOutEWCPlugin(chunk=options.pop("chunk", 32))
        still = SGD(model.parameters(), lr=0.0)
        strategy = naive_with(ewc, model=model, optimizer=still, **options)
        strategy.train(toy_benchmark().train_stream)
        return ewc.importance

    wanted = importance()
    assert_same(importance(chunk=chunk), wanted)
    assert_same(importance(train_mb_size=chunk), wanted)
    assert all(h.abs().sum() > 0 for h in wanted.values())


@pytest.mark.parametrize("size", [6, N])
def test_the_anchor_always_moves_also_if_nothing_is_left_out(size):
    buffer = MemorablePastBuffer(size)
    ewc = LeftOutEWCPlugin(buffer=buffer)
    strategy = naive_with(FunctionalPriorPlugin(buffer), ewc, model=task_model())
    for experience in toy_benchmark(APIS[1]).train_stream:
        before = ewc.anchor
        strategy.train(experience)
        now = parameters_by_name(strategy.model)
        assert ewc.anchor.keys() == now.keys()
        assert all(torch.equal(ewc.anchor[n], p) for n, p in now.items())
        name = "feature_extractor.1.weight"
        assert not before or not torch.equal(before[name], ewc.anchor[name])
        assert all((h == 0).all() == (size == N) for h in ewc.importance.values())


@pytest.mark.parametrize(
    ("strength", "second", "third"),
    [
        (3.0, 3, 3),
        ([3.0], 3, 3),
        ([3.0, 5.0], 3, 5),
        ([3.0, None, 9], 3, 3),
        ([0, 5], 0, 5),
    ],
)
def test_penalties_follow_the_schedule_of_strengths(strength, second, third):
    found = watched(LeftOutEWCPlugin(strength, prior_precision=1.0))
    assert found.added[0] == [0.0] * 6
    for k, lam in ((1, second), (2, third)):
        wanted = [lam * w for w in found.wanted[k]]
        assert found.added[k] == pytest.approx(wanted, rel=1e-3, abs=1e-6)
        assert wanted[0] == 0 and max(found.wanted[k]) > 1e-3


def test_the_penalty_is_over_the_size_of_the_union():
    buffer = MemorablePastBuffer(10)
    ewc = LeftOutEWCPlugin(20.0, buffer=buffer)
    found = watched(ewc, FunctionalPriorPlugin(buffer))
    assert found.sizes == {0: N, 1: N + 10, 2: N + 20}
    wanted = [20 * w for w in found.wanted[2]]
    assert found.added[2] == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_without_a_fisher_the_prior_is_isotropic():
    ewc = LeftOutEWCPlugin(5.0, fisher="none", prior_precision=0.2)
    found = watched(ewc)
    assert ewc.importance == {} and len(ewc.anchor) > 0
    wanted = [5 * w for w in found.wanted[2]]
    assert found.added[2] == pytest.approx(wanted, rel=1e-3, abs=1e-6)
    assert max(wanted) > 1e-3


@pytest.mark.parametrize("api", APIS)
def test_ggn_is_the_mean_over_the_models_own_labels(api):
    ewc = LeftOutEWCPlugin(fisher="ggn")
    strategy = naive_with(ewc, model=task_model())
    first = toy_benchmark(api).train_stream[0]
    strategy.train(first)
    assert_same(ewc.importance, by_the_book(strategy.model, first.dataset, ggn=True))


def test_fisher_of_all_outputs_counts_labels_within_the_task():
    def all_rows(model, x, t):
        with model.train_classifier.all_outputs():
            return model(x, 0)

    ewc = LeftOutEWCPlugin(fisher_outputs="all")
    strategy = naive_with(ewc, model=task_model(N_CLASSES))
    total = {}
    for experience in toy_benchmark(APIS[1]).train_stream:
        strategy.train(experience)
        low = min(experience.dataset.targets)
        data = [(x, y - low, t) for x, y, t in experience.dataset]
        own = by_the_book(strategy.model, data, logits_of=all_rows)
        total = {n: h + total.get(n, 0) for n, h in own.items()}
    assert_same(ewc.importance, total)


@pytest.mark.parametrize("api", [APIS[1], APIS[3]])
def test_heads_that_came_after_the_anchor_are_free(api):
    seen = []

    class Watch(SupervisedPlugin):
        def after_training_epoch(self, strategy, **kwargs):
            if strategy.clock.train_exp_counter == 1:
                seen.append(ewc.prior_gradients(strategy, "trained")["weight"])

    ewc = LeftOutEWCPlugin(5.0)
    watched(ewc, Watch(), api=api)
    old, new = (f"train_classifier.weights.{k}" for k in (0, 1))
    assert (seen[-1][new] == 0).all() and seen[-1][old].abs().sum() > 0
    assert ewc.importance[new].abs().sum() > 0


@pytest.mark.parametrize("api", ["old", "new"])
def test_of_a_head_replaced_by_a_larger_one_the_old_rows_are_held(api):
    seen = {}

    class Watch(SupervisedPlugin):
        def after_training_epoch(self, strategy, **kwargs):
            k = strategy.clock.train_exp_counter
            seen[k] = ewc.prior_gradients(strategy, "trained")["weight"]

    ewc = LeftOutEWCPlugin(5.0, prior_precision=0.1)
    model = FeatureClassifier(extractor(), IncrementalClassifier(8, 2))
    found = watched(ewc, Watch(), model=model, api=api)
    for kind in ("weight", "bias"):
        name = f"train_classifier.classifier.{kind}"
        for k in (1, 2):
            gradient = seen[k][name]
            assert len(gradient) == 2 * k + 2 and (gradient[2 * k :] == 0).all()
            assert (gradient[: 2 * k] != 0).all()
        assert ewc.importance[name].shape == ewc.anchor[name].shape == gradient.shape
    wanted = [5 * w for w in found.wanted[2]]
    assert found.added[2] == pytest.approx(wanted, rel=1e-3, abs=1e-6)


def test_the_fisher_of_earlier_rows_stays_when_a_head_is_replaced():
    ewc = LeftOutEWCPlugin()
    model = FeatureClassifier(extractor(), IncrementalClassifier(8, 2))
    strategy, total = naive_with(ewc, model=model), {}
    for experience in toy_benchmark().train_stream:
        strategy.train(experience)
        own = by_the_book(
            strategy.model, experience.dataset, logits_of=lambda m, x, t: m(x)
        )
        for name, before in total.items():
            own[name][tuple(map(slice, before.shape))] += before
        total = own
        assert_same(ewc.importance, total)


def test_frozen_parameters_have_no_prior():
    model = task_model()
    model.feature_extractor[1].weight.requires_grad_(False)
    ewc = LeftOutEWCPlugin()
    naive_with(ewc, model=model).train(toy_benchmark(APIS[1]).train_stream)
    frozen = "feature_extractor.1.weight"
    assert frozen not in ewc.anchor and frozen not in ewc.importance


def test_each_task_label_of_an_experience_has_its_own_head(rng):
    x = torch.randn(12, 1, SIDE, SIDE, generator=rng)
    data = as_classification_dataset(Points(x, torch.arange(12) % 2))
    tasks = DataAttribute([i % 3 for i in range(12)], "targets_task_labels", True)
    data = data.update_data_attribute("targets_task_labels", tasks)
    (mixed,) = with_task_labels(benchmark_from_datasets(train=[data])).train_stream
    ewc, model = LeftOutEWCPlugin(), task_model()
    naive_with(ewc, model=model).train(mixed)
    assert len(model.train_classifier.pairs[:, 0].unique()) == 3
    assert_same(ewc.importance, by_the_book(model, mixed.dataset))
