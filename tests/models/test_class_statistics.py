"""Statistics of classes as a model sees them."""

from __future__ import annotations

import pytest
import torch
from avalanche.models import MultiHeadClassifier, MultiTaskModule
from cases import toy_benchmark, toy_model
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader

from avalanche_ext.functional.class_statistics import class_statistics
from avalanche_ext.models import CosineClassifier, FeatureClassifier
from avalanche_ext.models.class_statistics import data_statistics, rows_of

CPU = torch.device("cpu")


def batches(n=20, d=6, classes=(0, 1, 2), size=6):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=rng)
    y = torch.tensor(classes)[torch.arange(n) % len(classes)]
    return x, y, list(zip(x.split(size), y.split(size), (y * 0).split(size)))


@pytest.mark.parametrize("unit_length", [False, True])
def test_statistics_of_a_data_set_are_those_of_its_features(unit_length):
    x, y, loader = batches()
    model = FeatureClassifier(nn.Linear(6, 4), nn.Linear(4, 5)).train()
    classes, found = data_statistics(model, loader, CPU, unit_length=unit_length)
    features = model.feature_extractor(x)
    if unit_length:
        features = nn.functional.normalize(features, dim=1)
    assert classes.tolist() == [0, 1, 2, 3, 4] and model.training
    for ours, wanted in zip(found, class_statistics(features, y, 5)):
        assert_close(ours, wanted, rtol=1e-5, atol=1e-7)


def test_rows_of_a_cosine_classifier_are_its_order_of_arrival():
    head = CosineClassifier(4)
    head.grow([17, 3])
    head.grow([8])
    model = FeatureClassifier(nn.Linear(6, 4), head)
    _, y, loader = batches(classes=(8, 17, 3))
    classes, found = data_statistics(model, loader, CPU)
    assert classes.tolist() == [17, 3, 8]
    assert rows_of(model, torch.tensor([8, 17])).tolist() == [2, 0]
    assert found.counts.tolist() == [(y == c).sum() for c in (17, 3, 8)]


class WithTasks(MultiTaskModule):
    """A head for each task, and the features of the last batch."""

    def __init__(self):
        super().__init__()
        self.extractor = toy_model().feature_extractor
        self.heads = MultiHeadClassifier(8, initial_out_features=2)

    def forward(self, x, task_labels):
        self.features = self.extractor(x)
        return self.heads(self.features, task_labels)


def test_models_with_a_head_for_each_task_are_measured_too():
    model, benchmark = WithTasks(), toy_benchmark("old_task_labels")
    for experience in benchmark.train_stream[:2]:
        model.heads.adaptation(experience)
    data = benchmark.train_stream[1].dataset
    _, found = data_statistics(model, DataLoader(data, batch_size=10), CPU)
    assert found.counts[2:4].tolist() == [24, 24]


def test_a_loader_without_batches_is_refused():
    model = FeatureClassifier(nn.Linear(6, 4), nn.Linear(4, 5))
    with pytest.raises(ValueError, match="delivers no batch"):
        data_statistics(model, [], CPU)


def test_a_class_without_a_column_is_refused():
    model = FeatureClassifier(nn.Linear(6, 4), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"hold classes \[2\].*has 2 columns"):
        data_statistics(model, batches()[2], CPU)


def test_class_ids_that_mean_another_class_in_each_task_are_refused():
    model = WithTasks()
    for experience in toy_benchmark("old_task_labels").train_stream[:2]:
        model.heads.adaptation(experience)
    x = torch.zeros(4, 1, 6, 6)
    mixed = [(x, torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1]))]
    with pytest.raises(
        ValueError, match="class 0 occurs under the task labels 0 and 1"
    ):
        data_statistics(model, mixed, CPU)
