"""Fine-tuning of the prototypes on the exemplars."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import naive_with, toy_benchmark

from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.plugins import BalancedFinetuningPlugin, ExemplarReplayPlugin


class Before(SupervisedPlugin):
    """The model's state as the fine-tuning finds it."""

    def after_training_exp(self, strategy, **kwargs):
        state = strategy.model.state_dict()
        self.state = {k: v.clone() for k, v in state.items()}


def tuned(n, **options):
    torch.manual_seed(0)
    buffer, before = HerdingBuffer(per_class=5), Before()
    tuning = BalancedFinetuningPlugin(buffer, **{"epochs": 3, "lr": 0.5, **options})
    strategy = naive_with(ExemplarReplayPlugin(buffer), before, tuning)
    for experience in toy_benchmark().train_stream[:n]:
        strategy.train(experience)
    changed = {
        name
        for name, value in strategy.model.state_dict().items()
        if not torch.equal(value, before.state[name])
    }
    return strategy, changed


def test_only_the_prototypes_of_old_and_new_classes_move():
    strategy, changed = tuned(2)
    names = {f"train_classifier.prototypes.{i}" for i in (0, 1)}
    assert changed == names
    assert all(p.requires_grad for p in strategy.model.parameters())
    assert all(m.training for m in strategy.model.modules())


def test_the_first_experience_is_not_tuned():
    assert tuned(1)[1] == set()


def test_penalty_is_added_to_the_loss():
    seen = []

    def penalty(model, x, y):
        seen.append((len(x), int(y.max())))
        return model.features.sum() * 0

    tuned(2, penalty=penalty, batch_size=20, epochs=2)
    assert seen == [(20, 3)] * 2


def test_the_rate_falls_at_the_milestones():
    # with a rate of almost nothing after the first epoch, more epochs change nothing
    one, _ = tuned(2, epochs=1, milestones=[1], batch_size=20, momentum=0.0)
    many, _ = tuned(2, epochs=9, milestones=range(1, 9), batch_size=20, momentum=0.0)
    first, last = (s.model.train_classifier.prototypes[0] for s in (one, many))
    assert (first - last).abs().max() < 0.2 * first.abs().max()


@pytest.mark.parametrize("options", [{"epochs": 0}, {"lr": 0.0}, {"batch_size": 0}])
def test_sizes_and_rates_that_are_not_positive_are_refused(options):
    with pytest.raises(ValueError, match="wanted a (whole )?number"):
        BalancedFinetuningPlugin(HerdingBuffer(), **options)


def test_a_plugin_listed_before_the_one_that_fills_the_buffer_is_refused():
    buffer = HerdingBuffer(per_class=5)
    strategy = naive_with(
        BalancedFinetuningPlugin(buffer, epochs=1), ExemplarReplayPlugin(buffer)
    )
    stream = toy_benchmark().train_stream
    strategy.train(stream[0])
    with pytest.raises(ValueError, match=r"classes \[0, 1\].*listed behind"):
        strategy.train(stream[1])
