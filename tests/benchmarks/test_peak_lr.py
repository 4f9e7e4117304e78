"""The learning rate that rises to a peak and falls to zero."""

from __future__ import annotations

import contract
import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import naive_with, toy_benchmark
from torch.optim import SGD

from benchmarks.training.peak_lr import PeakLRPlugin, peak_share


class Rates(SupervisedPlugin):
    """Learning rate of each step, by experience."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def before_training_exp(self, strategy, **kwargs):
        self.seen.append([])

    def before_update(self, strategy, **kwargs):
        rates = [group["lr"] for group in strategy.optimizer.param_groups]
        self.seen[-1].append(rates)


class Longer(SupervisedPlugin):
    """Each experience has more steps than the one before, as with a memory."""

    def before_training_exp(self, strategy, **kwargs):
        n = 4 + strategy.clock.train_exp_counter
        strategy.dataloader = list(strategy.dataloader)[:1] * n


def test_peak_share_is_the_interpolation_of_three_points():
    for epoch in np.linspace(0, 16, 65):
        wanted = np.interp(epoch, [0, 2, 16], [1e-4, 1, 0])
        assert peak_share(epoch, 2, 16) == pytest.approx(wanted)


def test_each_experience_begins_anew_and_ends_near_zero():
    rates, epochs = Rates(), 5
    strategy = naive_with(Longer(), PeakLRPlugin(2), rates, train_epochs=epochs)
    others = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.5}
    strategy.optimizer.add_param_group(others)
    for experience in toy_benchmark().train_stream:
        strategy.train(experience)
        assert [g["lr"] for g in strategy.optimizer.param_groups] == [0.1, 0.5]
    for n, seen in zip((4, 5, 6), rates.seen, strict=True):
        steps = np.arange(n * epochs) / n
        shares = np.interp(steps, [0, 2, epochs], [1e-4, 1, 0])
        assert np.array(seen) == pytest.approx(np.outer(shares, [0.1, 0.5]))


def test_resume_equals_never_stopping(tmp_path):
    contract.assert_resume_equals_never_stopping(
        lambda **o: naive_with(PeakLRPlugin(1), **o), "old", tmp_path
    )


def test_it_changes_the_steps():
    runs = [
        contract.run(naive_with, train_epochs=2, plugins=plugins)[0]
        for plugins in ([], [PeakLRPlugin(1)])
    ]
    plain, peaked = map(contract.weights, runs)
    assert any(not torch.equal(plain[name], peaked[name]) for name in plain)


def test_the_schedule_leaves_nothing_in_the_optimizer():
    model = torch.nn.Linear(36, 6)
    optimizer = SGD(model.parameters(), lr=0.3)
    strategy = naive_with(
        PeakLRPlugin(1), model=torch.nn.Sequential(torch.nn.Flatten(), model)
    )
    strategy.optimizer = optimizer
    strategy.train(toy_benchmark().train_stream[0])
    assert "initial_lr" not in optimizer.param_groups[0]
