"""Switches for speed: the same training within the error of the arithmetic."""

from __future__ import annotations

from functools import partial
from typing import Any

import contract
import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import build, toy_benchmark
from subjects import SUBJECTS
from switch_subjects import STRATEGIES, small_strategy
from torch import nn
from torch.optim import SGD, Rprop
from torch.testing import assert_close

from avalanche_ext.models import (
    CosineClassifier,
    FeatureClassifier,
)
from avalanche_ext.strategies import (
    LUCIR,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:the accuracy on validation samples is"),
    # torch's compiler looks at the gradients of inputs that are no leaves
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
]
SWITCHES = {
    "bf16": ({"precision": "bf16"}, 0.02),
    "channels_last": ({"channels_last": True}, 1e-4),
    "compile": ({"compile": True}, 1e-4),
    "foreach": ({"optimizer_implementation": "foreach"}, 1e-4),
    "fused": ({"optimizer_implementation": "fused"}, 1e-4),
    "inference_mode": ({"inference_mode": True}, 0),
}


class Recorder(SupervisedPlugin):
    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def after_backward(self, strategy, **kwargs):
        self.losses.append(strategy.loss.item())


def losses(name: str, n_experiences: int, **options: Any) -> list[float]:
    recorder = Recorder()
    strategy = small_strategy(name, plugins=[recorder], **options)
    for group in strategy.optimizer.param_groups:
        # differences must not add up; AR1*'s head begins with zeros
        group["lr"] = 0.01 if name == "AR1Star" else 0.0
    torch.manual_seed(1)
    strategy.train(toy_benchmark().train_stream[:n_experiences])
    return recorder.losses


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("name", STRATEGIES)
def test_losses_agree_within_the_error_of_the_precision(name, switch, graphs):
    options, rtol = SWITCHES[switch]
    n = 1 if name == "ReReLRP" else 2  # what is pruned depends on rounding
    plain, fast = losses(name, n), losses(name, n, **options)
    assert_close(fast, plain, rtol=rtol, atol=0)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resumed_run_equals_one_that_never_stopped(name, tmp_path):
    # a switch that broke it alone would break it among the others
    options = {"precision": "bf16", "channels_last": True, "inference_mode": True}
    make = partial(small_strategy, name, optimizer_implementation="fused", **options)
    contract.assert_resume_equals_never_stopping(make, "old", tmp_path)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resumed_compiled_run_equals_one_that_never_stopped(name, tmp_path, graphs):
    make = partial(SUBJECTS[name], compile=True, optimizer_implementation="foreach")
    contract.assert_resume_equals_never_stopping(make, "old", tmp_path)
    assert graphs


@pytest.mark.parametrize("name", STRATEGIES)
def test_heads_that_grow_are_not_compiled_again(name, graphs):
    strategy = small_strategy(name, compile=True)
    benchmark, found = toy_benchmark(), []
    for experience in benchmark.train_stream:
        graphs.clear()
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)
        found.append(len(graphs))
    # with frozen copies there is more to compile in the second experience
    assert found[0] > 0 and found[2] == 0


def test_the_model_stays_plain_outside_of_compiled_passes(graphs):
    strategy = small_strategy("LUCIR", compile=True)
    seen = []

    class Look(SupervisedPlugin):
        def after_forward(self, strategy, **kwargs):
            modules = strategy.model.modules()
            seen.append(any(m._compiled_call_impl is not None for m in modules))

    strategy.plugins.append(Look())
    strategy.train(toy_benchmark().train_stream[0])
    assert graphs and not any(seen)


def test_optimizers_keep_the_implementation_when_heads_grow():
    strategy = small_strategy("LUCIR", optimizer_implementation="fused")
    for experience in toy_benchmark().train_stream:
        strategy.train(experience)
        groups = strategy.optimizer.param_groups
        assert all(g["fused"] and not g["foreach"] for g in groups)


def test_without_the_switch_an_optimizer_stays_as_made():
    strategy = small_strategy("LUCIR")
    strategy.train(toy_benchmark().train_stream[0])
    assert strategy.optimizer.param_groups[0]["fused"] is None


@pytest.mark.parametrize("subject", ["LUCIR", "ScoreDistillationPlugin"])
def test_frozen_copies_run_in_inference_mode(subject):
    seen = []
    strategy = SUBJECTS[subject]()
    strategy.inference_mode = True
    benchmark = toy_benchmark()
    strategy.train(benchmark.train_stream[0])

    class Look(SupervisedPlugin):
        def before_forward(self, strategy, **kwargs):
            (copies,) = [
                p.reference for p in strategy.plugins if getattr(p, "reference", None)
            ]
            copies.model.register_forward_pre_hook(
                lambda *_: seen.append(torch.is_inference_mode_enabled())
            )

    strategy.plugins.append(Look())
    strategy.train(benchmark.train_stream[1])
    assert seen and all(seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"precision": "float8"},
            "precision is 'float8'; wanted one of 'fp32', 'bf16'",
        ),
        ({"channels_last": 1}, "channels_last is 1; wanted one of True, False"),
        ({"compile": "max"}, "compile is 'max'; wanted one of True, False"),
        ({"inference_mode": None}, "inference_mode is None; wanted one of True, False"),
        (
            {"optimizer_implementation": "fast"},
            "optimizer_implementation is 'fast'; wanted one of None, 'foreach', 'fused'",
        ),
    ],
)
@pytest.mark.parametrize("name", STRATEGIES)
def test_unknown_switches_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        small_strategy(name, **options)


def test_an_optimizer_without_the_implementation_is_refused():
    model = FeatureClassifier(nn.Flatten(), CosineClassifier(36))
    rprop = Rprop(model.parameters())
    with pytest.raises(ValueError, match="'fused', which Rprop does not have"):
        build(LUCIR, model=model, optimizer=rprop, optimizer_implementation="fused")


def test_a_model_with_nothing_to_compile_is_refused():
    model = FeatureClassifier(nn.Flatten(), CosineClassifier(36))
    sgd = SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="compile is True, but .* no part to compile"):
        build(LUCIR, model=model, optimizer=sgd, compile=True)
