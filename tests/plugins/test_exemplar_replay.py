"""Replay by concatenation."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from cases import APIS, naive_with, toy_benchmark

from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.plugins import ExemplarReplayPlugin


class Watcher(SupervisedPlugin):
    """Notes the targets of every batch."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def before_forward(self, strategy, **kwargs):
        self.batches.append(strategy.mb_y.clone())


@pytest.mark.parametrize("api", APIS)
def test_new_data_and_exemplars_are_each_seen_once_an_epoch_and_mixed(api):
    watcher, replay = Watcher(), ExemplarReplayPlugin(HerdingBuffer(per_class=9))
    strategy = naive_with(replay, watcher, train_epochs=1, train_mb_size=11)
    stream = toy_benchmark(api).train_stream
    strategy.train(stream[0])
    watcher.batches.clear()
    strategy.train(stream[1])
    seen = torch.cat(watcher.batches)
    assert seen.bincount().tolist() == [9, 9, 24, 24]
    shares = [(batch < 2).float().mean().item() for batch in watcher.batches]
    assert 0 < max(shares) < 1 and len({len(b) for b in watcher.batches}) == 1
    # a loader that balances task labels would fill half of each batch
    assert sum(shares) / len(shares) == pytest.approx(18 / 66, abs=1e-6)


def test_arguments_of_train_that_no_loader_takes_are_left_out():
    watcher, replay = Watcher(), ExemplarReplayPlugin(HerdingBuffer(per_class=9))
    strategy = naive_with(replay, watcher, train_epochs=1, train_mb_size=11)
    stream = toy_benchmark("old").train_stream
    strategy.train(stream[0])
    watcher.batches.clear()
    strategy.train(stream[1], reset_optimizer_state=True, drop_last=True, num_workers=0)
    assert [len(batch) for batch in watcher.batches] == [11] * 6  # of 66


def test_the_experience_itself_is_not_modified():
    strategy = naive_with(ExemplarReplayPlugin(HerdingBuffer(per_class=5)))
    stream = toy_benchmark().train_stream
    for experience in stream:
        strategy.train(experience)
        assert len(experience.dataset) == 48


def test_what_is_no_buffer_is_refused():
    for wrong in (20, None, HerdingBuffer):
        with pytest.raises(ValueError, match="wanted a ExemplarsBuffer"):
            ExemplarReplayPlugin(wrong)


@pytest.mark.parametrize(
    "buffer", [HerdingBuffer(per_class=5), ReservoirSamplingBuffer(max_size=10)]
)
def test_bytes_are_those_of_the_buffer(buffer):
    replay = ExemplarReplayPlugin(buffer)
    assert replay.memory_bytes() == {"exemplars": 0}
    strategy = naive_with(replay)
    strategy.train(toy_benchmark().train_stream[0])
    assert replay.memory_bytes() == {"exemplars": 10 * 6 * 6 * 4}
