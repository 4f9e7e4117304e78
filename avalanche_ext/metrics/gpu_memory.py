"""Peak of the GPU memory in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name

if TYPE_CHECKING:
    from avalanche.training.templates import SupervisedTemplate


class PeakGPUMemory(PluginMetric[int]):
    """Most bytes of GPU memory that tensors have taken at once in this process.

    Avalanche's ``gpu_usage_metrics`` measures how busy a GPU is, not its memory; this
    is PyTorch's own count for the strategy's device. Published as
    ``Peak_GPU_Bytes/train_phase/<stream>_stream``; on a CPU nothing is published.

    Callbacks: ``after_training_exp`` reads the peak and publishes it. The peak is never
    restarted, since others may be reading it; a resumed run counts anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0

    def reset(self) -> None:
        """Forget the last peak."""
        self.peak = 0

    def result(self) -> int:
        """Return the last peak, in bytes."""
        return self.peak

    def after_training_exp(
        self, strategy: SupervisedTemplate
    ) -> list[MetricValue] | None:
        """Read and publish the peak."""
        if torch.device(strategy.device).type != "cuda":
            return None
        self.peak = torch.cuda.max_memory_allocated(strategy.device)
        name = get_metric_name(self, strategy, add_experience=False, add_task=False)
        return [MetricValue(self, name, self.peak, strategy.clock.train_iterations)]

    def __str__(self) -> str:
        return "Peak_GPU_Bytes"
