"""Imprinted prototypes in training."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import APIS, naive_with, toy_benchmark
from torch.testing import assert_close

from avalanche_ext.functional.cosine import imprinted_prototypes
from avalanche_ext.plugins import ImprintingPlugin


class Snapshot(SupervisedPlugin):
    """The prototypes as training finds them."""

    def before_training_epoch(self, strategy, **kwargs):
        head = strategy.model.train_classifier
        self.prototypes = [p.detach().clone() for p in head.prototypes]


@pytest.mark.parametrize("api", APIS)
def test_new_rows_are_the_mean_directions_and_old_rows_stay(api):
    snapshot = Snapshot()
    strategy = naive_with(ImprintingPlugin(), snapshot, train_epochs=1)
    stream = toy_benchmark(api).train_stream
    strategy.train(stream[0])
    model = strategy.model
    old = model.train_classifier.prototypes[0].detach().clone()
    data = stream[1].dataset
    model.eval()
    with torch.no_grad():
        model(torch.stack([item[0] for item in data]))
    rows = torch.tensor(list(data.targets)) - 2
    wanted = imprinted_prototypes(model.features, rows, 2, old)
    strategy.train(stream[1])
    assert torch.equal(snapshot.prototypes[0], old)
    assert_close(snapshot.prototypes[1], wanted)


def test_the_first_experience_is_left_to_chance():
    imprinted, plain = Snapshot(), Snapshot()
    for snapshot, plugins in ((imprinted, [ImprintingPlugin()]), (plain, [])):
        torch.manual_seed(0)
        strategy = naive_with(*plugins, snapshot, train_epochs=1)
        strategy.train(toy_benchmark().train_stream[0])
    assert torch.equal(imprinted.prototypes[0], plain.prototypes[0])


def test_an_experience_without_new_classes_changes_nothing():
    snapshot = Snapshot()
    strategy = naive_with(ImprintingPlugin(), snapshot, train_epochs=1)
    stream = toy_benchmark().train_stream
    strategy.train(stream[0])
    before = strategy.model.train_classifier.prototypes[0].detach().clone()
    strategy.train(stream[0])
    assert torch.equal(snapshot.prototypes[0], before)
