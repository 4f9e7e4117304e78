"""The network and the data of the golden files of EWC+FR+Replay."""

from __future__ import annotations

import torch
from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline
from avalanche.benchmarks import with_task_labels as labelled
from avalanche.benchmarks.utils import DataAttribute, as_classification_dataset
from torch import nn
from torch.utils.data import Dataset

from avalanche_ext.models import TaskClassifier, TaskIncrementalClassifier


def flat(named):
    """Tensors by name as one vector."""
    return torch.cat([v.reshape(-1) for v in named.values()])


class TinyMLP(nn.Module):
    """The authors' network with all outputs, from a golden file's parameters."""

    def __init__(self, golden, prefix="param."):
        super().__init__()
        state = {
            k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)
        }
        hidden, inputs = state["lin.weight"].shape
        self.lin = nn.Linear(inputs, hidden)
        self.upper = nn.Linear(hidden, len(state["upper.weight"]))
        self.load_state_dict(state)

    def forward(self, x):
        return self.upper(self.lin(x.flatten(1)).relu())


class _OwnHead(nn.Module):
    def __init__(self, model, ids):
        super().__init__()
        self.model, self.ids = model, ids

    def forward(self, x):
        return self.model(x)[:, self.ids]


def own_head(model, ids):
    """The network that gives one task's classes only."""
    return _OwnHead(model, ids)


def wide_model(golden, prefix="w1."):
    """The same network in our form: one wide layer, classes by task."""
    state = {
        k.removeprefix(prefix): v.clone()
        for k, v in golden.items()
        if k.startswith(prefix)
    }
    hidden, inputs = state["lin.weight"].shape
    n_outputs = len(state["upper.weight"])
    extractor = nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU())
    model = TaskIncrementalClassifier(extractor, TaskClassifier(hidden, n_outputs))
    set_parameters(model, state)
    return model


def set_parameters(model, state):
    """The authors' parameters into our model."""
    with torch.no_grad():
        for ours, name in zip(model.parameters(), state):
            ours.copy_(state[name])


class Points(Dataset):
    """Tensors with targets."""

    def __init__(self, x, y):
        self.x, self.targets = x, y.tolist()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.targets[i]


def stream_of(x, y, task):
    """One experience a task, with task labels and class ids that begin at 0 in each."""
    parts = []
    for t in task.unique().tolist():
        mine = task == t
        data = as_classification_dataset(Points(x[mine], y[mine]))
        labels = DataAttribute([t] * int(mine.sum()), "targets_task_labels", True)
        parts.append(data.update_data_attribute("targets_task_labels", labels))
    benchmark = benchmark_from_datasets(train=parts, test=parts)
    return labelled(with_classes_timeline(benchmark)).train_stream
