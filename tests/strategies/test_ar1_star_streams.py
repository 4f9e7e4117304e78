"""AR1* on streams and models of every kind."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest
import torch
from ar1_hosts import SHAPE, ar1, block, network, sgd, the, train, trained
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier
from cases import APIS, N_CLASSES, toy_benchmark, toy_extractor, toy_model, warm_model
from torch import nn

from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint
from avalanche_ext.models import FeatureClassifier, batch_renorms_of
from avalanche_ext.plugins import CWRStarPlugin, LatentReplayPlugin

apis = pytest.mark.parametrize("api", APIS)


def below(strategy):
    cut = the(LatentReplayPlugin, strategy).cut
    buffers = [b for m in cut.modules_below for b in m.buffers(recurse=False)]
    return [t.detach().clone() for t in (*cut.parameters_below.values(), *buffers)]


def accuracy(strategy, api):
    results = strategy.eval(toy_benchmark(api).test_stream)
    found = [v for k, v in results.items() if k.startswith("Top1_Acc_Exp")]
    return sum(found) / len(found)


class Sizes(SupervisedPlugin):
    """Notes outputs and targets of every batch."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def after_update(self, strategy, **kwargs):
        self.batches.append((len(strategy.mb_output), len(strategy.mb_y)))

    after_eval_iteration = after_update


@apis
def test_replay_keeps_old_classes(api):
    def run(memory_size):
        torch.manual_seed(1)
        options = {"train_epochs": 4, "growth": 0.005, "later_lr": 0.02}
        options |= {"latent_layer": "feature_extractor.3", "memory_size": memory_size}
        return accuracy(train(ar1(warm_model(), **options), api), api)

    assert run(60) > run(0) + 0.15


@apis
def test_what_is_below_rests_and_metrics_get_whole_batches(api):
    torch.manual_seed(0)
    strategy = ar1(plugins=[sizes := Sizes()], eval_every=1)
    before, benchmark = below(strategy), toy_benchmark(api)
    for experience in benchmark.train_stream:
        strategy.train(experience, [benchmark.test_stream])
    assert all(map(torch.equal, below(strategy), before))
    assert all(a == b for a, b in sizes.batches) and len(sizes.batches) > 20
    assert len(strategy.buffer) == 24


