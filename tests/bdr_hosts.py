"""A host that replays, and what its loss should be."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import naive_with, toy_model
from torch.nn.functional import cross_entropy

from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.plugins import ExemplarReplayPlugin


class Watcher(SupervisedPlugin):
    """Notes, by experience, losses, offsets and what plugins see."""

    def __init__(self, plugin):
        super().__init__()
        self.plugin, self.losses, self.plain, self.offsets = plugin, {}, {}, {}

    def before_backward(self, strategy, **kwargs):
        i = strategy.clock.train_exp_counter
        logits, targets = strategy.mb_output, strategy.mb_y
        pi = self.plugin.offsets(logits)
        adjusted = cross_entropy(logits + pi, targets).item()
        assert strategy.loss.item() == pytest.approx(adjusted, rel=1e-6)
        assert strategy.loss.dtype == torch.float32
        self.losses.setdefault(i, []).append(adjusted)
        self.plain.setdefault(i, []).append(cross_entropy(logits, targets).item())
        self.offsets.setdefault(i, []).append(pi)


def replaying(plugin, *others, cosine=True, **options):
    memory = ExemplarReplayPlugin(HerdingBuffer(per_class=5))
    options.setdefault("model", toy_model(cosine))
    return naive_with(memory, plugin, *others, **options)
