"""Mnemonics: its losses, its two classifiers, and the forms it runs in."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from cases import APIS, N_CLASSES, build, toy_benchmark
from contract import assert_equal, run, weights
from mnemonics_hosts import conv_model, mnemonics, trained
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.optim import SGD, Adam

from avalanche_ext.metrics import NearestExemplarMeanAccuracy
from avalanche_ext.models import (
    to_transfer_network,
)


def test_loss_of_icarl_is_cross_entropy_and_kl_at_temperature_two():
    class Loss(SupervisedPlugin):
        """Slowly anew, from the model the experience began with."""

        def __init__(self):
            super().__init__()
            self.seen = []

        def before_training_epoch(self, strategy, **kwargs):
            if strategy.clock.train_exp_epochs == 0:
                self.old = 2 * strategy.clock.train_exp_counter
                self.last = to_transfer_network(conv_model()).eval()
                self.last.load_state_dict(strategy.model.state_dict())

        @torch.no_grad()
        def before_backward(self, strategy, **kwargs):
            wanted = cross_entropy(strategy.mb_output, strategy.mb_y)
            if self.old:
                theirs, ours = (
                    logits[:, : self.old] / 2
                    for logits in (self.last(strategy.mb_x), strategy.mb_output)
                )
                wanted = wanted + kl_div(
                    log_softmax(ours, 1), theirs.softmax(1), reduction="batchmean"
                )
            self.seen.append((strategy.loss.item(), wanted.item()))

    loss = Loss()
    trained(mnemonics(distillation="icarl", plugins=[loss], finetuning_epochs=0))
    assert len(loss.seen) == 2 * (3 + 4 + 4)
    for ours, wanted in loss.seen:
        assert ours == pytest.approx(wanted, rel=1e-5)


def accuracies(evaluated):
    """Of the classifier and of the nearest mean, over the test stream."""
    names = ("Top1_Acc_Stream", "NearestMean_Acc_Stream")
    found = [[v for k, v in evaluated.items() if k.startswith(name)] for name in names]
    return [values[-1] if values else None for values in found]


def measured(predict):
    torch.manual_seed(0)
    evaluator = EvaluationPlugin(
        accuracy_metrics(stream=True), NearestExemplarMeanAccuracy(), loggers=[]
    )
    strategy = mnemonics(predict=predict, evaluator=evaluator)
    torch.manual_seed(1)
    benchmark, found = toy_benchmark(), []
    for i, experience in enumerate(benchmark.train_stream):
        strategy.train(experience)
        found.append(accuracies(strategy.eval(benchmark.test_stream[: i + 1])))
    return strategy, found


def test_one_run_gives_the_accuracies_of_both_classifiers():
    (linear, both), (nearest, swapped) = (
        measured(predict) for predict in ("linear", "nearest_mean")
    )
    assert_equal(weights(nearest), weights(linear))
    for (_, mean), (answered, same) in zip(both, swapped, strict=True):
        assert answered == same == mean
    assert any(accuracy != mean for accuracy, mean in both)
    assert all(value > 1 / N_CLASSES for pair in both for value in pair)


@pytest.mark.parametrize("api", APIS)
def test_mnemonics_beats_naive_on_the_toy_stream(api):
    def accuracy(make):
        _, metrics = run(partial(make, train_epochs=8), api)
        name = "Top1_Acc_Stream/eval_phase/test_stream"
        values = [v for k, v in metrics[-1].items() if k.startswith(name)]
        return sum(values) / len(values)

    ours = accuracy(partial(mnemonics, finetuning_lr=0.1))
    assert ours > accuracy(lambda **o: build(Naive, model=conv_model(), **o)) + 0.15


@pytest.mark.parametrize("api", ["old", "new"])
def test_task_labels_change_nothing(api):
    wanted, _ = run(mnemonics, api, evaluations=0)
    found, _ = run(mnemonics, f"{api}_task_labels", evaluations=0)
    assert_equal(weights(found), weights(wanted))


@pytest.mark.parametrize("make", [SGD, Adam])
@pytest.mark.parametrize("distillation", ["lucir", "icarl"])
def test_any_optimizer_trains_scales_and_new_prototypes(make, distillation):
    model = conv_model()
    strategy = mnemonics(
        model=model,
        optimizer=make(model.parameters(), lr=0.01),
        distillation=distillation,
    )
    trained(strategy)
    held = {p for group in strategy.optimizer.param_groups for p in group["params"]}
    assert held == set(model.parameters())
    assert not bool((model.feature_extractor[0].mtl_weight == 1).all())
