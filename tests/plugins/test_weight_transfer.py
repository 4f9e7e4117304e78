"""Convolutions freeze after the first experience, and the optimizer follows."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import SIDE, build, naive_with, toy_benchmark, toy_model
from contract import assert_equal, weights
from torch import optim
from transfer_subjects import model_with_convolutions

from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint
from avalanche_ext.models.feature_classifier import evaluating
from avalanche_ext.models.transfer_conv import transfer_convolutions
from avalanche_ext.plugins import ScoreDistillationPlugin, WeightTransferPlugin
from avalanche_ext.strategies import LUCIR

OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, weight_decay=0.1),
}
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def transfer_strategy(*plugins, optimizer="SGD", **options):
    torch.manual_seed(3)
    model = options.pop("model", None) or model_with_convolutions()
    return naive_with(
        WeightTransferPlugin(),
        *plugins,
        model=model,
        optimizer=OPTIMIZERS[optimizer](model.parameters()),
        **options,
    )


def train(strategy, n, start=0):
    torch.manual_seed(1 + start)
    for experience in toy_benchmark().train_stream[start:n]:
        strategy.train(experience)
    return strategy


def frozen(model):
    """Kernels and biases, as they are."""
    layers = transfer_convolutions(model)
    return [t.detach().clone() for m in layers for t in (m.weight, m.bias)]


class Optimized(SupervisedPlugin):
    """Notes what the optimizer has, by name, when each experience starts."""

    def __init__(self):
        super().__init__()
        self.groups, self.momenta = [], []

    def before_training_exp(self, strategy, **kwargs):
        name = {p: n for n, p in strategy.model.named_parameters()}
        groups = strategy.optimizer.param_groups
        self.groups.append([[name[p] for p in group["params"]] for group in groups])
        state = strategy.optimizer.state
        self.momenta.append({name[p] for p in state if state[p]})


def test_the_first_experience_is_naives():
    ours = train(transfer_strategy(), 1)
    torch.manual_seed(3)
    model = model_with_convolutions()
    naive = naive_with(model=model, optimizer=OPTIMIZERS["SGD"](model.parameters()))
    assert_equal(weights(ours), weights(train(naive, 1)))
    assert not any(layer.transfers for layer in transfer_convolutions(ours.model))


@optimizers
def test_kernels_keep_their_bits_while_scales_and_norms_train(optimizer):
    strategy = train(transfer_strategy(optimizer=optimizer), 1)
    before, norm = frozen(strategy.model), strategy.model.feature_extractor[1]
    norm_before = [t.clone() for t in norm.state_dict().values()]
    train(strategy, 3, start=1)
    for ours, wanted in zip(frozen(strategy.model), before):
        assert torch.equal(ours, wanted)
    for layer in transfer_convolutions(strategy.model):
        assert (layer.mtl_weight != 1).all() and (layer.mtl_bias != 0).any()
    for ours, old in zip(norm.state_dict().values(), norm_before):
        assert not torch.equal(ours, old)


def test_the_model_says_the_same_when_the_transfer_begins(rng):
    x = torch.randn(9, 1, SIDE, SIDE, generator=rng)
    strategy = train(transfer_strategy(), 1)
    with evaluating(strategy.model):
        wanted = strategy.model(x)
    strategy.train_epochs = 0
    train(strategy, 2, start=1)
    assert all(layer.transfers for layer in transfer_convolutions(strategy.model))
    with evaluating(strategy.model):
        assert torch.equal(strategy.model(x)[:, :2], wanted)


@optimizers
def test_the_optimizer_has_what_the_model_has(optimizer):
    seen = Optimized()
    strategy = train(transfer_strategy(seen, optimizer=optimizer), 3)
    names = {n for n, _ in strategy.model.named_parameters()}
    assert "feature_extractor.0.weight" in seen.groups[0][0]
    assert sorted(seen.groups[2][0]) == sorted(names)
    scales = {n for n in names if "mtl" in n}
    assert scales < set(seen.groups[1][0]) and len(scales) == 4
    # what is new begins without momentum, all else keeps its own
    new = {*scales, "train_classifier.prototypes.1"}
    assert seen.momenta[1] == set(seen.groups[1][0]) - new
    assert scales < seen.momenta[2]


def test_scales_take_the_group_of_their_kernels():
    model, seen = model_with_convolutions(), Optimized()
    convolutions = transfer_convolutions(model)
    groups = [
        {"params": [m.weight for m in convolutions], "weight_decay": 0.3},
        {"params": [m.bias for m in convolutions], "lr": 0.01},
        {"params": model.feature_extractor[1].parameters()},
        {"params": model.train_classifier.parameters()},
    ]
    strategy = naive_with(
        WeightTransferPlugin(),
        seen,
        model=model,
        optimizer=optim.SGD(groups, lr=0.1),
    )
    train(strategy, 3)
    at = [f"feature_extractor.{i}.mtl" for i in (0, 3)]
    assert seen.groups[2][:2] == [
        [f"{each}_weight" for each in at],
        [f"{each}_bias" for each in at],
    ]
    assert strategy.optimizer.param_groups[0]["weight_decay"] == 0.3


@optimizers
def test_a_transferred_model_resumes_as_if_it_had_never_stopped(optimizer, tmp_path):
    def fresh():
        return transfer_strategy(ScoreDistillationPlugin(), optimizer=optimizer)

    wanted = train(train(fresh(), 2), 3, start=2)
    stopped, stream = train(fresh(), 2), toy_benchmark().train_stream
    save_checkpoint(tmp_path / "c.pt", stopped, stream)
    resumed = fresh()
    load_checkpoint(tmp_path / "c.pt", resumed, stream)
    assert all(layer.transfers for layer in transfer_convolutions(resumed.model))
    assert_equal(weights(resumed), weights(stopped))
    assert_equal(weights(train(resumed, 3, start=2)), weights(wanted))


def test_a_model_already_in_transfer_goes_on_with_it():
    model = model_with_convolutions()
    for layer in transfer_convolutions(model):
        layer.begin_transfer()
    before = frozen(model)
    strategy = train(transfer_strategy(model=model), 2)
    for ours, wanted in zip(frozen(strategy.model), before):
        assert torch.equal(ours, wanted)
    assert (model.feature_extractor[0].mtl_weight != 1).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_lucir_transfers_in_any_precision_and_memory_format(precision):
    model = model_with_convolutions()
    strategy = build(
        LUCIR,
        model=model,
        plugins=[WeightTransferPlugin()],
        exemplars_per_class=4,
        precision=precision,
        channels_last=True,
        optimizer=OPTIMIZERS["SGD"](model.parameters()),
    )
    train(strategy, 1)
    before = frozen(model)
    train(strategy, 3, start=1)
    assert all(torch.equal(a, b) for a, b in zip(frozen(model), before))
    accuracy = strategy.eval(toy_benchmark().test_stream)
    assert max(v for k, v in accuracy.items() if "Top1_Acc_Stream" in k) > 0.5


def test_a_model_without_such_layers_is_refused_before_any_work():
    model = toy_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    strategy = naive_with(WeightTransferPlugin(), model=model)
    with pytest.raises(ValueError, match="FeatureClassifier has no TransferConv2d"):
        train(strategy, 1)
    assert_equal(dict(model.state_dict()), before)
