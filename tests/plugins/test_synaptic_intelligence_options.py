"""Synaptic Intelligence of other models, its state, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier
from cases import APIS, N_CLASSES, naive_with, task_model, toy_benchmark, toy_extractor
from contract import assert_equal
from torch import nn
from torch.optim import Adam, AdamW

from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint
from avalanche_ext.models import FeatureClassifier
from avalanche_ext.plugins import SynapticIntelligencePlugin

MODES = [("penalty", 5.0), ("learning_rate", 0.9)]

#: Outside of the norm layer and the head of `a_model`.
SHARED = [f"feature_extractor.{k}.{p}" for k in (1, 4) for p in ("weight", "bias")]


def a_model():
    return FeatureClassifier(toy_extractor(), nn.Linear(8, N_CLASSES))


def trained(*plugins, api="old", **options):
    torch.manual_seed(0)
    options.setdefault("model", a_model())
    strategy = naive_with(*plugins, **options)
    torch.manual_seed(1)
    strategy.train(toy_benchmark(api).train_stream)
    return strategy


def test_frozen_weights_are_left_alone():
    class Freeze(SupervisedPlugin):
        def __init__(self, prefix):
            super().__init__()
            self.prefix = prefix

        def before_training_exp(self, strategy, **kwargs):
            if strategy.clock.train_exp_counter:
                for name, p in strategy.model.named_parameters():
                    if name.startswith(self.prefix):
                        p.requires_grad_(False)
                        p.grad = None

    # seen when the experience starts, and only when there is no gradient
    for mode, strength in MODES:
        for order in (1, -1):
            bounds = {"max_importance": 2.0, "damping": 1e-3}
            si = SynapticIntelligencePlugin(strength, mode=mode, **bounds)
            kept = {}

            class Watch(SupervisedPlugin):
                def after_training_exp(self, strategy, si=si, kept=kept, **kwargs):
                    kept[strategy.clock.train_exp_counter] = dict(si.importance)

            plugins = [Freeze("feature_extractor.1"), si][::order]
            strategy = trained(*plugins, Watch())
            for name in SHARED[:2]:
                assert torch.equal(kept[0][name], kept[2][name])
                assert torch.equal(si.anchor[name], strategy.model.get_parameter(name))
            assert not torch.equal(kept[0][SHARED[2]], kept[2][SHARED[2]])
    everything, model = SynapticIntelligencePlugin(), a_model()
    model.feature_extractor.requires_grad_(False)
    trained(everything, model=model)
    assert everything.importance == {}


@pytest.mark.parametrize("api", ["old", "new"])
@pytest.mark.parametrize(("mode", "strength"), MODES)
def test_rows_of_a_head_that_grew_are_free(mode, strength, api):
    held, name = [], "train_classifier.classifier.weight"
    si = SynapticIntelligencePlugin(strength, mode=mode, exclude=[])

    class Watch(SupervisedPlugin):
        def before_update(self, strategy, **kwargs):
            if si._path.held is not None:
                held.append(si._path.weights.by_name(si._path.held)[name])

    model = FeatureClassifier(toy_extractor(), IncrementalClassifier(8, 2))
    trained(si, Watch(), model=model, api=api)
    assert si.importance[name].shape == si.cumulative[name].shape == (6, 8)
    for f, old in ((held[0], 2), (held[-1], 4)):
        assert f.shape == (old + 2, 8) and not f[old:].any() and f[:old].any()


@pytest.mark.parametrize("api", [APIS[1], APIS[3]])
def test_a_head_of_another_kind_is_excluded_by_name(api):
    si = SynapticIntelligencePlugin(exclude=["train_classifier"])
    trained(si, model=task_model(), api=api)
    assert list(si.importance) == SHARED
    with pytest.raises(ValueError, match="the last layer of TaskInc.* name it, if"):
        trained(SynapticIntelligencePlugin(), model=task_model(), api=api)


def test_state_is_resumed_exactly(tmp_path):
    def start():
        torch.manual_seed(0)
        si = SynapticIntelligencePlugin(10.0)
        return si, naive_with(si, model=a_model()), toy_benchmark()

    si, strategy, benchmark = start()
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience)
    save_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    again, strategy, benchmark = start()
    load_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    for state in ("importance", "anchor", "cumulative"):
        assert len(getattr(si, state)) == 4
        assert_equal(getattr(again, state), getattr(si, state))


class Spoil(SupervisedPlugin):
    """Makes weights or gradients infinite, in the second experience."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def before_training_iteration(self, strategy, **kwargs):
        if self.what == "weight" and strategy.clock.train_exp_counter:
            strategy.model.feature_extractor[4].weight.data[0, 0] = torch.inf

    def after_backward(self, strategy, **kwargs):
        clock = strategy.clock  # in its last step, or all gradients were
        last = clock.train_exp_counter == 1 and clock.train_exp_iterations == 5
        if self.what == "gradient" and last:
            strategy.model.feature_extractor[1].bias.grad[0] = torch.nan


def test_what_is_not_finite_is_reported_by_name():
    si = SynapticIntelligencePlugin(1.0, max_importance=1.0)
    with pytest.raises(ValueError, match="the penalty of Synaptic Intelligence is not"):
        trained(Spoil("weight"), si)
    si = SynapticIntelligencePlugin(1.0, mode="learning_rate")
    message = "the importance of feature_extractor.1.bias is not .* experience 1"
    with pytest.raises(ValueError, match=message):
        trained(Spoil("gradient"), si)


@pytest.mark.parametrize("optimizer", [Adam, AdamW])
def test_other_optimizers_have_the_penalty_only(optimizer):
    def rule(model):
        return {"model": model, "optimizer": optimizer(model.parameters(), lr=0.01)}

    si = SynapticIntelligencePlugin(10.0)
    trained(si, **rule(a_model()))
    assert all(f.any() for f in si.importance.values())
    si = SynapticIntelligencePlugin(1.0, mode="learning_rate")
    name = optimizer.__name__
    with pytest.raises(ValueError, match=f"the optimizer is {name}; wanted torch.opt"):
        trained(si, **rule(a_model()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": -1}, "strength is -1; wanted a number, at least 0"),
        ({"strength": float("nan")}, "strength is nan; wanted a number"),
        ({"mode": "both"}, "mode is 'both'; wanted one of 'penalty', 'learning_rate'"),
        ({"trajectory": "path"}, "trajectory is 'path'; wanted one of 'gradient', 'up"),
        ({"max_importance": 0}, "max_importance is 0; wanted a number above 0"),
        ({"damping": 0.0}, "damping is 0.0; wanted a number above 0"),
        ({"min_importance": -1}, "min_importance is -1; wanted a number, at least 0"),
        ({"min_importance": 1}, "min_importance is 1; wanted at most max_importance"),
        ({"scale": (1, 2, 3)}, r"scale is \(1, 2, 3\); wanted a number or a pair"),
        ({"scale": (1, -2)}, r"scale\[1\] is -2; wanted a number, at least 0"),
        ({"exclude": "fc"}, "exclude is 'fc'; wanted a list of names"),
        (
            {"mode": "learning_rate", "min_importance": None},
            "min_importance is None and strength 1.0; wanted a number, and at most 1",
        ),
        (
            {"mode": "learning_rate", "strength": 1.5},
            "min_importance is 0.0 and strength 1.5; wanted a number, and at most 1",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SynapticIntelligencePlugin(**arguments)
