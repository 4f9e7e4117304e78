"""What BDR measures of the training data before an experience (Q4 to Q6)."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from bdr_hosts import Watcher, replaying
from cases import naive_with, toy_benchmark, toy_model
from contract import run
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader

from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.functional.class_statistics import class_statistics
from avalanche_ext.models import CosineClassifier, FeatureClassifier
from avalanche_ext.plugins import BDRPlugin, ExemplarReplayPlugin

MASKED = pytest.approx(-27.63, abs=0.01)


# Q4: absent classes, odd labels


def odd_labels():
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset
    from torch.utils.data import TensorDataset

    sets, rng = [], torch.Generator().manual_seed(0)
    for labels in ([17, 3], [42, 8], [3, 5]):  # 3 comes again, as an old class
        y = torch.tensor(labels).repeat(12)
        data = TensorDataset(
            torch.randn(24, 1, 6, 6, generator=rng) + y[:, None, None, None] / 20, y
        )
        data.targets = y.tolist()
        sets.append(as_classification_dataset(data))
    return benchmark_from_datasets(train=sets).train_stream


@pytest.mark.parametrize("width", [None, 50])
def test_labels_need_not_be_numbered_from_zero(width):
    model = toy_model()
    if width:
        model = FeatureClassifier(model.feature_extractor, nn.Linear(8, width))
    plugin = BDRPlugin()
    watcher = Watcher(plugin)
    strategy = replaying(plugin, watcher, model=model)
    for experience in odd_labels():
        strategy.train(experience)
    pi = watcher.offsets[2][0]
    present = {3, 5, 8, 17, 42}
    assert {i for i, value in enumerate(pi.tolist()) if value > -20} == present
    if not width:
        assert plugin.classes.tolist() == [3, 17, 8, 42, 5]


@pytest.mark.parametrize(("absent", "offset"), [("mask", MASKED), ("ignore", 0)])
def test_classes_without_data_are_masked_or_ignored_with_one_warning(absent, offset):
    plugin = BDRPlugin(absent=absent)
    watcher = Watcher(plugin)
    strategy = naive_with(plugin, watcher)
    fate = "masked" if absent == "mask" else "not adjusted"
    with pytest.warns(UserWarning, match=rf"lack classes \[0, 1\].*{fate}") as record:
        strategy.train(toy_benchmark().train_stream)
    assert sum("lack classes" in str(w.message) for w in record) == 1
    assert watcher.offsets[1][0][0].item() == offset
    assert watcher.offsets[2][0][3].item() == offset
    assert all(np.isfinite(watcher.losses[2]))


def test_future_columns_of_a_fixed_classifier_cause_no_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the training data lack")
        run(lambda **o: replaying(BDRPlugin(), cosine=False, **o))


# Q5: no spread


def test_one_exemplar_a_class_is_neutral_or_refused():
    def make(**options):
        memory = ExemplarReplayPlugin(HerdingBuffer(per_class=1))
        return naive_with(memory, BDRPlugin(**options))

    strategy, _ = run(make)
    assert all(p.isfinite().all() for p in strategy.model.parameters())
    with pytest.raises(ValueError, match=r"classes \[0, 1\] have no spread"):
        run(lambda: make(zero_dispersion="raise"))


# Q6: where the statistics come from, and what the pass over the data leaves behind


def counts_of(plugin, *before, after=(), **options):
    strategy = naive_with(*before, plugin, *after, **options)
    torch.manual_seed(1)
    strategy.train(toy_benchmark().train_stream[:2])
    return plugin.adjustment


def test_counts_are_those_of_data_and_exemplars():
    memory = ExemplarReplayPlugin(HerdingBuffer(per_class=5))
    wanted = torch.tensor([5, 5, 24, 24], dtype=torch.double)
    for source in ("auto", "targets", "loader"):
        state = counts_of(BDRPlugin(psi_source=source), memory)
        assert torch.equal(state.prior, wanted / 58)
        memory = ExemplarReplayPlugin(HerdingBuffer(per_class=5))


@pytest.mark.parametrize("first", [True, False])
def test_avalanche_s_replay_is_counted_as_delivered_whatever_the_order(first):
    replay, plugin = ReplayPlugin(mem_size=10), BDRPlugin()
    before, after = ((replay,), ()) if first else ((), (replay,))
    state = counts_of(plugin, *before, after=after)
    # its loader draws the 10 exemplars again and again
    assert state.counts[:2].sum() > 20 and state.counts[2:].sum() == 48
    assert_close(state.prior, state.counts / state.counts.sum())
    with pytest.raises(ValueError, match=r"'targets', but classes \[0, 1\] come from"):
        counts_of(BDRPlugin(psi_source="targets"), ReplayPlugin(mem_size=10))


def test_dropped_last_batches_count_as_well():
    memory = ExemplarReplayPlugin(HerdingBuffer(per_class=5))
    plugin = BDRPlugin()
    strategy = naive_with(memory, plugin)
    strategy.train(toy_benchmark().train_stream[:2], drop_last=True)
    wanted = torch.tensor([5, 5, 24, 24], dtype=torch.double)
    assert torch.equal(plugin.adjustment.prior, wanted / 58)


def test_the_first_experience_is_not_passed_over():
    passes = []

    class Extractor(nn.Flatten):
        def forward(self, x):
            passes.append(self.training)
            return super().forward(x)

    model = FeatureClassifier(Extractor(), CosineClassifier(36))
    strategy = replaying(BDRPlugin(), model=model, train_epochs=1)
    strategy.plugins = [p for p in strategy.plugins if not hasattr(p, "buffer")]
    stream = toy_benchmark().train_stream
    strategy.train(stream[0])
    assert passes == [True] * 3
    passes.clear()
    with pytest.warns(UserWarning, match="lack classes"):
        strategy.train(stream[1])
    assert passes == [False] * 3 + [True] * 3


@pytest.mark.parametrize("own_generator", [True, False])
def test_the_pass_leaves_generators_modes_and_buffers_alone(own_generator):
    found = []

    class Probe(SupervisedPlugin):
        def __init__(self, where):
            super().__init__()
            self.where = where

        def before_training_epoch(self, strategy, **kwargs):
            norm = strategy.model.feature_extractor[2]
            found.append(
                {
                    "torch": torch.get_rng_state(),
                    "numpy": torch.tensor(np.random.get_state()[1].astype(np.int64)),
                    "python": random.getstate(),
                    "own": generator.get_state() if generator else None,
                    "mean": norm.running_mean.clone(),
                    "modes": [m.training for m in strategy.model.modules()],
                }
            )

    generator = torch.Generator().manual_seed(5) if own_generator else None
    memory = ExemplarReplayPlugin(HerdingBuffer(per_class=5), generator=generator)
    # with several task labels the plugin makes the loader, with the generator
    strategy = naive_with(
        memory, Probe("before"), BDRPlugin(), Probe("after"), train_epochs=1
    )
    strategy.model.feature_extractor[2].eval()  # one module is frozen by the user
    strategy.train(toy_benchmark("new_task_labels").train_stream)
    for before, after in zip(found[::2], found[1::2]):
        for key, value in before.items():
            same = (
                torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
            )
            assert same(after[key], value), key


def test_start_is_that_of_a_pass_in_evaluation_mode():
    plugin = BDRPlugin(momentum=1.0)
    starts = []

    class Grab(SupervisedPlugin):
        def before_training_epoch(self, strategy, **kwargs):
            if plugin.adjustment is None or strategy.clock.train_exp_epochs:
                return
            data = strategy.adapted_dataset
            x = torch.stack([data[i][0] for i in range(len(data))])
            y = torch.tensor(list(data.targets))
            strategy.model.eval()
            with torch.no_grad():
                strategy.model(x)
            strategy.model.train()
            wanted = class_statistics(strategy.model.features, y, len(plugin.classes))
            for ours, theirs in zip(plugin.adjustment, wanted):
                assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
            starts.append(plugin.adjustment.offsets)

    run(lambda **o: replaying(plugin, Grab(), **o), evaluations=0)
    assert len(starts) == 2
    # with momentum 1 the offsets never leave their start
    assert torch.equal(plugin.adjustment.offsets, starts[-1])


def test_a_loader_that_can_be_used_once_is_refused():
    class Once(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            if strategy.clock.train_exp_counter:
                strategy.dataloader = iter(strategy.dataloader)

    with pytest.raises(ValueError, match="would use up; wanted one that begins anew"):
        run(lambda **o: replaying(BDRPlugin(), Once(), **o))


def test_a_class_that_the_first_pass_misses_is_not_absent():
    class Sometimes(SupervisedPlugin):
        """Leaves class 0 out of the first pass."""

        def before_training_exp(self, strategy, **kwargs):
            data, passes = strategy.adapted_dataset, []

            class Loader:
                def __iter__(self):
                    passes.append(1)
                    first = len(passes) == 1
                    rows = [i for i, y in enumerate(data.targets) if y or not first]
                    yield from DataLoader(data.subset(rows), batch_size=16)

            if strategy.clock.train_exp_counter:
                strategy.dataloader = Loader()

    for source in ("auto", "loader", "targets"):
        plugin = BDRPlugin(psi_source=source)
        memory = ExemplarReplayPlugin(HerdingBuffer(per_class=5))
        strategy = naive_with(memory, Sometimes(), plugin)
        strategy.train(toy_benchmark().train_stream[:2])
        assert plugin.adjustment.offsets.min() > -10
