"""ReReLRP with other plugins beside its own."""

from __future__ import annotations

import pytest
import torch
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import (
    EarlyStoppingPlugin,
    EvaluationPlugin,
    EWCPlugin,
    LRSchedulerPlugin,
    ReplayPlugin,
)
from rerelrp_hosts import evaluator, mlp, rerelrp, sgd, shares, stream_of
from torch.optim.lr_scheduler import MultiStepLR

from avalanche_ext.metrics import TaskRecognitionAccuracy


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
