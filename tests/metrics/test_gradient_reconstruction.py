"""How well a strategy's prior stands for the gradient of the past."""

from __future__ import annotations

import math

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin, LwFPlugin, ReplayPlugin
from avalanche.training.plugins import EWCPlugin as AvalanchesEWC
from avalanche.training.supervised import Naive
from cases import APIS, build, task_model, toy_benchmark, toy_model
from contract import assert_equal, weights
from prior_cases import flat
from prior_hosts import ours
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from avalanche_ext.buffers import MemorablePastBuffer
from avalanche_ext.metrics import GradientReconstructionError
from avalanche_ext.metrics.probe import epoch_gradient
from avalanche_ext.models.past_data import forward, parameters_by_name
from avalanche_ext.plugins import ExemplarReplayPlugin
from avalanche_ext.strategies import LUCIR

apis = pytest.mark.parametrize("api", APIS)
NAME = "Gradient_Reconstruction/train_phase/train_stream"
N = 48  # samples of each experience of the toy stream


def naive(*plugins, **options):
    options.setdefault("model", task_model())
    return build(Naive, plugins=list(plugins), **options)


def lwf(**options):
    return naive(LwFPlugin(), model=toy_model(False), **options)


HOSTS = {
    "Naive": naive,
    "EWC": lambda **o: naive(AvalanchesEWC(5.0), model=toy_model(False), **o),
    "LwF": lwf,
    "Replay": lambda **o: naive(ReplayPlugin(12), **o),
    "LUCIR": lambda **o: build(LUCIR, **{"exemplars_per_class": 5, **o}),
    "EWCFRReplay": ours,
    "EWCFRReplay-centred": lambda **o: ours(replay_correction="centred", **o),
}


def with_metrics(make, *metrics, **options):
    return make(evaluator=EvaluationPlugin(*metrics, loggers=[]), **options)


def train(make, *metrics, api="old", n=3, **options):
    """The toy stream; returns the strategy and its history of metrics."""
    torch.manual_seed(0)
    benchmark, strategy = toy_benchmark(api), with_metrics(make, *metrics, **options)
    torch.manual_seed(1)
    strategy.train(benchmark.train_stream[:n])
    return strategy, strategy.evaluator.get_all_metrics()


def of(history, part):
    return history[f"{NAME}/{part}"][1]


# Avalanche's LwF asks for fields its newer benchmarks lack
hosts_and_apis = pytest.mark.parametrize(
    ("host", "api"),
    [(h, a) for h in HOSTS for a in APIS if h != "LwF" or a.startswith("old")],
)


@hosts_and_apis
def test_measuring_changes_no_bit_of_training(host, api):
    metric = GradientReconstructionError(every=2, batch_size=20)
    found, history = train(HOSTS[host], metric, api=api)
    wanted, _ = train(HOSTS[host], api=api)
    assert_equal(weights(found), weights(wanted))
    assert len(of(history, "absolute")) > 6


