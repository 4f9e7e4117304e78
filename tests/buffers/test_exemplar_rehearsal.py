"""What would be refused once an experience is trained is refused before."""

from __future__ import annotations

import copy

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive
from cases import task_model
from mnemonics_cases import agent, experience, fill, quick, small_model
from torch import nn
from torch.optim import SGD
from torchvision.transforms import RandomHorizontalFlip, RandomRotation

from avalanche_ext import CosineClassifier, FeatureClassifier
from avalanche_ext.buffers import HerdingBuffer, MnemonicsBuffer, MnemonicsOptimizer
from avalanche_ext.buffers.exemplar_rehearsal import rehearse
from avalanche_ext.plugins import ExemplarReplayPlugin


def made(**options):
    sizes = {} if "max_size" in options else {"per_class": 4}
    return MnemonicsBuffer(**{"optimizer": quick(), **sizes, **options})


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 6))


class HardSigmoid(nn.Module):
    def forward(self, x):
        return nn.functional.hardsigmoid(x)


def hard():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 6), HardSigmoid())


class NoTraining(SupervisedPlugin):
    def before_training_iteration(self, strategy, **kwargs):
        raise AssertionError("trained before the refusal")


REFUSED = [
    ({"mean": [0.5] * 3, "std": [1.0] * 3}, {}, small_model, "wanted 1 or 1"),
    ({"mean": [0.5], "std": [1.0]}, {}, small_model, "wanted 0 to 1"),
    ({"buffer_transform": lambda i: i[:, 1:]}, {}, small_model, "makes"),
    ({}, {"augment": [RandomRotation(9)]}, small_model, "buffer_transform= given"),
    ({}, {"images": torch.full((12, 1, 6, 6), torch.nan)}, small_model, "nan"),
    ({}, {"shape": (36,)}, lambda: small_model((36,)), "wanted images"),
    ({"max_size": 1}, {}, small_model, "is 1; wanted at least 2, an exemplar for each"),
    ({"selection": "herding"}, {}, plain, "does not expose its features"),
    ({"optimizer": quick(objective="ncm")}, {}, plain, "no feature_extractor"),
    ({"optimizer": quick(objective="bilevel_head")}, {}, plain, "train_classifier"),
    ({}, {}, hard, "has no derivative"),
]


@pytest.mark.parametrize(("options", "data", "model", "text"), REFUSED)
def test_what_does_not_fit_is_refused_before_training(options, data, model, text):
    dataset, buffer = experience((0, 1), **data).dataset, made(**options)
    stream = benchmark_from_datasets(train=[dataset], test=[dataset]).train_stream
    network = model()
    before = copy.deepcopy(network.state_dict())
    strategy = Naive(
        model=network,
        optimizer=SGD(network.parameters(), lr=0.1),
        plugins=[ExemplarReplayPlugin(buffer), NoTraining()],
        evaluator=None,
    )
    with pytest.raises((ValueError, RuntimeError), match=text):
        strategy.train(stream)
    assert buffer.exemplars.space is None and buffer.n_experiences == 0
    for name, value in before.items():
        assert torch.equal(network.state_dict()[name], value)


def test_a_head_a_task_is_refused():
    with pytest.raises(ValueError, match="has a head a task"):
        rehearse(made(), agent(task_model()), experience((0, 1)).dataset)


def test_a_budget_counts_all_classes_met():
    buffer = fill(made(max_size=3), experience((0, 1)))
    rehearse(buffer, agent(small_model()), experience((1, 2)).dataset)
    with pytest.raises(ValueError, match="is 3; wanted at least 4"):
        rehearse(buffer, agent(small_model()), experience((2, 3)).dataset)


def test_another_normalisation_in_a_later_experience_is_refused():
    buffer = fill(made(), experience((0, 1), normalize=([0.4], [0.2])))
    other = experience((2, 3), normalize=([0.5], [0.2])).dataset
    with pytest.raises(ValueError, match="wanted the same: give mean and std"):
        rehearse(buffer, agent(small_model()), other)


@pytest.mark.parametrize("objective", ["bilevel", "bilevel_head", "ncm"])
@pytest.mark.parametrize("batchnorm", ["eval", "batch"])
def test_nothing_is_drawn_and_nothing_changed(objective, batchnorm):
    chunk = {"chunk": None} if batchnorm == "batch" else {}
    passes = {"inner_steps": None, "inner_epochs": 2, "inner_batch_size": 1}
    setting = quick(objective=objective, batchnorm=batchnorm, **passes, **chunk)
    model, buffer = small_model(), made(optimizer=setting)
    before, state = copy.deepcopy(model), torch.get_rng_state()
    data = experience((0, 1), augment=[RandomHorizontalFlip()]).dataset
    rehearse(buffer, agent(model), data)
    assert torch.equal(state, torch.get_rng_state())
    assert buffer.exemplars.space is None and buffer.exemplars.augment is None
    for ours, theirs in zip(model.parameters(), before.parameters()):
        assert torch.equal(ours, theirs) and ours.grad is None
    assert model.training == before.training


def test_a_trial_is_made_anew_where_layers_changed_not_where_classes_came(monkeypatch):
    model = FeatureClassifier(
        nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), CosineClassifier(4, 2)
    )
    buffer, trials = made(), []
    gradient = MnemonicsOptimizer.gradient

    def counted(*args, **kwargs):
        trials.append(args)
        return gradient(*args, **kwargs)

    monkeypatch.setattr(MnemonicsOptimizer, "gradient", counted)

    def tried(classes=(0, 1), **data):
        before = len(trials)
        rehearse(buffer, agent(model), experience(classes, **data).dataset)
        return len(trials) - before

    assert tried() == 1
    for classes in ((2, 3), (4,)):
        model.train_classifier.grow(list(classes))
        assert tried(classes) == 0
    model.feature_extractor[1].requires_grad_(False)
    assert tried() == 1
    model.feature_extractor.append(nn.Tanh())
    assert tried() == 1 and tried() == 0
    buffer.optimizer = quick(parameters="all")
    assert tried() == 1
    assert tried(shape=(1, 4, 9)) == 1
    model.feature_extractor.append(HardSigmoid())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="has no derivative"):
            tried()


def test_one_sample_is_enough():
    for batchnorm in ("eval", "batch"):
        setting = quick(batchnorm=batchnorm, chunk=None)
        data = experience((0,), per_class=1).dataset
        rehearse(made(optimizer=setting), agent(small_model()), data)


def test_other_buffers_are_not_asked():
    assert not hasattr(HerdingBuffer(), "rehearse")
    data = experience((0, 1)).dataset
    stream = benchmark_from_datasets(train=[data], test=[data]).train_stream
    model = small_model()
    strategy = Naive(
        model=model,
        optimizer=SGD(model.parameters(), lr=0.1),
        plugins=[ExemplarReplayPlugin(HerdingBuffer(per_class=2))],
        evaluator=None,
    )
    strategy.train(stream)
    assert len(strategy.plugins[0].buffer.buffer) == 4
