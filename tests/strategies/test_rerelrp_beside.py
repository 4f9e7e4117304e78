"""ReReLRP with other plugins beside its own."""

from __future__ import annotations

import pickle

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import (
    EarlyStoppingPlugin,
    EvaluationPlugin,
    EWCPlugin,
    LRSchedulerPlugin,
    ReplayPlugin,
)
from cases import naive_with
from rerelrp_hosts import (
    SHAPE,
    evaluator,
    mlp,
    rerelrp,
    sgd,
    shares,
    stream_of,
    trained,
)
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus

from avalanche_ext.buffers import ReferenceSamples
from avalanche_ext.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from avalanche_ext.metrics import TaskRecognitionAccuracy
from avalanche_ext.plugins import RelevanceFreezingPlugin


@pytest.mark.parametrize(
    "plugins",
    [
        lambda model: [ReplayPlugin(12)],
        lambda model: [EWCPlugin(1.0)],
        lambda model: [LRSchedulerPlugin(MultiStepLR(model, [3]))],
    ],
)
def test_other_plugins_work_beside_it(plugins):
    model, stream = mlp(), stream_of()
    optimizer = sgd(model)
    others = plugins(optimizer)
    strategy = rerelrp(
        model, optimizer=optimizer, plugins=others, evaluator=evaluator(), acc_drop=15
    )
    outputs = []
    for experience in stream.train_stream:
        strategy.train(experience)
        x = torch.stack([item[0] for item in stream.test_stream[0].dataset])
        outputs.append(strategy.submodel(0)(x))
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])
    assert shares(strategy.eval(stream.test_stream))["TaskAware_Acc"] > 0.8


@pytest.mark.filterwarnings("ignore:the accuracy on validation samples")
def test_early_stopping_puts_weights_back_and_moves_nothing_frozen():
    stream = stream_of()
    metrics = EvaluationPlugin(
        accuracy_metrics(stream=True), TaskRecognitionAccuracy(), loggers=[]
    )
    strategy = rerelrp(
        plugins=[EarlyStoppingPlugin(2, "test_stream")],
        acc_drop=15,
        evaluator=metrics,
        eval_every=1,
        train_epochs=12,
    )
    x = torch.stack([item[0] for item in stream.test_stream[0].dataset])
    outputs, epochs = [], []
    for train, test in zip(stream.train_stream, stream.test_stream):
        with pytest.warns(match="EarlyStopping plugin is not computed yet"):
            strategy.train(train, eval_streams=[[test]])
        epochs.append(strategy.clock.train_exp_epochs)
        outputs.append(strategy.submodel(0)(x))
    assert min(epochs) < 12
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


class Shrinking(SupervisedPlugin):
    """Changes weights where no optimizer does."""

    def after_training_epoch(self, strategy, **kwargs):
        for parameter in strategy.model.parameters():
            parameter.data.mul_(0.9)


def test_weights_that_a_plugin_changes_are_put_back_with_a_warning():
    stream = stream_of()
    strategy = rerelrp(plugins=[Shrinking()])
    strategy.train(stream.train_stream[0])
    x = torch.stack([item[0] for item in stream.test_stream[0].dataset])
    before = strategy.submodel(0)(x)
    with pytest.warns(UserWarning, match="has changed frozen weights"):
        strategy.train(stream.train_stream[1])
    assert torch.equal(strategy.submodel(0)(x), before)


class Counting(nn.Module):
    """Adds a running mean of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x):
        if self.training:
            self.mean += 0.1 * (x.detach().mean() - self.mean)
        return x + self.mean


def test_buffers_of_other_modules_rest_with_the_submodels():
    stream, model = stream_of(), mlp()
    model.feature_extractor.insert(3, Counting())
    strategy = rerelrp(model)
    strategy.train(stream.train_stream[0])
    x = torch.stack([item[0] for item in stream.test_stream[0].dataset])
    before = strategy.submodel(0)(x)
    assert model.feature_extractor[3].mean != 0
    strategy.train(stream.train_stream[1])
    assert torch.equal(strategy.submodel(0)(x), before)


def test_a_strategy_can_be_pickled_between_experiences():
    stream = stream_of()
    strategy = trained(rerelrp(evaluator=evaluator()), stream, 2)
    x = torch.stack([item[0] for item in stream.test_stream[0].dataset])
    again = pickle.loads(pickle.dumps(strategy))
    assert torch.equal(again.submodel(1)(x), strategy.submodel(1)(x))


def test_zennit_composites_and_canonizers_can_be_checkpointed(tmp_path):
    stream = stream_of()

    def make(**others):
        given = {"composite": EpsilonPlus(), "canonizers": [SequentialMergeBatchNorm()]}
        return rerelrp(**{**given, **others})

    strategy = trained(make(), stream, 1)
    save_checkpoint(tmp_path / "c.pt", strategy, stream.train_stream)
    load_checkpoint(tmp_path / "c.pt", make(), stream.train_stream)
    with pytest.raises(CheckpointError, match="canonizers"):
        load_checkpoint(tmp_path / "c.pt", make(canonizers=None), stream.train_stream)


def test_freezing_alone_reports_no_task_agnostic_accuracy():
    stream, model = stream_of(), mlp()
    plugin = RelevanceFreezingPlugin(
        model, input_shape=SHAPE, acc_drop=0, reference=ReferenceSamples(12)
    )
    strategy = naive_with(plugin, model=model, evaluator=evaluator(), train_epochs=6)
    strategy.train(stream.train_stream[0])
    assert list(shares(strategy.eval(stream.test_stream))) == ["TaskAware_Acc"]