class Watch(SupervisedPlugin):
    """Model, gradients, generators and plugins before and after a measurement."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def after_training_epoch(self, strategy, **kwargs):
        metric = strategy.evaluator.metrics[0]
        before, held = self.look(strategy), self.held(strategy)
        metric.after_training_epoch(strategy)
        assert_equal(self.look(strategy), before)
        assert all(a is b for a, b in zip(self.held(strategy), held))
        self.n += 1

    def look(self, strategy):
        state = {k: v.clone() for k, v in strategy.model.state_dict().items()}
        for n, p in strategy.model.named_parameters():
            state[f"grad.{n}"] = None if p.grad is None else p.grad.clone()
        modes = {f"mode.{n}": m.training for n, m in strategy.model.named_modules()}
        return {**state, **modes, "rng": torch.get_rng_state(), "loss": strategy.loss}

    def held(self, strategy):
        found = [strategy.mbatch, strategy.mb_output, strategy._criterion]
        for plugin in strategy.plugins:
            if not isinstance(plugin, EvaluationPlugin):
                found += vars(plugin).values()
        return [*found, strategy.dataloader, strategy.adapted_dataset]


@pytest.mark.parametrize("host", HOSTS)
def test_measuring_leaves_model_gradients_generators_and_plugins_as_found(host):
    watch = Watch()
    others = {"LUCIR", "EWCFRReplay", "EWCFRReplay-centred"}
    make = HOSTS[host]
    strategy = with_metrics(make, GradientReconstructionError())
    strategy.plugins.insert(1 if host in others else 0, watch)
    strategy.train(toy_benchmark().train_stream)
    assert watch.n == 6


@hosts_and_apis
def test_every_host_has_values_before_and_after_each_epoch(host, api):
    metric = GradientReconstructionError()
    _, history = train(HOSTS[host], metric, api=api)
    steps, values = history[f"{NAME}/absolute"]
    assert len(values) == 2 * (1 + 2) and steps == sorted(steps)
    assert all(math.isfinite(v) and v >= 0 for v in values)
    for absolute, past, relative in zip(
        values, of(history, "past"), of(history, "relative")
    ):
        assert relative == pytest.approx(absolute / past)
    assert metric.result()["absolute"] == values[-1]


def test_naive_reconstructs_nothing():
    _, history = train(naive, GradientReconstructionError())
    assert of(history, "relative") == [1.0] * 6 and of(history, "prior") == [0.0] * 6
    assert all(map(math.isnan, of(history, "cosine")))  # of rounding would mislead


@pytest.mark.parametrize("host", ["EWCFRReplay", "Replay"])
@pytest.mark.parametrize("api", ["old_task_labels", "new"])
def test_evaluation_of_classes_to_come_changes_nothing(host, api):
    def evaluated(when):
        torch.manual_seed(0)
        metric = GradientReconstructionError()
        benchmark, strategy = toy_benchmark(api), with_metrics(HOSTS[host], metric)
        torch.manual_seed(1)
        for experience in benchmark.train_stream:
            strategy.train(experience, eval_streams=[benchmark.test_stream])
            if when == "also after":
                strategy.eval(benchmark.test_stream)
            torch.manual_seed(3)
        return strategy, metric.result()

    (once, first), (again, second) = evaluated("within"), evaluated("also after")
    assert first == second and len(first) > 4
    assert_equal(weights(once), weights(again))


def everything(**options):
    """All samples of the past in every epoch."""
    buffer = MemorablePastBuffer(N)
    return naive(ExemplarReplayPlugin(buffer), **options)


@apis
@pytest.mark.parametrize(
    "make",
    [
        everything,
        lambda **o: ours(
            memory_size=N, replay_fraction=1, strength=0, tau=1.0, tau2=1.0, **o
        ),
    ],
)
def test_joint_training_has_no_error(make, api):
    _, history = train(make, GradientReconstructionError(every=1), api=api)
    # of the gradients' sizes: once the tasks are solved, the past's is all but rounding
    assert max(of(history, "absolute")) < 1e-6 * max(of(history, "past"))


def gradient(strategy, data, loss):
    """Of a sum over a data set at the strategy's weights, one example at a time."""
    named = parameters_by_name(strategy.model)
    total = {n: torch.zeros_like(p, dtype=torch.double) for n, p in named.items()}
    modes = {m: m.training for m in strategy.model.modules()}
    strategy.model.eval()
    for i, (x, y, *t) in enumerate(data):
        logits = forward(strategy.model, x[None], torch.tensor(t) if t else None)
        value = loss(logits, torch.tensor([y]), i)
        found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        for n, g in zip(named, found):
            total[n] += 0 if g is None else g
    for module, mode in modes.items():
        module.training = mode
    return flat(total)


