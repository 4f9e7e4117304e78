"""A strategy fed from memory trains and evaluates as it would without."""

from __future__ import annotations

import pytest
import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    class_incremental_benchmark,
    nc_benchmark,
    with_task_labels,
)
from avalanche.benchmarks.utils import TransformGroups, as_classification_dataset
from avalanche.benchmarks.utils.classification_dataset import (
    _make_taskaware_tensor_classification_dataset,
)
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.supervised import Naive
from cases import naive_with, toy_benchmark, toy_model
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms as T

from avalanche_ext.plugins.memory_resident import MemoryResidentPlugin

PLAIN = T.Normalize(0.5, 0.25)
UNKNOWN = T.Lambda(lambda x: x)


class Images(TensorDataset):
    """Tiny random images of four classes."""

    def __init__(self, n=24):
        self.targets = [i % 4 for i in range(n)]
        x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1))
        super().__init__(x, torch.tensor(self.targets))


def old_benchmark(transform=PLAIN):
    return nc_benchmark(
        Images(), Images(), 2, False, seed=0,
        train_transform=transform, eval_transform=transform,
    )  # fmt: skip


def new_benchmark(transform=PLAIN):
    groups = {"train": (transform, None), "eval": (transform, None)}
    data = {
        part: as_classification_dataset(Images(), TransformGroups(groups))
        for part in ("train", "test")
    }
    return class_incremental_benchmark(data, num_experiences=2, seed=0)


class Watch(SupervisedPlugin):
    """Notes the classes of the loaders used and which images arrive."""

    def __init__(self):
        super().__init__()
        self.loaders, self.sizes, self.images = [], [], []

    def before_training_epoch(self, strategy, **kwargs):
        self.loaders.append(type(strategy.dataloader).__name__)

    def before_training_iteration(self, strategy, **kwargs):
        self.sizes.append(len(strategy.mb_x))
        self.images.append(strategy.mb_x)

    def before_eval_iteration(self, strategy, **kwargs):
        self.loaders.append(type(strategy.dataloader).__name__)


