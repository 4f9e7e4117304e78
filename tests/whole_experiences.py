"""Whole experiences of the authors' code, trained again: ``e2e_*.npz``."""

from __future__ import annotations

from collections import OrderedDict

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from avalanche_ext.models import CosineClassifier, FeatureClassifier
from avalanche_ext.plugins import ExemplarReplayPlugin


class Recorder(SupervisedPlugin):
    """Sets the authors' initial prototypes; notes each step's loss, without CwD."""

    def __init__(self, golden):
        super().__init__()
        self.golden, self.losses, self.offsets = golden, [], []

    def before_training_exp(self, strategy, **kwargs):
        i = strategy.clock.train_exp_counter
        prototypes = strategy.model.train_classifier.prototypes[-1]
        prototypes.data.copy_(self.golden[f"t{i}_head_init"])

    def after_backward(self, strategy, **kwargs):
        first = strategy.clock.train_exp_counter == 0
        loss = strategy.criterion() if first else strategy.loss
        self.losses.append(loss.item())
        for plugin in strategy.plugins:
            if getattr(plugin, "adjustment", None) is not None:
                self.offsets.append(plugin.adjustment.offsets)


def experiences_of(golden, n):
    datasets = []
    for i in range(n):
        data = TensorDataset(golden[f"t{i}_x"], golden[f"t{i}_y"])
        data.targets = golden[f"t{i}_y"].tolist()
        datasets.append(as_classification_dataset(data))
    return benchmark_from_datasets(train=datasets).train_stream


def without_replay(strategy):
    replay = next(p for p in strategy.plugins if isinstance(p, ExemplarReplayPlugin))
    strategy.plugins.remove(replay)


def initial_extractor(golden):
    n_in, width, size = (
        golden["t0_x"].shape[1],
        len(golden["init__l1__bias"]),
        len(golden["init__l2__bias"]),
    )
    names = ("l1", "bn", "relu", "l2")
    layers = (
        nn.Linear(n_in, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, size),
    )
    extractor = nn.Sequential(OrderedDict(zip(names, layers)))
    init = {k: v for k, v in golden.items() if k.startswith("init__")}
    extractor.load_state_dict(
        {k[6:].replace("__", "."): torch.as_tensor(v) for k, v in init.items()}
    )
    return extractor, size


def assert_whole_experiences_agree(strategy_class, golden, **options):
    """Losses and offsets of each step, and all parameters after each experience."""
    extractor, size = initial_extractor(golden)
    model = FeatureClassifier(extractor, CosineClassifier(size))
    recorder = Recorder(golden)
    strategy = strategy_class(
        model=model,
        optimizer=torch.optim.SGD(
            model.parameters(), lr=1.0, momentum=0.9, weight_decay=5e-4
        ),
        distillation_weight=golden["lamb"],
        train_mb_size=golden["batch_size"],
        train_epochs=golden["epochs"],
        plugins=[recorder],
        evaluator=None,
        **options,
    )
    # the authors' data of each experience hold the replayed samples already
    without_replay(strategy)
    n = len(golden["sizes"])
    for i, experience in enumerate(experiences_of(golden, n)):
        rate = golden["lr"] if i else golden["first_task_lr"]
        strategy.optimizer.param_groups[0]["lr"] = rate
        recorder.losses.clear()
        recorder.offsets.clear()
        strategy.train(experience, shuffle=False)
        steps = golden[f"t{i}_criterion_per_step"].double()
        losses = torch.tensor(recorder.losses, dtype=torch.double)
        assert_close(losses, steps, rtol=1e-5, atol=1e-5)
        if golden["BDR"] and i:
            offsets, wanted = torch.stack(recorder.offsets), golden[f"t{i}_pi_per_step"]
            assert_close(offsets, wanted, rtol=0, atol=1e-6)
        else:
            assert not recorder.offsets
        ours = {f"model.{k}": v for k, v in extractor.state_dict().items()}
        for k, prototypes in enumerate(model.train_classifier.prototypes):
            ours[f"heads.{k}.weight"] = prototypes.data
        ours[f"heads.{i}.sigma"] = model.train_classifier.scale.data[None]
        wanted = {k: v for k, v in golden.items() if k.startswith(f"t{i}_after__")}
        assert wanted
        for key, value in wanted.items():
            name = key.split("__", 1)[1].replace("__", ".")
            assert_close(ours[name], torch.as_tensor(value), rtol=0, atol=1e-5)
    model.eval()
    assert_close(model(golden["test_x"]), golden["test_logits"], rtol=0, atol=1e-5)