class ByHand(SupervisedPlugin):
    """The vectors e, A and B of the definition, at the end of each epoch."""

    def __init__(self, decay=0.0):
        super().__init__()
        self.decay, self.found = decay, []

    def before_training_exp(self, strategy, **kwargs):
        self.start = flat(parameters_by_name(strategy.model)).detach().clone()

    def before_train_dataset_adaptation(self, strategy, **kwargs):
        past = toy_benchmark(self.api).train_stream[: strategy.clock.train_exp_counter]
        self.past = [e.dataset for e in past]
        strategy.model.eval()
        self.soft = []
        for data in self.past:
            items = [(x[None], torch.tensor(t) if t else None) for x, _, *t in data]
            with torch.no_grad():
                logits = [forward(strategy.model, x, t)[0] for x, t in items]
            self.soft.append(torch.stack(logits).softmax(1))
        strategy.model.train()

    def after_training_epoch(self, strategy, **kwargs):
        if not self.past:
            return
        w = flat(parameters_by_name(strategy.model)).detach()
        total = self.decay * w.double()
        b = self.decay * self.start.double()
        for k, data in enumerate(self.past):
            total = total + gradient(
                strategy, data, lambda f, y, i: cross_entropy(f, y)
            )
            rest = strategy.buffer.positions[k][strategy.buffer.roles[k] == 2].tolist()
            left = sorted(set(range(N)) - set(rest))

            def residual(f, y, i, k=k, left=left):
                h = self.soft[k][left[i]]
                return f[0, : len(h)] @ h - f[0, y.item()]

            b = b + gradient(strategy, data.subset(left), residual)
        terms = {}
        for plugin in strategy.plugins[1:3]:
            terms |= plugin.prior_gradients(strategy, "unit")
        e = total - sum(flat(term) for term in terms.values())
        self.found.append((e.norm().item(), (e - b).norm().item(), b.norm().item()))


@pytest.mark.parametrize("decay", [0.0, 0.7])
@pytest.mark.parametrize("api", ["old_task_labels", "new"])
def test_the_error_is_the_sum_of_its_two_parts_recomputed_by_hand(api, decay):
    hand = ByHand(decay)
    hand.api = api
    metric = GradientReconstructionError(scale="unit", weight_decay=decay)
    _, history = train(ours, metric, api=api, plugins=[hand])
    after_epochs = [i for i in range(6) if i % 3]
    for name, wanted in zip(("absolute", "curvature", "residual"), zip(*hand.found)):
        found = [of(history, name)[i] for i in after_epochs]
        assert found == pytest.approx(wanted, rel=1e-4)


def test_curvature_is_no_error_where_the_experience_starts():
    for fraction in (0.0, 0.5):
        metric = GradientReconstructionError(scale="unit")
        # with heads of their own, classes that come later change no output of before
        options = {"api": "old_task_labels", "replay_fraction": fraction}
        _, history = train(ours, metric, **options)
        starts = [of(history, "curvature")[i] for i in (0, 3)]
        later = [of(history, "curvature")[i] for i in (1, 2, 4, 5)]
        assert max(starts) < 1e-4 < min(later)


class Probe(SupervisedPlugin):
    """Compares the terms that plugins tell with the gradient of the whole epoch."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def after_training_epoch(self, strategy, **kwargs):
        if strategy.clock.train_exp_counter:
            data = strategy.experience.dataset.eval()
            wanted = gradient(strategy, data, lambda f, y, i: cross_entropy(f, y))
            for plugin in strategy.plugins[1:3]:
                terms = plugin.prior_gradients(strategy, "trained")
                wanted = wanted + sum(flat(term) for term in terms.values())
            found = flat(epoch_gradient(strategy).gradients)
            assert_close(found, wanted, rtol=1e-4, atol=1e-4)
            self.n += 1


@apis
@pytest.mark.parametrize("host", ["EWCFRReplay", "EWCFRReplay-centred"])
def test_the_terms_plugins_tell_are_what_they_do_in_an_epoch(host, api):
    probe = Probe()
    train(HOSTS[host], api=api, plugins=[probe], train_mb_size=7)
    assert probe.n == 4
