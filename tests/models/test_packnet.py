"""PackNet's submodels are PackNet, without its labels."""

from __future__ import annotations

import pytest
import torch
from avalanche.benchmarks import with_classes_timeline
from avalanche.models.packnet import (
    PackNetModel,
    PackNetModule,
    PackNetPlugin,
    packnet_simple_mlp,
)
from avalanche.training.supervised import Naive
from cases import APIS, N_CLASSES, SIDE, build, toy_benchmark
from torch import nn
from torch.optim import SGD
from torch.testing import assert_close

from avalanche_ext.buffers import ReferenceSamples
from avalanche_ext.models import ExperienceDetectors
from avalanche_ext.models.packnet import packnet_submodels
from avalanche_ext.plugins import TaskRecognitionPlugin

CLASSES = [(1, 0), (2, 3), (4, 5)]
WITH_LABELS = [api for api in APIS if api.endswith("task_labels")]


def labelled(api):
    """The toy stream; of the new API, with what Avalanche's PackNet asks of it."""
    benchmark = toy_benchmark(api)
    return benchmark if api.startswith("old") else with_classes_timeline(benchmark)


def mlp():
    return packnet_simple_mlp(N_CLASSES, SIDE * SIDE, 24, 2, drop_rate=0.2)


def cnn():
    layers = (nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten())
    return PackNetModel(nn.Sequential(*layers, nn.Linear(128, N_CLASSES)))


def packing(model, *plugins, **options):
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    plugins = [PackNetPlugin(2, 0.6), *plugins]
    fixed = {"model": model, "optimizer": optimizer, "train_epochs": 6}
    return build(Naive, plugins=plugins, **{**fixed, **options})


def state_of(model):
    state = {k: v.clone() for k, v in model.state_dict().items()}
    return state, {m: (m.training, len(m._forward_hooks)) for m in model.modules()}


@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize("api", WITH_LABELS)
def test_submodels_are_the_model_given_the_label_and_stay_so(api, make):
    benchmark, model = labelled(api), make()
    strategy = packing(model)
    assert packnet_submodels(model, CLASSES) == []
    x = torch.randn(9, 1, SIDE, SIDE)
    before = []
    for k, experience in enumerate(benchmark.train_stream):
        strategy.train(experience)
        state, modes = state_of(model)
        found = packnet_submodels(model, CLASSES)
        assert all(torch.equal(v, state[n]) for n, v in model.state_dict().items())
        assert state_of(model)[1] == modes
        assert [own.classes for own in found] == [(0, 1), (2, 3), (4, 5)][: k + 1]
        model.eval()
        for m, own in enumerate(found):
            with torch.no_grad():
                wanted = model(x, torch.full((9,), m))[:, own.classes]
            assert_close(own(x), wanted)
        for own, wanted in zip(found, before):
            assert torch.equal(own(x), wanted)
        before = [own(x) for own in found]
        for own in found:  # ordinary networks, with nothing of PackNet
            kinds = {type(m) for m in own.modules()}
            assert not any(issubclass(kind, PackNetModule) for kind in kinds)
            assert not any(p.requires_grad for p in own.parameters())
    assert len({tuple(out.flatten().tolist()) for out in before}) == 3


def test_weight_decay_moves_what_packnet_has_packed():
    # why the docstring says so
    benchmark, model = labelled("old_task_labels"), mlp()
    optimizer = SGD(model.parameters(), lr=0.05, weight_decay=0.1)
    strategy = packing(model, optimizer=optimizer)
    x = torch.randn(9, 1, SIDE, SIDE)
    strategy.train(benchmark.train_stream[0])
    before = packnet_submodels(model, CLASSES)[0](x)
    strategy.train(benchmark.train_stream[1])
    assert not torch.equal(packnet_submodels(model, CLASSES)[0](x), before)


def test_what_is_packed_later_does_not_change_a_submodel_that_was_made():
    benchmark, model = labelled("new_task_labels"), mlp()
    strategy = packing(model)
    x = torch.randn(9, 1, SIDE, SIDE)
    strategy.train(benchmark.train_stream[0])
    part = packnet_submodels(model, CLASSES)[0]
    before = part(x)
    strategy.train(benchmark.train_stream[1])
    for parameter in model.parameters():
        parameter.data.fill_(torch.nan)
    assert torch.equal(part(x), before)


@pytest.mark.parametrize("api", WITH_LABELS)
def test_recognition_on_top_of_packnet_needs_no_label(api):
    benchmark, model = labelled(api), mlp()
    recognition = TaskRecognitionPlugin(
        lambda s: packnet_submodels(s.model, CLASSES),
        detectors=ExperienceDetectors(12, num_trees=20),
        reference=ReferenceSamples(20),
    )
    strategy = packing(model, recognition)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    found = strategy.eval(benchmark.test_stream)
    accuracy = [v for k, v in found.items() if k.startswith("Top1_Acc_Stream/eval")]
    assert len(recognition.detectors) == 3
    # with the label about 1; 1/3 is the chance of the right experience
    assert sum(accuracy) / len(accuracy) > 0.5


def test_models_that_are_not_packnets_are_refused():
    with pytest.raises(ValueError, match=r"model is Linear.*; wanted a PackNetModel"):
        packnet_submodels(nn.Linear(2, 2), CLASSES)
    model = mlp()
    for _ in range(2):
        model.prune(0.5)
        model.freeze_pruned()
        model.activate_task(model.task_count)
    with pytest.raises(
        ValueError, match="classes are those of 1 experiences; wanted 2"
    ):
        packnet_submodels(model, CLASSES[:1])


class Own(PackNetModule):
    """A packed module that is no wrapped layer."""

    def _prune(self, prune_proportion):
        pass

    def _freeze_pruned(self):
        pass

    def _activate_task(self, task_id):
        pass

    def forward(self, x):
        return x


def test_packed_modules_of_another_make_are_refused():
    model = PackNetModel(nn.Sequential(nn.Linear(4, 3), Own(), nn.Linear(3, 2)))
    model.prune(0.5)
    model.freeze_pruned()
    with pytest.raises(ValueError, match="the model has a Own; wanted wrapped layers"):
        packnet_submodels(model, [(0, 1)])
