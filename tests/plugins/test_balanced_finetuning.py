"""Fine-tuning of the prototypes on the exemplars."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import naive_with, toy_benchmark

from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.metrics.memory import memory_bytes
from avalanche_ext.plugins import (
    BalancedFinetuningPlugin,
    ExemplarReplayPlugin,
    NearestExemplarMeanPlugin,
)


class Before(SupervisedPlugin):
    """The model's state as the fine-tuning finds it."""

    def after_training_exp(self, strategy, **kwargs):
        state = strategy.model.state_dict()
        self.state = {k: v.clone() for k, v in state.items()}


def tuned(n, *, also=(), **options):
    torch.manual_seed(0)
    buffer, before = HerdingBuffer(per_class=5), Before()
    tuning = BalancedFinetuningPlugin(buffer, **{"epochs": 3, "lr": 0.5, **options})
    strategy = naive_with(ExemplarReplayPlugin(buffer), *also, before, tuning)
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


def test_all_that_is_trainable_moves_if_asked_and_no_statistics():
    strategy, changed = tuned(2, tuned="all")
    assert changed == {name for name, _ in strategy.model.named_parameters()}
    assert "feature_extractor.2.running_mean" in strategy.model.state_dict()
    assert all(p.requires_grad for p in strategy.model.parameters())
    assert all(m.training for m in strategy.model.modules())


@pytest.mark.parametrize("what", ["prototypes", "all"])
def test_what_was_frozen_stays_frozen_but_for_prototypes(what):
    class Freeze(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            strategy.model.feature_extractor[1].requires_grad_(False)
            strategy.model.train_classifier.prototypes.requires_grad_(False)

    strategy, changed = tuned(2, tuned=what, also=[Freeze()])
    prototypes = {f"train_classifier.prototypes.{i}" for i in (0, 1)}
    free = {n for n, p in strategy.model.named_parameters() if p.requires_grad}
    assert not prototypes & free and "feature_extractor.1.weight" not in free
    assert changed == (prototypes if what == "prototypes" else prototypes | free)


@pytest.mark.parametrize("what", ["prototypes", "all"])
def test_flags_gradients_and_modes_come_back_after_a_failure(what):
    def penalty(model, x, y):
        assert not model.training
        raise KeyError("penalty")

    buffer = HerdingBuffer(per_class=5)
    tuning = BalancedFinetuningPlugin(buffer, epochs=1, tuned=what, penalty=penalty)
    strategy = naive_with(ExemplarReplayPlugin(buffer), tuning)
    stream = toy_benchmark().train_stream
    strategy.train(stream[0])
    with pytest.raises(KeyError, match="penalty"):
        strategy.train(stream[1])
    assert all(p.requires_grad for p in strategy.model.parameters())
    assert all(m.training for m in strategy.model.modules())
    assert all(p.grad is not None for p in strategy.model.parameters())


@pytest.mark.parametrize("what", ["prototypes", "all"])
def test_the_first_experience_is_not_tuned(what):
    assert tuned(1, tuned=what)[1] == set()


def test_what_is_tuned_is_a_choice_of_two():
    with pytest.raises(ValueError, match="tuned is 'head'; wanted one of 'prototypes'"):
        BalancedFinetuningPlugin(HerdingBuffer(), tuned="head")


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


def test_exemplars_count_once_as_those_of_the_plugin_that_fills_the_buffer():
    buffer = HerdingBuffer(per_class=5)
    replay = ExemplarReplayPlugin(buffer)
    sharing = [
        BalancedFinetuningPlugin(buffer, epochs=1),
        NearestExemplarMeanPlugin(buffer),
    ]
    strategy = naive_with(replay, *sharing)
    strategy.train(toy_benchmark().train_stream[0])
    assert memory_bytes(strategy) == replay.memory_bytes() == {"exemplars": 10 * 36 * 4}
