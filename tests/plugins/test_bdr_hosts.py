"""Strategies, losses and models that BDR takes or refuses."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.losses import ICaRLLossPlugin, MaskedCrossEntropy
from avalanche.training.supervised import Naive
from bdr_hosts import Watcher, replaying
from cases import build, naive_with, toy_benchmark
from contract import assert_equal, run, weights
from torch import nn
from torch.nn.functional import cross_entropy

from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.plugins import BDRPlugin, ExemplarReplayPlugin, LUCIRPlugin

# hosts


@pytest.mark.parametrize(
    ("criterion", "seen"),
    [
        (nn.BCEWithLogitsLoss(), "BCEWithLogitsLoss"),
        (ICaRLLossPlugin(), "ICaRLLossPlugin"),
        (nn.MultiMarginLoss(), "MultiMarginLoss"),
        (nn.CrossEntropyLoss(reduction="sum"), "reduction='sum'"),
        (lambda logits, targets: logits.sum(), "<lambda>"),
    ],
)
def test_other_losses_are_refused_with_the_reason(criterion, seen):
    strategy = replaying(BDRPlugin(), criterion=criterion)
    before = weights(strategy)
    with pytest.raises(ValueError, match=f"criterion is .*{seen}.*sigmoid"):
        strategy.train(toy_benchmark().train_stream)
    assert_equal(weights(strategy), before)


@pytest.mark.parametrize(
    "criterion",
    [
        cross_entropy,
        nn.CrossEntropyLoss(weight=torch.arange(6.0) + 1),
        MaskedCrossEntropy(mask="all"),
    ],
)
def test_forms_of_softmax_cross_entropy_are_taken(criterion):
    strategy = replaying(BDRPlugin(), cosine=False, criterion=criterion)
    strategy.train(toy_benchmark().train_stream)
    assert strategy._criterion is criterion


def test_label_smoothing_is_refused_where_classes_are_masked():
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1)
    with pytest.raises(ValueError, match="label_smoothing=0.1.*wanted 0, or absent="):
        run(lambda **o: replaying(BDRPlugin(), criterion=smooth, **o))
    run(lambda **o: replaying(BDRPlugin(absent="ignore"), criterion=smooth, **o))


def test_two_of_them_are_refused():
    with pytest.raises(ValueError, match="more than one BDRPlugin"):
        run(lambda **o: replaying(BDRPlugin(), BDRPlugin(), **o))


def test_a_strategy_that_never_calls_its_criterion_is_refused_at_once():
    class Own(Naive):
        def criterion(self):
            return cross_entropy(self.mb_output, self.mb_y)

    strategy = build(Own, plugins=[BDRPlugin()])
    with pytest.raises(ValueError, match="Own computed its loss without calling"):
        strategy.train(toy_benchmark().train_stream[0])
    assert isinstance(strategy._criterion, nn.CrossEntropyLoss)


def test_a_loop_without_the_callbacks_is_refused():
    class Own(Naive):
        def training_epoch(self, **kwargs):
            for batch in self.dataloader:
                self.mbatch = batch
                self._unpack_minibatch()
                self.mb_output = self.forward()

    strategy = build(Own, plugins=[BDRPlugin()])
    with pytest.raises(ValueError, match="Own computed its loss without calling"):
        strategy.train(toy_benchmark().train_stream[0])


def test_every_call_of_the_criterion_within_a_batch_is_adjusted():
    class Halves(Naive):
        def criterion(self):
            half = len(self.mb_y) // 2
            parts = (slice(half), slice(half, None))
            losses = [self._criterion(self.mb_output[p], self.mb_y[p]) for p in parts]
            return sum(losses) / 2

    class Peek(SupervisedPlugin):
        def after_forward(self, strategy, **kwargs):
            assert strategy._criterion.reduction == "mean"
            strategy._criterion(input=strategy.mb_output, target=strategy.mb_y)

    plugin, memory = BDRPlugin(), ExemplarReplayPlugin(HerdingBuffer(per_class=4))
    plugins = [memory, plugin, Peek(), Watcher(plugin)]
    strategy = build(Halves, plugins=plugins)
    strategy.train(toy_benchmark().train_stream)  # Watcher compares


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("where", ["after_forward", "criterion"])
def test_after_an_interrupt_everything_goes_on(where, error):
    struck = []

    class Interrupt(SupervisedPlugin):
        def after_forward(self, strategy, **kwargs):
            if where == "after_forward" and not struck:
                struck.append(1)
                raise error

    class Criterion(nn.CrossEntropyLoss):
        def forward(self, logits, targets):
            if where == "criterion" and not struck:
                struck.append(1)
                raise error
            return super().forward(logits, targets)

    criterion, stream = Criterion(), toy_benchmark().train_stream
    strategy = replaying(BDRPlugin(), Interrupt(), criterion=criterion)
    with pytest.raises(error):
        strategy.train(stream[0])
    strategy.eval(stream[:1])
    assert strategy._criterion is criterion
    struck.clear()
    with pytest.raises(error):
        strategy.train(stream[0])
    strategy.train(stream[1])
    assert strategy._criterion is criterion


def test_a_model_without_features_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 6))
    with pytest.raises(ValueError, match="does not expose its features"):
        run(lambda **o: naive_with(BDRPlugin(), model=model, **o))


def test_bdr_and_lucir_plugins_compose_in_a_strategy_of_one_s_own():
    strategy, metrics = run(lambda **o: replaying(BDRPlugin(), LUCIRPlugin(), **o))
    assert all(p.isfinite().all() for p in strategy.model.parameters())
    assert metrics[-1]
