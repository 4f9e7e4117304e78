"""Learning rates of AR1*, of its head apart."""

from __future__ import annotations

import pytest
import torch
from ar1_hosts import SHAPE, Notes, ar1, network, rates, sgd, train, trained
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import LRSchedulerPlugin
from torch.optim.lr_scheduler import MultiStepLR

from avalanche_ext.strategies import AR1Star


class StopOnce(SupervisedPlugin):
    """Interrupts the second experience, the first time."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def after_training_iteration(self, strategy, **kwargs):
        if strategy.clock.train_exp_counter == 1 and not self.n:
            self.n += 1
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "options, upper, head",
    [
        ({}, 5e-5, 5e-5),
        ({"later_lr": 0.02}, 0.02, 0.02),
        ({"later_lr": None}, 0.1, 0.1),
        ({"later_lr": 0.02, "head_lr_mult": 10.0}, 0.02, 0.2),
        ({"later_lr": None, "head_lr_mult": 0.5}, 0.1, 0.05),
    ],
)
def test_learning_rates_change_before_the_second_experience(options, upper, head):
    trained(plugins=[notes := Notes()], **options)
    assert set(notes.rates[0].values()) == {0.1}
    for found in notes.rates[1:]:
        for name, rate in found.items():
            wanted = head if name.startswith("head.") else upper
            assert rate == pytest.approx(wanted), name


def test_options_of_the_optimizer_are_kept_in_the_group_of_the_head():
    strategy = ar1(head_lr_mult=2.0)
    first, second = strategy.optimizer.param_groups
    names = {id(p): n for n, p in strategy.model.named_parameters()}
    assert [names[id(p)] for p in second["params"]] == ["head.weight", "head.bias"]
    assert {**first, "params": 0} == {**second, "params": 0}
    assert rates(strategy).keys() == set(names.values())


def test_group_that_a_user_gave_the_head_is_taken():
    model = network()
    groups = [
        {"params": list(model[:-1].parameters())},
        {"params": model.head.parameters()},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    train(strategy := ar1(model, optimizer=optimizer, head_lr_mult=4.0), visits=[0, 1])
    assert [g["lr"] for g in strategy.optimizer.param_groups] == [5e-5, 2e-4]


def test_the_heads_rate_follows_that_of_the_others_through_a_schedule():
    model = network()
    schedule = MultiStepLR(optimizer := sgd(model), milestones=[1], gamma=0.1)
    plugins = [LRSchedulerPlugin(schedule), notes := Notes()]
    options = {"optimizer": optimizer, "later_lr": None, "head_lr_mult": 10.0}
    train(ar1(model, plugins=plugins, **options))
    for found in notes.rates[1:]:
        body, head = found["c.conv.weight"], found["head.weight"]
        assert head == pytest.approx(10 * body) and body >= 0.0099


def test_an_experience_trained_again_after_an_error_has_the_same_rates_and_bias():
    strategy = ar1(later_lr=None, head_lr_mult=10.0, plugins=[once := StopOnce()])
    with pytest.raises(KeyboardInterrupt):
        train(strategy, visits=[0, 1])
    assert once.n and not strategy.model.head.bias.requires_grad
    train(strategy, visits=[1])
    rates_now = [g["lr"] for g in strategy.optimizer.param_groups]
    assert rates_now == pytest.approx([0.1, 1.0])
    assert strategy.model.head.bias.requires_grad


def test_defaults_are_the_papers():
    model = network()
    fixed = {"input_shape": SHAPE, "latent_layer": "b", "evaluator": None}
    strategy = AR1Star(model=model, optimizer=sgd(model), **fixed)
    assert (strategy.train_mb_size, strategy.train_epochs) == (128, 4)
    assert (strategy.eval_mb_size, strategy.later_lr) == (128, 5e-5)