def train(benchmark, *plugins, dropout=0.0, eval_every=-1, **kwargs):
    """Train on a whole stream; return the strategy, what was seen, and the metrics."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Dropout(dropout))
    watch = Watch()
    metrics = [*accuracy_metrics(epoch=True, stream=True), *loss_metrics(stream=True)]
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1, momentum=0.9),
        train_mb_size=5,
        train_epochs=2,
        eval_mb_size=7,
        plugins=[*plugins, watch],
        evaluator=EvaluationPlugin(*metrics, loggers=[]),
        eval_every=eval_every,
    )
    for experience in benchmark.train_stream:
        strategy.train(experience, [benchmark.test_stream], **kwargs)
    return strategy, watch, strategy.eval(benchmark.test_stream)


def weights(strategy):
    return torch.cat([p.detach().flatten() for p in strategy.model.parameters()])


@pytest.mark.parametrize("make", [old_benchmark, new_benchmark])
def test_training_and_metrics_in_fixed_order_equal_those_without_the_plugin(make):
    one, watch, ours = train(make(), MemoryResidentPlugin(), shuffle=False)
    two, other, theirs = train(make(), shuffle=False)
    assert set(watch.loaders) == {"ResidentLoader"}
    assert "ResidentLoader" not in other.loaders
    assert torch.equal(weights(one), weights(two)) and ours == theirs
    assert watch.sizes == [5, 5, 2] * 4


def test_each_epoch_sees_all_images_in_an_order_fixed_by_the_generator():
    def images(seed):
        g = torch.Generator().manual_seed(seed)
        _, watch, _ = train(old_benchmark(), MemoryResidentPlugin(generator=g))
        return [torch.cat(watch.images[i : i + 3]) for i in range(0, 12, 3)]

    first, again, other = images(1), images(1), images(2)
    assert all(map(torch.equal, first, again)) and not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first[0].sort(0).values, first[1].sort(0).values)


def test_drop_last_given_to_train_is_honoured():
    _, watch, _ = train(old_benchmark(), MemoryResidentPlugin(), drop_last=True)
    assert watch.sizes == [5, 5] * 4


@pytest.mark.parametrize("transform", [PLAIN, UNKNOWN], ids=["held", "not held"])
@pytest.mark.parametrize("make", [old_benchmark, new_benchmark])
def test_evaluation_in_between_does_not_change_training(make, transform):
    often, seldom = (
        train(make(transform), MemoryResidentPlugin(), dropout=0.3, eval_every=k)[0]
        for k in (1, -1)
    )
    assert torch.equal(weights(often), weights(seldom))


@pytest.mark.parametrize("transform", [PLAIN, UNKNOWN], ids=["held", "not held"])
def test_evaluation_leaves_all_generators_as_they_are(transform, rng):
    benchmark = old_benchmark(transform)
    strategy, _, _ = train(benchmark, MemoryResidentPlugin(generator=rng))
    states = rng.get_state(), torch.get_rng_state()
    strategy.eval(benchmark.test_stream, num_workers=0, persistent_workers=True)
    assert torch.equal(states[0], rng.get_state())
    assert torch.equal(states[1], torch.get_rng_state())


@pytest.mark.parametrize(
    ("make", "loader"),
    [(old_benchmark, "TaskBalancedDataLoader"), (new_benchmark, "DataLoader")],
)
def test_data_that_cannot_be_held_train_through_avalanches_loader(make, loader):
    _, watch, _ = train(make(UNKNOWN), MemoryResidentPlugin())
    assert set(watch.loaders) == {loader, "DataLoader"}
    _, watch, _ = train(make(PLAIN), MemoryResidentPlugin(memory_resident=False))
    assert set(watch.loaders) == {loader, "DataLoader"}
    with pytest.raises(ValueError, match="memory_resident=True.*Lambda"):
        train(make(UNKNOWN), MemoryResidentPlugin(memory_resident=True))


@pytest.mark.parametrize("first", [True, False])
def test_the_loader_of_a_replay_plugin_stays(first):
    plugins = [MemoryResidentPlugin(), ReplayPlugin(mem_size=4)]
    _, watch, _ = train(old_benchmark(), *(plugins if first else plugins[::-1]))
    # nothing to replay in the first experience
    assert watch.loaders[:4] == ["ResidentLoader"] * 2 + ["ReplayDataLoader"] * 2


class OwnLoader(SupervisedPlugin):
    """Trains on something else."""

    def before_training_exp(self, strategy, **kwargs):
        data = strategy.adapted_dataset.subset([0, 1, 2])
        strategy.dataloader = DataLoader(data, batch_size=strategy.train_mb_size)


def test_a_plain_loader_of_another_plugin_stays():
    _, watch, _ = train(new_benchmark(), OwnLoader(), MemoryResidentPlugin())
    assert watch.sizes == [3] * 4


def test_batches_balanced_over_task_labels_stay():
    tasks = [
        _make_taskaware_tensor_classification_dataset(
            *Images().tensors, task_labels=label
        )
        for label in (0, 1)
    ]
    both = tasks[0].concat(tasks[1])
    benchmark = with_task_labels(benchmark_from_datasets(train=[both], test=[both]))
    _, watch, _ = train(benchmark, MemoryResidentPlugin())
    assert watch.loaders[:2] == ["TaskBalancedDataLoader"] * 2


def test_a_restored_generator_continues_where_it_was(rng):
    plugin = MemoryResidentPlugin(generator=rng)
    state = plugin.state_dict()
    wanted = torch.rand(3, generator=rng)
    plugin.load_state_dict(state, [])
    assert torch.equal(wanted, torch.rand(3, generator=rng))
    assert MemoryResidentPlugin().state_dict() == {}
    MemoryResidentPlugin().load_state_dict({}, [])
    with pytest.raises(ValueError, match="saved with a generator; wanted the same"):
        MemoryResidentPlugin().load_state_dict(state, [])


@pytest.mark.parametrize("api", ["old_task_labels", "new"])
@pytest.mark.parametrize("resident", [False, True])
def test_a_generator_governs_the_order_wherever_the_data_are(api, resident):
    def trained(seed):
        torch.manual_seed(0)
        benchmark, model = toy_benchmark(api), toy_model(cosine=False)
        plugin = MemoryResidentPlugin(
            memory_resident=resident, generator=torch.Generator().manual_seed(7)
        )
        strategy = naive_with(plugin, model=model)
        torch.manual_seed(seed)
        strategy.train(benchmark.train_stream[:1])
        return weights(strategy)

    assert torch.equal(trained(1), trained(2))


def test_an_unknown_choice_is_named():
    with pytest.raises(ValueError, match="'yes'; wanted one of 'auto', True"):
        MemoryResidentPlugin(memory_resident="yes")
