"""Synaptic Intelligence in training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import APIS, N_CLASSES, naive_with, toy_benchmark, toy_extractor
from contract import assert_equal, weights
from torch import nn
from torch.optim import SGD
from torch.testing import assert_close

from avalanche_ext.models import FeatureClassifier
from avalanche_ext.plugins import SynapticIntelligencePlugin

#: Outside of the norm layer and the head of `a_model`.
SHARED = [f"feature_extractor.{k}.{p}" for k in (1, 4) for p in ("weight", "bias")]


def a_model():
    return FeatureClassifier(toy_extractor(), nn.Linear(8, N_CLASSES))


def trained(*plugins, api="old", n=3, **options):
    torch.manual_seed(0)
    options.setdefault("model", a_model())
    strategy = naive_with(*plugins, **options)
    torch.manual_seed(1)
    for experience in toy_benchmark(api).train_stream[:n]:
        strategy.train(experience)
    return strategy


class Restated(SupervisedPlugin):
    """The method as loops over parameters; to be listed on both sides of the plugin."""

    def __init__(self, si, later=None):
        super().__init__()
        self.si, self.other = si, later
        self.sum, self.held, self.penalties, self.added = {}, {}, [], []

    def pair(self):
        return self, _Behind(self)

    def shared(self, strategy):
        return {n: p for n, p in strategy.model.named_parameters() if n in SHARED}

    def before_training_exp(self, strategy, **kwargs):
        named = self.shared(strategy)
        self.start = {n: p.detach().clone() for n, p in named.items()}
        self.path = {n: torch.zeros_like(p) for n, p in named.items()}

    def before_backward(self, strategy, **kwargs):
        self.loss = strategy.loss.item()

    def before_update(self, strategy, **kwargs):
        named = self.shared(strategy)
        self.old = {n: p.detach().clone() for n, p in named.items()}
        self.grad = {n: p.grad.clone() for n, p in named.items()}

    def after_update(self, strategy, **kwargs):
        for n, p in self.shared(strategy).items():
            step = p.detach() - self.old[n]
            update = self.si.trajectory == "update"
            self.path[n] += (-step if update else self.grad[n]) * step

    def after_training_exp(self, strategy, **kwargs):
        c = self.si.scale[0 if strategy.clock.train_exp_counter == 0 else 1]
        for n, p in self.shared(strategy).items():
            far = (p.detach() - self.start[n]) ** 2 + self.si.damping
            self.sum[n] = self.sum.get(n, 0) + c * self.path[n] / far
            self.held[n] = torch.minimum(
                (-self.sum[n]).clamp(min=0), torch.tensor(self.si.max_importance)
            )


class _Behind(SupervisedPlugin):
    def __init__(self, front):
        super().__init__()
        self.front = front

    def before_backward(self, strategy, **kwargs):
        front, energy = self.front, 0.0
        for n, p in front.shared(strategy).items():
            away = (p.detach() - front.start[n]) ** 2
            energy += float((front.held.get(n, 0) * away).sum())
        front.penalties.append(front.si.strength / 2 * energy)
        front.added.append(strategy.loss.item() - front.loss)


CONFIGURATIONS = [
    {},
    {"trajectory": "update", "max_importance": 0.5, "damping": 1e-3},
    {"scale": (0.5, 2.0), "max_importance": 10.0, "damping": 1e-2},
]


@pytest.mark.parametrize("options", CONFIGURATIONS)
@pytest.mark.parametrize("api", APIS)
def test_importance_and_penalty_agree_with_loops_over_parameters(options, api):
    si = SynapticIntelligencePlugin(5.0, **options)
    front, behind = Restated(si).pair()
    strategy = trained(front, si, behind, api=api)
    assert list(si.importance) == list(si.cumulative) == list(si.anchor) == SHARED
    for name, p in front.shared(strategy).items():
        assert_close(si.cumulative[name], front.sum[name], rtol=1e-4, atol=1e-6)
        assert_close(si.importance[name], front.held[name], rtol=1e-4, atol=1e-8)
        assert torch.equal(si.anchor[name], p) and si.anchor[name] is not p.data
    assert front.added == pytest.approx(front.penalties, rel=1e-2, abs=1e-6)
    assert front.added[:6] == [0.0] * 6
    # at the start of an experience there is none, and later there is
    assert front.added[6] == front.added[12] == 0.0
    assert min(front.penalties[7:12]) > 0 and max(front.penalties) > 1e-5


@pytest.mark.parametrize("options", CONFIGURATIONS)
def test_modulation_leaves_the_path_integral_that_of_the_loss(options):
    si = SynapticIntelligencePlugin(0.9, mode="learning_rate", **options)
    front, _ = Restated(si).pair()
    trained(front, si)
    for name in SHARED:
        assert_close(si.cumulative[name], front.sum[name], rtol=1e-4, atol=1e-6)
        assert (si.importance[name] >= 0).all() and si.importance[name].any()
        assert (si.importance[name] <= si.max_importance).all()


MODES = [("penalty", 5.0), ("learning_rate", 0.9)]


@pytest.mark.parametrize(("mode", "strength"), MODES)
def test_it_acts_on_the_cpu_from_the_second_experience_on(mode, strength):
    def run(n, *plugins):
        return weights(trained(*plugins, n=n))

    def plugin():
        return SynapticIntelligencePlugin(strength, mode=mode)

    assert_equal(run(1, plugin()), run(1))
    ours, naive = run(2, plugin()), run(2)
    assert all(not torch.equal(ours[n], naive[n]) for n in SHARED)


class Moved(SupervisedPlugin):
    """Notes how far weights went in the last experience."""

    def before_training_exp(self, strategy, **kwargs):
        named = strategy.model.named_parameters()
        self.start = {n: p.detach().clone() for n, p in named}

    def after_training_exp(self, strategy, **kwargs):
        named = strategy.model.named_parameters()
        self.far = {n: (p.detach() - self.start[n]).abs() for n, p in named}


@pytest.mark.parametrize("decays", [(0.01, 0.01), (0.0, 0.1)])
@pytest.mark.parametrize("nesterov", [False, True])
def test_weights_of_the_largest_importance_rest_under_modulation(decays, nesterov):
    model, moved = a_model(), Moved()
    rule = {"lr": 0.1, "momentum": 0.9, "nesterov": nesterov}
    groups = [
        {"params": list(m.parameters()), "weight_decay": d}
        for m, d in zip(model.children(), decays)
    ]
    si = SynapticIntelligencePlugin(
        1.0, mode="learning_rate", max_importance=0.3, damping=1e-3
    )
    strategy = naive_with(si, moved, model=model, optimizer=SGD(groups, **rule))
    first, second, *_ = toy_benchmark().train_stream
    strategy.train(first)
    held = {n: f.clone() for n, f in si.importance.items()}
    # or momentum of the first experience would go on
    strategy.train(second, reset_optimizer_state=True)
    for name, f in held.items():
        full = f == 0.3
        assert not moved.far[name][full].any()
        assert name == SHARED[1] or moved.far[name][~full].all()
    full = sum(int((f == 0.3).sum()) for f in held.values())
    assert 50 < full < sum(f.numel() for f in held.values()) - 50
    assert (moved.far["train_classifier.weight"][:4] > 0).all()


def test_the_stronger_the_penalty_the_less_important_weights_move():
    def energy(strength):
        moved, model = Moved(), a_model()
        si = SynapticIntelligencePlugin(strength, max_importance=10.0)
        still = SGD(model.parameters(), lr=0.02)
        strategy = trained(si, moved, n=1, model=model, optimizer=still)
        held = dict(si.importance)
        strategy.train(toy_benchmark().train_stream[1])
        return sum(float((held[n] * moved.far[n] ** 2).sum()) for n in SHARED)

    free, weak, strong = map(energy, (1e-9, 0.5, 5.0))
    assert strong < 0.5 * weak and weak < 0.95 * free


def test_without_a_lower_bound_importances_are_negative_too():
    si = SynapticIntelligencePlugin(1e-3, min_importance=None)
    trained(si)
    every = torch.cat([f.reshape(-1) for f in si.importance.values()])
    cum = torch.cat([f.reshape(-1) for f in si.cumulative.values()])
    assert (every < 0).any() and torch.equal(every, (-cum).clamp(max=1e-3))


@pytest.mark.golden("ar1star", "si_update*.npz")
def test_plugin_follows_the_authors(golden):
    """Weights and gradients of each step are imposed."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Module(), nn.Module()
            for part, key in ((self.a, "shape0"), (self.b, "shape1")):
                part.conv = nn.Module()
                part.conv.weight = nn.Parameter(torch.zeros(*golden[key].tolist()))
            self.norm, self.head = nn.BatchNorm2d(2), nn.Linear(2, 3)

    model, clock = Net(), SimpleNamespace(train_exp_counter=0)
    shared = [model.a.conv.weight, model.b.conv.weight]
    sizes = [p.numel() for p in shared]

    def impose(values):
        with torch.no_grad():
            for p, value in zip(shared, values.split(sizes)):
                p.copy_(value.view(p.shape))

    si = SynapticIntelligencePlugin(
        golden["lambd"],
        min_importance=None,
        max_importance=golden["clip_to"],
        scale=golden["c"],
        damping=golden["xi"],
    )
    strategy = SimpleNamespace(model=model, clock=clock, experience=None)
    for e in range(golden["n_exp"]):
        clock.train_exp_counter = e
        theta = golden[f"theta{e}"]
        impose(theta[0])
        si.before_training_exp(strategy)
        for t, g in enumerate(golden[f"grad{e}"]):
            for p, part in zip(shared, g.split(sizes)):
                p.grad = part.view(p.shape).clone()
            si.before_update(strategy)
            impose(theta[t + 1])
            si.after_update(strategy)
            if t == golden[f"penalty_mid_step{e}"]:
                strategy.loss = torch.zeros(1)
                si.before_backward(strategy)
                wanted = golden[f"penalty_mid{e}"]
                assert strategy.loss.item() == pytest.approx(wanted, rel=1e-5)
        si.after_training_exp(strategy)
        assert list(si.importance) == golden["names"].split(",")
        for ours, key in (
            (si.cumulative, "cum_trajectory"),
            (si.importance, "importance"),
            (si.anchor, "anchor"),
        ):
            joined = torch.cat([part.reshape(-1) for part in ours.values()])
            assert_close(joined, golden[f"{key}{e}"], rtol=1e-5, atol=1e-12)
