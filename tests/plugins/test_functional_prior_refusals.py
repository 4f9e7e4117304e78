"""What the functional prior refuses, and what it takes all the same."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import MTSimpleMLP, MultiHeadClassifier
from avalanche.training.losses import MaskedCrossEntropy
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.supervised import Naive
from cases import (
    SIDE,
    build,
    naive_with,
    task_model,
    toy_benchmark,
    toy_extractor,
    toy_model,
)
from prior_cases import stream_of
from torch import nn
from torch.nn.functional import cross_entropy

from avalanche_ext.buffers import MemorablePastBuffer
from avalanche_ext.models import TaskIncrementalClassifier
from avalanche_ext.plugins import FunctionalPriorPlugin


def prior_of(size=6, **options):
    return FunctionalPriorPlugin(MemorablePastBuffer(size), **options)


def assert_refused_before_any_work(strategy, message, api="old"):
    before = [p.clone() for p in strategy.model.parameters()]
    with pytest.raises(ValueError, match=message):
        strategy.train(toy_benchmark(api).train_stream)
    assert all(torch.equal(a, b) for a, b in zip(strategy.model.parameters(), before))


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (nn.CrossEntropyLoss(weight=torch.ones(6)), "weighs classes; wanted one that"),
        (nn.CrossEntropyLoss(label_smoothing=0.1), "label_smoothing=0.1; wanted 0 th"),
        (nn.CrossEntropyLoss(reduction="sum"), "with reduction='sum'"),
        (nn.BCEWithLogitsLoss(), "criterion is BCEWithLogitsLoss; wanted a torch.nn.C"),
        (nn.MSELoss(), "criterion is MSELoss"),
    ],
)
def test_a_criterion_that_is_no_plain_cross_entropy_is_refused(criterion, message):
    strategy = naive_with(prior_of(), model=toy_model(False), criterion=criterion)
    assert_refused_before_any_work(strategy, message)


@pytest.mark.parametrize("criterion", [cross_entropy, MaskedCrossEntropy()])
def test_other_forms_of_a_plain_cross_entropy_are_taken(criterion):
    strategy = naive_with(prior_of(), model=toy_model(False), criterion=criterion)
    strategy.train(toy_benchmark().train_stream)
    assert strategy._criterion is criterion


@pytest.mark.parametrize(
    "model",
    [
        lambda: MTSimpleMLP(SIDE**2),
        lambda: TaskIncrementalClassifier(toy_extractor(), MultiHeadClassifier(8)),
    ],
)
def test_several_heads_without_task_labels_are_refused(model):
    strategy = naive_with(prior_of(), model=model())
    message = "several heads, but the experience has no task_labels; wanted a benchmark"
    assert_refused_before_any_work(strategy, message, "new")


@pytest.mark.parametrize(
    "model",
    [
        lambda: MTSimpleMLP(SIDE**2),
        lambda: TaskIncrementalClassifier(toy_extractor(), MultiHeadClassifier(8)),
    ],
)
def test_avalanches_heads_are_taken_with_task_labels(model):
    prior = prior_of(label_smoothing=0.1)
    strategy = naive_with(prior, model=model())
    strategy.train(toy_benchmark("old_task_labels").train_stream)
    soft = prior.logits.softmax(1)
    assert prior.logits.shape[0] == 18 and soft.isfinite().all()
    assert strategy.loss.isfinite()


def test_a_memory_larger_than_an_experience_is_refused_before_it_is_trained():
    message = r"experience 0 has 48 samples; wanted at least 49, the size of the mem"
    assert_refused_before_any_work(
        naive_with(prior_of(49), model=toy_model(False)), message
    )


def test_clipped_memories_hold_everything_with_a_warning():
    buffer = MemorablePastBuffer(100, on_small="clip")
    strategy = naive_with(FunctionalPriorPlugin(buffer), model=toy_model(False))
    with pytest.warns(UserWarning, match="all of them are kept"):
        strategy.train(toy_benchmark().train_stream)
    assert len(buffer.buffer) == 3 * 48


def test_heads_of_different_width_are_mixed_in_one_batch(rng):
    task = torch.arange(60) % 3
    y = (torch.arange(60) // 3) % (task + 2)  # two, three and four classes
    stream = stream_of(torch.randn(60, 1, SIDE, SIDE, generator=rng), y, task)
    prior = prior_of(9, temperature=5.0, label_smoothing=0.1)
    strategy = naive_with(prior, model=task_model())
    strategy.train(stream)
    soft = (prior.logits / 5.0).softmax(1)
    widths = (prior.logits > -1000).sum(1).tolist()
    assert widths == [2] * 9 + [3] * 9 + [4] * 9
    assert (soft[:9, 2:] == 0).all() and strategy.loss.isfinite()


class Break(SupervisedPlugin):
    """Makes the weights infinite in the second experience."""

    def __init__(self, callback):
        super().__init__()
        setattr(self, callback, self.act)

    def act(self, strategy, **kwargs):
        if strategy.clock.train_exp_counter == 1:
            strategy.model.feature_extractor[1].weight.data.fill_(float("inf"))


def test_a_loss_that_is_not_finite_is_reported_and_the_criterion_put_back():
    strategy = naive_with(prior_of(), Break("before_forward"), model=toy_model(False))
    criterion, benchmark = strategy._criterion, toy_benchmark()
    with pytest.raises(ValueError, match="the loss of the mini-batch is not finite"):
        strategy.train(benchmark.train_stream)
    strategy.eval(benchmark.test_stream)
    assert strategy._criterion is criterion


def test_logits_that_are_not_finite_are_reported():
    prior = prior_of()
    breaking = Break("after_training_epoch")
    strategy = naive_with(prior, breaking, model=toy_model(False), train_epochs=1)
    with pytest.raises(ValueError, match="the logits of the memory are not finite"):
        strategy.train(toy_benchmark().train_stream)


def test_an_error_within_a_batch_leaves_the_criterion_as_found():
    class Stop(SupervisedPlugin):
        def before_backward(self, strategy, **kwargs):
            if strategy.clock.train_exp_counter == 1:
                raise KeyboardInterrupt

    strategy = naive_with(Stop(), prior_of(), model=toy_model(False))
    criterion, benchmark = strategy._criterion, toy_benchmark()
    with pytest.raises(KeyboardInterrupt):
        strategy.train(benchmark.train_stream)
    assert strategy._criterion is not criterion
    strategy.eval(benchmark.test_stream)
    assert strategy._criterion is criterion


def test_a_strategy_that_ignores_its_criterion_is_refused():
    class Own(Naive):
        def criterion(self):
            return cross_entropy(self.mb_output, self.mb_y)

    strategy = build(Own, plugins=[prior_of()], model=toy_model(False))
    with pytest.raises(ValueError, match="Own computed its loss without calling its c"):
        strategy.train(toy_benchmark().train_stream)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": -1}, "tau is -1; wanted a number, at least 0"),
        ({"tau": float("nan")}, "tau is nan"),
        ({"tau": float("inf")}, "tau is inf"),
        ({"tau2": -0.5}, "tau2 is -0.5"),
        ({"tau2": "1"}, "tau2 is '1'"),
        ({"scale_tau": 2}, "scale_tau is 2; wanted one of True, False"),
        ({"temperature": 0}, "temperature is 0; wanted a number above 0"),
        ({"temperature": -2.0}, "temperature is -2.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; wanted"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"label_smoothing": float("nan")}, "label_smoothing is nan"),
        ({"replay_correction": "half"}, "'half'; wanted one of 'plain', 'centred'"),
        ({"soft_target_transform": "both"}, "'both'; wanted one of 'eval', 'train'"),
    ],
)
def test_bad_arguments_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        prior_of(**options)


def test_what_is_no_memorable_past_is_refused():
    with pytest.raises(ValueError, match="buffer is 3; wanted a MemorablePastBuffer"):
        FunctionalPriorPlugin(3)


@pytest.mark.parametrize("other", [ReplayPlugin(6), prior_of()])
@pytest.mark.parametrize("first", [True, False])
def test_a_second_memory_in_the_batches_is_refused_before_any_work(other, first):
    plugins = [prior_of(), other] if first else [other, prior_of()]
    strategy = naive_with(*plugins, model=toy_model(False))
    assert_refused_before_any_work(strategy, f"plugins hold a {type(other).__name__}")


def test_batches_that_cannot_hold_a_sample_of_each_task_are_refused():
    strategy = naive_with(prior_of(), model=task_model(), train_mb_size=2)
    with pytest.raises(ValueError, match="train_mb_size is 2, but data and memory ha"):
        strategy.train(toy_benchmark("old_task_labels").train_stream)
