"""One iteration with distillation and transfer, against the authors' own."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from cases import naive_with
from torch import nn, optim
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from avalanche_ext.models import (
    CosineClassifier,
    FeatureClassifier,
    to_transfer_network,
)
from avalanche_ext.models.frozen_copy import FrozenCopy
from avalanche_ext.plugins import ScoreDistillationPlugin, WeightTransferPlugin


def tiny_net():
    """The goldens' network, without its classifier."""

    def block(n_in, n_out, stride):
        norm = nn.BatchNorm2d(n_out)
        return [nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), norm]

    conv1, bn1 = block(3, 4, 1)
    return nn.Sequential(
        OrderedDict(
            conv1=conv1,
            bn1=bn1,
            relu=nn.ReLU(),
            layer1=nn.Sequential(*block(4, 4, 1), nn.ReLU()),
            layer2=nn.Sequential(*block(4, 6, 2), nn.ReLU()),
            layer3=nn.Sequential(*block(6, 8, 2)),
            pool=nn.AvgPool2d(8),
            flatten=nn.Flatten(),
        )
    )


def state_of(golden, prefix):
    """State of our model from the authors' names."""
    names = {"fc.sigma": "scale", "fc.weight": "prototypes.0"}
    names |= {"fc.fc1.weight": "prototypes.0", "fc.fc2.weight": "prototypes.1"}
    state = {}
    for key, value in golden.items():
        name = key.removeprefix(prefix)
        if name == key:
            continue
        value = torch.as_tensor(value)
        if name in names:
            value = value.squeeze() if name == "fc.sigma" else value
            state[f"train_classifier.{names[name]}"] = value
        else:
            state[f"feature_extractor.{name}"] = value
    n = sum(len(v) for k, v in state.items() if "prototypes" in k)
    return {**state, "train_classifier.class_order": torch.arange(n)}


class Golden(SupervisedPlugin):
    """Stands after the distillation: gives both models the golden's weights."""

    def __init__(self, golden, distillation):
        super().__init__()
        self.golden, self.distillation = golden, distillation
        self.logits = self.loss = self.penalty = None

    def before_training_exp(self, strategy, **kwargs):
        if not strategy.clock.train_exp_counter:
            return
        strategy.model.load_state_dict(state_of(self.golden, "tg."))
        reference = FeatureClassifier(tiny_net(), CosineClassifier(8))
        reference.load_state_dict(state_of(self.golden, "ref."))
        self.distillation.reference = FrozenCopy(reference)

    def before_backward(self, strategy, **kwargs):
        self.logits, self.loss = strategy.mb_output.detach(), strategy.loss.detach()
        penalty = self.distillation.penalty(strategy.mb_output, strategy.mb_x)
        self.penalty = penalty.detach()


@pytest.mark.golden("mnemonics", "incremental_step.npz")
def test_an_iteration_agrees_with_the_authors(golden):
    data = []
    for y in (torch.tensor([0, 1, 2, 3, 0, 1]), golden["y"]):
        pairs = TensorDataset(golden["x"], y)
        pairs.targets = y.tolist()
        data.append(as_classification_dataset(pairs))
    stream = benchmark_from_datasets(train=data).train_stream
    distillation = ScoreDistillationPlugin()
    seen = Golden(golden, distillation)
    model = to_transfer_network(FeatureClassifier(tiny_net(), CosineClassifier(8)))
    strategy = naive_with(
        WeightTransferPlugin(),
        distillation,
        seen,
        model=model,
        optimizer=optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4),
        train_epochs=0,
    )
    strategy.train(stream[0])
    strategy.train_epochs = 1
    strategy.train(stream[1], shuffle=False)

    close = {"rtol": 1e-4, "atol": 1e-6}
    assert_close(seen.logits, golden["logits_before"], **close)
    assert_close(distillation.reference(golden["x"]), golden["ref_logits"], **close)
    assert float(seen.penalty) == pytest.approx(golden["loss_kd"], rel=1e-4)
    total = golden["loss_kd"] + golden["loss_ce"]
    assert float(seen.loss) == pytest.approx(total, rel=1e-6)
    wanted, before = state_of(golden, "after."), state_of(golden, "tg.")
    ours = model.state_dict()
    assert ours.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(ours[name], value, **close)
    rest = [n for n, _ in model.named_buffers() if n.endswith(".weight")]
    for name in [*rest, "train_classifier.prototypes.0"]:
        assert torch.equal(ours[name], before[name])
