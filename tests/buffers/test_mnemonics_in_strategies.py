"""Optimised exemplars in Avalanche's strategies and this package's."""

from __future__ import annotations

import pytest
import torch
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.storage_policy import (
    ClassBalancedBuffer,
    ReservoirSamplingBuffer,
)
from cases import N_CLASSES, SIDE, build, naive_with, toy_benchmark
from mnemonics_cases import TOY_PIXELS, counts
from mnemonics_subjects import toy_buffer
from torch import nn

from avalanche_ext.buffers import (
    HerdingBuffer,
    MnemonicsBuffer,
    MnemonicsOptimizer,
)
from avalanche_ext.plugins import ExemplarReplayPlugin
from avalanche_ext.strategies import BDR, LUCIR


def trained(strategy, api="old", n=3):
    for exp in toy_benchmark(api).train_stream[:n]:
        strategy.train(exp)
    return strategy


class Recorder(BaseLogger):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def log_single_metric(self, name, value, x_plot):
        self.seen.append((name, value, x_plot))


@pytest.mark.parametrize("api", ["old", "new"])
def test_avalanches_replay_takes_it_and_augments(api):
    calls = []

    def noted(image):
        calls.append(1)
        return image

    buffer = toy_buffer(max_size=12, buffer_transform=noted)
    strategy = naive_with(ReplayPlugin(12, storage_policy=buffer))
    trained(strategy, api, n=1)
    calls.clear()
    trained(strategy, api)
    assert len(buffer.buffer) == 12
    assert len(calls) > 12  # in the mini-batches, not only when tried out


@pytest.mark.parametrize(
    "selection",
    [
        lambda: HerdingBuffer(max_size=12),
        lambda: HerdingBuffer(per_class=2),
        lambda: ReservoirSamplingBuffer(36),
        lambda: ClassBalancedBuffer(12),
    ],
)
def test_other_buffers_may_select(selection):
    buffer = toy_buffer(selection())
    trained(naive_with(ExemplarReplayPlugin(buffer)))
    kept = counts(buffer)
    assert sorted(kept) == list(range(6))
    assert set(kept.values()) == {2} or sum(kept.values()) <= buffer.max_size


@pytest.mark.parametrize("host", [LUCIR, BDR])
def test_lucir_and_bdr_take_it_in_place_of_their_own(host):
    buffer = toy_buffer(per_class=3)
    strategy = trained(build(host, buffer=buffer))
    assert strategy.buffer is buffer
    assert counts(buffer) == dict.fromkeys(range(6), 3)
    with pytest.raises(ValueError, match="given with a buffer"):
        build(host, buffer=buffer, exemplars_per_class=3)


def test_any_model_with_logits_will_do():
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, N_CLASSES))
    buffer = toy_buffer(per_class=3)
    trained(naive_with(ExemplarReplayPlugin(buffer), model=model))
    for label, images in buffer.initial(2).items():
        assert not torch.equal(images, buffer.images()[label])


@pytest.mark.parametrize("progress", [False, True])
def test_losses_reach_the_loggers_by_step(progress, capfd):
    recorder = Recorder()
    evaluator = EvaluationPlugin(accuracy_metrics(epoch=True), loggers=[recorder])
    buffer = toy_buffer(per_class=3, progress=progress)
    strategy = naive_with(ExemplarReplayPlugin(buffer), evaluator=evaluator)
    trained(strategy, n=2)
    found = [seen for seen in recorder.seen if seen[0].startswith("Exemplars_")]
    names = ["new/Exp000", "new/Exp001", "old_a/Exp001", "old_b/Exp001"]
    for entry, name in zip(buffer.history.entries, names, strict=True):
        for kind, curve in (
            ("Outer", entry["outer_losses"]),
            ("Inner", entry["inner_losses"][:, 1]),
        ):
            full = f"Exemplars_{kind}_Loss/{name}"
            told = [(value, x) for seen, value, x in found if seen == full]
            assert told == [(v, step) for step, v in enumerate(curve.tolist())]
            assert len(told) == 2
    assert len(found) == 2 * 2 * len(names)
    assert ("exemplars of experience" in capfd.readouterr().err) == progress


@pytest.mark.parametrize("preset", ["fast", "paper", "released"])
def test_settings_have_names(preset):
    buffer = MnemonicsBuffer(optimizer=preset, **TOY_PIXELS)
    assert buffer.optimizer == getattr(MnemonicsOptimizer, preset)()


def test_the_released_setting_hardly_moves_pixels():
    optimizer = MnemonicsOptimizer.released(batch_size=4)
    buffer = MnemonicsBuffer("herding", per_class=4, optimizer=optimizer, **TOY_PIXELS)
    trained(naive_with(ExemplarReplayPlugin(buffer)), n=1)
    [entry] = buffer.history.entries
    assert len(entry["outer_losses"]) == 12
    for label, before in buffer.initial(0).items():
        grey_levels = 255 * (buffer.images()[label] - before).abs().max()
        assert 0 < grey_levels < 0.01
