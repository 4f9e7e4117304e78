"""Which samples the functional prior mixes into which batches."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, with_task_labels
from avalanche.benchmarks.utils import DataAttribute, as_classification_dataset
from avalanche.core import SupervisedPlugin
from cases import APIS, SIDE, Images, naive_with, task_model, toy_benchmark, toy_model
from prior_cases import Points
from torch.testing import assert_close

from avalanche_ext.buffers import MemorablePastBuffer
from avalanche_ext.functional.functional_prior import FUNCTION, REPLAY
from avalanche_ext.models.past_data import forward
from avalanche_ext.plugins import FunctionalPriorPlugin

N = 48  # samples of each experience of the toy stream
apis = pytest.mark.parametrize("api", APIS)


def key(x):
    return tuple(x.flatten()[:3].tolist())


class Samples(SupervisedPlugin):
    """Counts samples, steps and forward passes of each epoch."""

    def __init__(self):
        super().__init__()
        self.seen, self.steps, self.tasks, self.passes = {}, Counter(), {}, Counter()

    def before_training_exp(self, strategy, **kwargs):
        def count(module, args):
            if module.training:
                clock = strategy.clock
                self.passes[clock.train_exp_counter, clock.train_exp_epochs] += 1

        self.handle = strategy.model.register_forward_pre_hook(count)

    def before_training_iteration(self, strategy, **kwargs):
        when = strategy.clock.train_exp_counter, strategy.clock.train_exp_epochs
        self.steps[when] += 1
        seen = self.seen.setdefault(when, Counter())
        seen.update(key(x) for x in strategy.mb_x)
        if hasattr(strategy.experience, "task_labels"):
            pairs = zip(strategy.mb_x, strategy.mb_task_id.tolist())
            self.tasks.update({key(x): t for x, t in pairs})

    def after_training_exp(self, strategy, **kwargs):
        self.handle.remove()


def mixing(buffer, *plugins, api="old", n=3, **options):
    options.setdefault("model", task_model())
    prior = FunctionalPriorPlugin(buffer, **options.pop("prior", {}))
    strategy, stream = naive_with(prior, *plugins, **options), toy_benchmark(api)
    strategy.train(stream.train_stream[:n])
    return strategy, prior, stream.train_stream


@apis
@pytest.mark.parametrize(("size", "batch"), [(5, 16), (1, 9), (N, 50)])
def test_every_sample_is_seen_exactly_once_an_epoch(api, size, batch):
    samples, buffer = Samples(), MemorablePastBuffer(size)
    _, _, stream = mixing(buffer, samples, api=api, train_mb_size=batch)
    for k in range(3):
        kept = zip(stream[:k], buffer.positions)
        wanted = [stream[k].dataset, *(e.dataset.subset(p.tolist()) for e, p in kept)]
        keys = [key(item[0]) for data in wanted for item in data]
        assert len(set(keys)) == N + k * size
        for epoch in range(2):
            assert samples.seen[k, epoch] == Counter(keys)
            assert samples.steps[k, epoch] == math.ceil((N + k * size) / batch)


@apis
def test_each_batch_takes_one_forward_pass_in_training(api):
    samples = Samples()
    mixing(MemorablePastBuffer(5), samples, api=api)
    assert samples.passes == samples.steps and sum(samples.steps.values()) > 15


@pytest.mark.parametrize("api", [a for a in APIS if a != "new"])
def test_batches_keep_their_task_labels(api):
    samples = Samples()
    _, _, stream = mixing(MemorablePastBuffer(5), samples, api=api)
    wanted = {key(x): t for e in stream for x, _, t in e.dataset}
    assert samples.tasks == wanted
    assert len(set(wanted.values())) == (3 if "task_labels" in api else 1)


@apis
@pytest.mark.parametrize("temperature", [1.0, 2.0, 20.0])
def test_soft_targets_are_the_newest_models_for_all_experiences(api, temperature):
    rows = []

    class Rows(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            rows.append(prior._rows)

    buffer = MemorablePastBuffer(5)
    prior = FunctionalPriorPlugin(buffer, temperature=temperature)
    strategy = naive_with(prior, Rows(), model=task_model())
    for k, experience in enumerate(toy_benchmark(api).train_stream):
        if k:
            wanted = soft_of(strategy.model, buffer, temperature)
        strategy.train(experience)
        if k:
            width = wanted.shape[1]
            everything = torch.arange(5 * k)
            soft, known = rows[k]._soft_of(everything, width, temperature)
            assert_close(soft, wanted)
            assert_close(soft.sum(1), torch.ones(5 * k))
            assert (soft[~known] == 0).all() and (soft[known] > 0).all()


def soft_of(model, buffer, temperature):
    """From scratch, one point at a time."""
    model.eval()
    points = [(x[None], torch.tensor(t) if t else None) for x, _, *t in buffer.buffer]
    with torch.no_grad():
        logits = torch.cat([forward(model, x, t) for x, t in points])
    model.train()
    soft = torch.zeros_like(logits)
    for row, own in zip(soft, logits):
        row[own > -1000] = (own[own > -1000] / temperature).softmax(0)
    return soft


def test_memory_follows_its_size_in_both_roles_also_when_resized():
    buffer, samples = MemorablePastBuffer(8), Samples()
    strategy, prior, stream = mixing(buffer, samples, n=2)
    buffer.resize(strategy, 3)
    strategy.train(stream[2])
    assert samples.seen[2, 0].total() == N + 2 * 3
    assert len(prior.logits) == 9 == len(buffer.buffer)
    buffer.resize(strategy, 0)
    strategy.train(stream[0])
    assert samples.seen[3, 0].total() == N and prior.logits is None


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_one_point_a_past_experience_is_enough(fraction):
    buffer, samples = MemorablePastBuffer(1, replay_fraction=fraction), Samples()
    mixing(buffer, samples, api="old_task_labels", train_mb_size=10)
    role = REPLAY if fraction == 1 else FUNCTION
    assert [r.tolist() for r in buffer.roles] == [[role]] * 3
    assert samples.seen[2, 1].total() == N + 2


@pytest.mark.parametrize("batch", [1, 3])
def test_batches_without_memory_or_without_new_points_are_fine(batch, rng):
    """With few samples and small batches there are both."""
    x, y = torch.randn(12, 1, SIDE, SIDE, generator=rng), torch.arange(12) % 2
    kinds, losses = set(), []

    class Kinds(SupervisedPlugin):
        def after_training_iteration(self, strategy, **kwargs):
            if prior._rows is not None:
                new = (strategy.mbatch[prior._rows.field] < 0).tolist()
                kinds.add((any(new), all(new)))
            losses.append(strategy.loss.item())

    buffer = MemorablePastBuffer(6)
    prior = FunctionalPriorPlugin(buffer)
    model = task_model()
    del model.feature_extractor[2]  # a batch of one has no variance
    parts = [as_classification_dataset(Points(x[i::2], y[i::2] + i)) for i in (0, 1)]
    stream = benchmark_from_datasets(train=parts).train_stream
    options = {"train_mb_size": batch, "train_epochs": 8, "model": model}
    naive_with(prior, Kinds(), **options).train(stream)
    assert {(True, True), (False, False)} <= kinds
    assert torch.tensor(losses).isfinite().all()


@pytest.mark.parametrize("transform", ["eval", "train"])
def test_soft_targets_are_of_the_images_they_are_told_to_be_of(transform):
    data = as_classification_dataset(
        Images(4, seed=1), transform_groups={"train": (torch.neg, None), "eval": None}
    )
    buffer, model = MemorablePastBuffer(6), toy_model(cosine=False)
    prior = FunctionalPriorPlugin(buffer, soft_target_transform=transform)
    stream = benchmark_from_datasets(train=[data]).train_stream
    naive_with(prior, model=model).train(stream)
    x = Images(4, seed=1).tensors[0][buffer.positions[0]]
    with torch.no_grad():
        wanted = model.eval()(-x if transform == "train" else x)
    assert_close(prior.logits, wanted)


def test_memory_is_trained_in_its_training_transforms():
    data = as_classification_dataset(
        Images(4, seed=1), transform_groups={"train": (torch.neg, None), "eval": None}
    )
    samples, prior = Samples(), FunctionalPriorPlugin(MemorablePastBuffer(6))
    stream = benchmark_from_datasets(train=[data, data]).train_stream
    naive_with(prior, samples, model=toy_model(cosine=False)).train(stream)
    wanted = Counter(key(-x) for x in Images(4, seed=1).tensors[0])
    kept = prior.buffer.positions[0]
    wanted.update(key(-x) for x in Images(4, seed=1).tensors[0][kept])
    assert samples.seen[1, 0] == wanted


def test_each_sample_of_several_task_labels_has_its_own_head(rng):
    x = torch.randn(24, 1, SIDE, SIDE, generator=rng)
    data = as_classification_dataset(Points(x, torch.arange(24) % 2))
    tasks = DataAttribute([i % 3 for i in range(24)], "targets_task_labels", True)
    data = data.update_data_attribute("targets_task_labels", tasks)
    parts = [data.subset(list(range(12))), data.subset(list(range(12, 24)))]
    stream = with_task_labels(benchmark_from_datasets(train=parts)).train_stream
    samples, buffer = Samples(), MemorablePastBuffer(6)
    strategy = naive_with(FunctionalPriorPlugin(buffer), samples, model=task_model())
    strategy.train(stream)
    assert len(strategy.model.train_classifier.pairs) == 6
    assert samples.tasks == {key(each): i % 3 for i, each in enumerate(x)}
    assert samples.seen[1, 0].total() == 18 == len(samples.seen[1, 0])
