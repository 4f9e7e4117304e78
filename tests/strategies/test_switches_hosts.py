"""Switches for speed where models, optimizers and strategies are not the plain ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier, MultiHeadClassifier
from cases import build, toy_benchmark
from switch_subjects import STRATEGIES, small_strategy
from torch import nn
from torch.optim import SGD
from torch.testing import assert_close

from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint
from avalanche_ext.models import CifarResNet, CosineClassifier, FeatureClassifier
from avalanche_ext.strategies import LUCIR
from avalanche_ext.strategies._template import ResidentTemplate

pytestmark = [
    pytest.mark.filterwarnings("ignore:the accuracy on validation samples is"),
    # torch's compiler looks at the gradients of inputs that are no leaves
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
]


@pytest.mark.parametrize("name", ["AR1Star", "ReReLRP"])
def test_fused_steps_take_weights_that_join_late(name):
    """A layer that grows keeps its momentum in none of torch's kernels at first."""
    found = []
    for options in ({}, {"optimizer_implementation": "fused"}):
        kind, _, own = STRATEGIES[name]
        torch.manual_seed(0)
        extractor = CifarResNet(n_blocks=1, width=4, in_channels=1)
        model = FeatureClassifier(extractor, IncrementalClassifier(16, 2))
        strategy = build(kind, model=model, **{"train_epochs": 1, **own, **options})
        torch.manual_seed(1)
        strategy.train(toy_benchmark().train_stream[:2])
        found.append(list(model.parameters()))
    if name == "AR1Star":  # what the other prunes depends on rounding
        assert_close(found[1], found[0])


def test_fused_steps_are_those_of_torch(rng):
    weights = [torch.randn(3, generator=rng) for _ in range(2)]
    ends = []
    for implementation in (None, "fused"):
        late, early = (nn.Parameter(w.clone()) for w in weights)
        sgd = SGD([late, early], lr=0.1, momentum=0.9, nesterov=True)
        model = FeatureClassifier(nn.Sequential(nn.Linear(2, 2)), CosineClassifier(2))
        strategy = build(
            LUCIR,
            model=model,
            optimizer=sgd,
            optimizer_implementation=implementation,
        )
        for i in range(3):
            early.grad, late.grad = torch.ones(3), torch.ones(3) if i else None
            strategy.optimizer_step()
        ends.append((late, early))
    assert_close(ends[1], ends[0])


def test_a_copied_strategy_runs_its_own_weights(graphs):
    strategy = small_strategy("LUCIR", compile=True)
    benchmark = toy_benchmark()
    strategy.train(benchmark.train_stream[0])
    wanted = strategy.eval(benchmark.test_stream)
    twin = copy.deepcopy(strategy)
    with torch.no_grad():
        for parameter in strategy.model.parameters():
            parameter.mul_(-3)
    assert twin.eval(benchmark.test_stream) == wanted


def test_a_part_that_is_replaced_is_the_one_that_runs(graphs):
    strategy = small_strategy("LUCIR", compile=True)
    benchmark = toy_benchmark()
    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream)
    extractor = copy.deepcopy(strategy.model.feature_extractor)
    seen: list[int] = []
    extractor.register_forward_hook(lambda *_: seen.append(1))
    strategy.model.feature_extractor = extractor
    strategy.eval(benchmark.test_stream)
    assert seen


def test_outputs_that_are_no_tensors_are_handed_on():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(36, 6)

        def forward(self, x):
            return {"logits": self.layer(x.flatten(1))}

    def criterion(output, y):
        return nn.functional.cross_entropy(output["logits"], y)

    class Look(SupervisedPlugin):
        def after_forward(self, strategy, **kwargs):
            seen.append(strategy.mb_output)

    seen: list[Any] = []
    options = {"criterion": criterion, "evaluator": None, "plugins": [Look()]}
    strategy = build(ResidentTemplate, model=Twice(), **options)
    strategy.train(toy_benchmark().train_stream[0])
    assert seen and all(output.keys() == {"logits"} for output in seen)


def test_avalanches_heads_by_task_are_refused_in_half_precision():
    model = nn.Sequential(nn.Flatten(), MultiHeadClassifier(36))
    with pytest.raises(ValueError, match="MultiHeadClassifier fails; wanted a Task"):
        build(ResidentTemplate, model=model, precision="bf16")


def test_fused_steps_with_dampening_are_refused():
    model = FeatureClassifier(nn.Flatten(), CosineClassifier(36))
    sgd = SGD(model.parameters(), lr=0.1, momentum=0.9, dampening=0.1)
    with pytest.raises(ValueError, match="'fused' and dampening not 0; wanted 'for"):
        build(LUCIR, model=model, optimizer=sgd, optimizer_implementation="fused")


def test_a_resumed_run_may_be_compiled_otherwise(graphs, tmp_path):
    strategy, benchmark = small_strategy("LUCIR", compile=True), toy_benchmark()
    strategy.train(benchmark.train_stream[0])
    save_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    fresh = small_strategy("LUCIR")
    load_checkpoint(tmp_path / "c.pt", fresh, benchmark.train_stream)
    graphs.clear()
    fresh.train(benchmark.train_stream[1])
    assert not fresh.compile and not graphs
