"""Peak of the GPU memory in use."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from cases import toy_benchmark

from avalanche_ext.metrics.gpu_memory import PeakGPUMemory


def strategy_on(device):
    return SimpleNamespace(
        device=torch.device(device),
        experience=toy_benchmark().train_stream[0],
        is_eval=False,
        clock=SimpleNamespace(train_iterations=3),
    )


def test_nothing_is_published_on_a_cpu():
    assert PeakGPUMemory().after_training_exp(strategy_on("cpu")) is None


def test_the_peak_is_that_of_the_strategys_device(monkeypatch):
    def peak(device):
        assert device == torch.device("cuda:1")
        return 123

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peak)
    metric = PeakGPUMemory()
    [value] = metric.after_training_exp(strategy_on("cuda:1"))
    assert (value.name, value.value, value.x_plot, metric.result()) == (
        "Peak_GPU_Bytes/train_phase/train_stream",
        123,
        3,
        123,
    )
    metric.reset()
    assert metric.result() == 0