@apis
def test_classes_may_come_back(api):
    visits = [0, 1, 0, 2, 1]
    torch.manual_seed(0)
    strategy, wanted = ar1(memory_size=60), torch.zeros(N_CLASSES, dtype=torch.long)
    cwr, stream = the(CWRStarPlugin, strategy), toy_benchmark(api).train_stream
    for visit in visits:
        wanted[2 * visit : 2 * visit + 2] += 24
        wanted += strategy.buffer.labels.bincount(minlength=N_CLASSES)
        strategy.train(stream[visit])
        assert torch.equal(cwr.past, wanted)
        assert torch.equal(
            strategy.model.head.weight[wanted > 0], cwr.saved[wanted > 0]
        )
    assert set(strategy.buffer.experiences.tolist()) == set(range(5))
    owners = torch.tensor(visits)[strategy.buffer.experiences]
    assert torch.equal(strategy.buffer.labels // 2, owners)


@apis
def test_rows_without_current_or_replayed_samples_rest(api):
    strategy = train(ar1(memory_size=0), api, visits=[0])
    saved = strategy.model.head.weight[:2].detach().clone()
    train(strategy, api, visits=[1, 2])
    assert torch.equal(strategy.model.head.weight[:2], saved)


@pytest.mark.parametrize("api", ["old", "old_task_labels", "new"])
@pytest.mark.parametrize("options", [{}, {"head_lr_mult": 10.0, "si": "penalty"}])
def test_head_may_grow(api, options):
    model = FeatureClassifier(toy_extractor(), IncrementalClassifier(8))
    model(torch.randn(32, *SHAPE))
    strategy = ar1(model, latent_layer="feature_extractor.3", **options)
    head = model.train_classifier
    for n, experience in enumerate(toy_benchmark(api).train_stream):
        strategy.train(experience)
        assert len(head.classifier.weight) == 2 * n + 2
    assert the(CWRStarPlugin, strategy).past.gt(0).all()
    groups = strategy.optimizer.param_groups
    known = {id(p) for group in groups for p in group["params"]}
    assert {id(p) for p in model.parameters()} <= known
    if options:
        own = {id(p): g["lr"] for g in groups for p in g["params"]}
        assert own[id(head.classifier.weight)] == pytest.approx(5e-4)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("freeze_first", [True, False])
def test_published_networks_are_trained(name, freeze_first):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(weights=None, num_classes=N_CLASSES)
    model = nn.Sequential(nn.Upsample(32), nn.Conv2d(1, 3, 1), net)
    model(torch.randn(8, *SHAPE))
    n_norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    layer = {"resnet18": "2.layer3", "mobilenet_v2": "2.features.10"}[name]
    strategy = ar1(
        model,
        optimizer=sgd(model, lr=0.01),
        latent_layer=layer,
        freeze_first=freeze_first,
        latent_dtype="uint8",
        train_epochs=1,
    )
    assert len(list(batch_renorms_of(model))) == n_norms
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    states = [below(strategy)]
    for experience in toy_benchmark().train_stream[:2]:
        strategy.train(experience)
        states.append(below(strategy))
    same = [all(map(torch.equal, *pair)) for pair in pairwise(states)]
    assert same == [freeze_first, True]
    assert set(strategy.buffer.experiences.tolist()) == {0, 1}
    assert all(v.isfinite().all() for v in model.state_dict().values())


def without_batch_norm():
    norm = nn.GroupNorm(2, 8)
    layers = nn.Conv2d(1, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(32, N_CLASSES))


def test_model_without_batch_normalisation_is_trained_and_said_once(caplog):
    model = without_batch_norm()
    with caplog.at_level(logging.INFO, logger="avalanche_ext"):
        strategy = train(ar1(model, latent_layer="2"))
    said = [r for r in caplog.records if "no batch normalisation" in r.message]
    assert len(said) == 1 and type(model[1]) is nn.GroupNorm
    assert len(strategy.buffer) == 24


def test_without_memory_the_rest_is_trained():
    strategy = trained(memory_size=0)
    assert len(strategy.buffer) == 0
    assert the(CWRStarPlugin, strategy).past.tolist() == [24] * 6


@pytest.mark.parametrize("si", ["none", "learning_rate"])
@pytest.mark.parametrize("size, memory", [(1, 24), (1, 0), (3, 500), (5, 4)])
def test_tiny_experiences_are_trained(size, memory, si):
    stream = toy_benchmark("new").train_stream
    few = [e.dataset.subset(list(range(size))) for e in stream]
    strategy = ar1(memory_size=memory, si=si)
    for experience in benchmark_from_datasets(train=few).train_stream:
        strategy.train(experience)
    assert len(strategy.buffer) == min(memory, 3 * size)
    assert all(v.isfinite().all() for v in strategy.model.state_dict().values())


def test_batches_of_one_pixel_are_trained():
    """N + M < the batch, and one value a channel above the cut."""
    model = nn.Sequential(block(1, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.extend([nn.BatchNorm1d(4), nn.Linear(4, N_CLASSES)])
    model(torch.randn(16, *SHAPE))
    strategy = ar1(model, latent_layer="2")
    one = [e.dataset.subset([0]) for e in toy_benchmark("new").train_stream]
    for experience in benchmark_from_datasets(train=one).train_stream:
        strategy.train(experience)
    assert all(v.isfinite().all() for v in model.state_dict().values())


@apis
def test_evaluation_before_training_is_allowed(api):
    strategy = ar1()
    strategy.eval(toy_benchmark(api).test_stream)
    train(strategy, api, visits=[0])


def test_resumed_limits_and_rates_are_those_that_were_saved(tmp_path):
    options = {"growth": 0.001, "later_lr": None, "head_lr_mult": 3.0}
    for stop in (1, 2):
        stream = toy_benchmark().train_stream
        strategy = train(ar1(**options), visits=range(stop))
        save_checkpoint(tmp_path / "c.pt", strategy, stream)
        fresh = ar1(network(warm=False), **options)
        load_checkpoint(tmp_path / "c.pt", fresh, stream)
        saved, ours = (list(batch_renorms_of(s.model)) for s in (strategy, fresh))
        for a, b in zip(saved, ours):
            assert all(map(torch.equal, a.buffers(), b.buffers()))
        assert float(ours[-1].r_max) == pytest.approx(1.096 if stop == 1 else 1.25)
        # what is frozen is as it was in the checkpoint: no warning, and not stale
        train(fresh, visits=range(stop, 3))
        found = [g["lr"] for g in fresh.optimizer.param_groups]
        assert found == pytest.approx([0.1, 0.3])
        assert set(fresh.buffer.experiences.tolist()) == {0, 1, 2}


def test_a_lower_part_that_looks_untrained_is_warned_of_once():
    strategy = ar1(network(warm=False))
    with pytest.warns(UserWarning, match="norm layers up to b are as new: it looks"):
        train(strategy, visits=[0])
    train(strategy, visits=[1, 2])


@pytest.mark.parametrize(
    "make, options",
    [
        (network, {}),
        (warm_model, {"latent_layer": "feature_extractor.2"}),
        (without_batch_norm, {"latent_layer": "2"}),
        (lambda: network(warm=False), {"freeze_first": False}),
        (lambda: toy_model(cosine=False), {"latent_layer": "feature_extractor.1"}),
    ],
)
def test_no_warning_of_what_is_trained_or_has_no_statistics(make, options):
    train(ar1(make(), **options), visits=[0])


@pytest.mark.parametrize("statistic", ["running_mean", "running_var", "bias"])
@pytest.mark.parametrize("batch_renorm", [True, False])
def test_one_layer_that_differs_from_a_new_one_is_enough(statistic, batch_renorm):
    model = network(warm=False)
    with torch.no_grad():
        getattr(model.b.norm, statistic)[0] += 0.1
    train(ar1(model, batch_renorm=batch_renorm), visits=[0])
