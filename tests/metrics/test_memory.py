"""Bytes a strategy keeps between experiences."""

from __future__ import annotations

import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import (
    AGEMPlugin,
    EvaluationPlugin,
    EWCPlugin,
    LwFPlugin,
    ReplayPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.supervised import DER, Cumulative, Naive
from avalanche.training.supervised.icarl import _ICaRLPlugin
from cases import SIDE, toy_benchmark
from torch import nn

from avalanche_ext.metrics.memory import MemoryBytes, memory_bytes
from avalanche_ext.models import CosineClassifier, FeatureClassifier
from avalanche_ext.strategies import LUCIR

IMAGE = 4 * SIDE * SIDE  # the toy images are floats


def trained(*plugins, experiences=2, strategy=Naive, **options):
    """A strategy after some experiences, its model's bytes, the last results."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 6), nn.BatchNorm1d(6))
    strategy = strategy(
        model=model,
        optimizer=torch.optim.Adam(model.parameters()),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=16,
        plugins=list(plugins),
        evaluator=EvaluationPlugin(MemoryBytes(), loggers=[BaseLogger()]),
        **options,
    )
    stream = toy_benchmark().train_stream
    results = {}
    for experience in list(stream)[:experiences]:
        results = strategy.train(experience)
    parameters = sum(p.nbytes for p in model.parameters())
    return strategy, parameters, results


def test_a_strategy_without_a_memory_keeps_nothing():
    strategy, _, results = trained()
    assert memory_bytes(strategy) == {}
    assert results == {"Memory_Bytes/train_phase/train_stream/total": 0}


def test_exemplars_count_as_raw_images():
    strategy, _, results = trained(ReplayPlugin(mem_size=10))
    assert memory_bytes(strategy)["exemplars"] == 10 * IMAGE
    assert results["Memory_Bytes/train_phase/train_stream/exemplars"] == 10 * IMAGE


def test_episodic_memories_count_without_a_buffer_class():
    plugin = AGEMPlugin(patterns_per_experience=5, sample_size=10)
    strategy, _, _ = trained(plugin)
    assert memory_bytes(strategy)["exemplars"] == 10 * IMAGE


def test_importances_and_anchors_count_once_for_each_experience():
    strategy, parameters, results = trained(EWCPlugin(ewc_lambda=1.0))
    assert memory_bytes(strategy) == {
        "importances": 2 * parameters,
        "tensors": 2 * parameters,
    }
    prefix = "Memory_Bytes/train_phase/train_stream/"
    assert results[prefix + "total"] == 4 * parameters


def test_a_frozen_copy_counts_with_its_buffers():
    strategy, parameters, _ = trained(LwFPlugin())
    buffers = sum(b.nbytes for b in strategy.model.buffers())
    assert memory_bytes(strategy) == {"frozen_copies": parameters + buffers}


def test_tensors_below_a_plugin_count():
    strategy, parameters, _ = trained(SynapticIntelligencePlugin(si_lambda=1.0))
    assert memory_bytes(strategy)["tensors"] >= 4 * parameters


def test_a_memory_in_the_strategy_itself_counts_with_what_is_stored_beside():
    strategy, _, _ = trained(strategy=DER, mem_size=12)
    assert memory_bytes(strategy) == {"exemplars": 12 * IMAGE, "logits": 12 * 4 * 6}


def test_all_data_so_far_count():
    images = [len(e.dataset) for e in toy_benchmark().train_stream[:2]]
    strategy, _, results = trained(strategy=Cumulative)
    assert memory_bytes(strategy) == {"exemplars": sum(images) * IMAGE}
    assert results["Memory_Bytes/train_phase/train_stream/total"] == sum(images) * IMAGE


def test_the_buffer_of_a_strategy_of_this_package_counts_once():
    model = FeatureClassifier(nn.Flatten(), CosineClassifier(SIDE * SIDE))
    options = {"exemplars_per_class": 3, "train_mb_size": 16}
    strategy = LUCIR(
        model=model, optimizer=torch.optim.SGD(model.parameters()), **options
    )
    strategy.train(toy_benchmark().train_stream[:2])
    assert memory_bytes(strategy)["exemplars"] == 4 * 3 * IMAGE


def test_the_floats_of_icarl_count_as_the_pixels_they_are_made_of():
    plugin = _ICaRLPlugin(8)
    plugin.x_memory = [torch.zeros(3, 1, 5, 5), torch.zeros(2, 1, 5, 5)]
    strategy, _, _ = trained()
    strategy.plugins.insert(0, plugin)
    assert memory_bytes(strategy) == {"exemplars": 5 * 25}


class Keeps(SupervisedPlugin):
    """Keeps whatever it is given."""

    def __init__(self, **things):
        super().__init__()
        self.__dict__.update(things)


def test_shared_storage_and_the_trained_model_count_once_or_not_at_all():
    strategy, _, _ = trained()
    weight = strategy.model[1].weight
    tensor = torch.zeros(10)
    plugin = Keeps(
        model=strategy.model,
        layer=strategy.model[1],
        weights=[weight, weight.detach()[0]],
        optimizer=strategy.optimizer,
        strategy=strategy,
        stream=toy_benchmark().train_stream,
        function=torch.zeros,
        latents={"x": (tensor, tensor[:2], tensor.view(2, 5))},
        itself=None,
    )
    plugin.itself = plugin
    strategy.plugins.insert(0, plugin)
    assert memory_bytes(strategy) == {"tensors": 40}


def test_a_plugin_that_tells_is_believed():
    class Tells(Keeps):
        def memory_bytes(self):
            return {"latents": 7, "exemplars": 0}

    strategy, _, _ = trained(Tells(tensor=torch.zeros(100)), Tells())
    assert memory_bytes(strategy) == {"latents": 14}


def test_counting_changes_no_random_state():
    strategy, _, _ = trained(ReplayPlugin(mem_size=10))
    before = torch.get_rng_state()
    memory_bytes(strategy)
    assert torch.equal(before, torch.get_rng_state())
