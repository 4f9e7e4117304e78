"""ReReLRP: what an experience needs never changes, whatever moves the weights."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive
from cases import build
from rerelrp_hosts import NETWORKS, SHAPE, images, mlp, rerelrp, sgd, stream_of
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW, RMSprop

from avalanche_ext.buffers import ReferenceSamples
from avalanche_ext.plugins import RelevanceFreezingPlugin

# how well it learns does not matter here
pytestmark = [
    pytest.mark.filterwarnings("ignore:the accuracy on validation samples"),
    pytest.mark.filterwarnings("ignore:no unit is free"),
]

OPTIMIZERS = {
    "plain": lambda p: SGD(p, lr=0.05),
    "momentum": lambda p: SGD(p, lr=0.02, momentum=0.9, weight_decay=0.01),
    "foreach": lambda p: SGD(p, lr=0.02, momentum=0.9, weight_decay=0.01, foreach=True),
    "nesterov": lambda p: SGD(p, lr=0.02, momentum=0.9, nesterov=True),
    "adam": lambda p: Adam(p, lr=0.01, weight_decay=0.01),
    "adamw": lambda p: AdamW(p, lr=0.01, weight_decay=0.1, foreach=True),
    "rmsprop": lambda p: RMSprop(p, lr=0.002, momentum=0.5),
}


def frozen_values(strategy, freezing, rows):
    """Of every submodel's units, of old classes, and of all normalisation."""
    state = strategy.model.state_dict()
    found = {key: value for key, value in state.items() if "running" in key}
    for name, frozen in rows.items():
        for key in (f"{name}.weight", f"{name}.bias"):
            if key in state:
                whole = frozen.ndim == 0
                found[key] = state[key] if whole else state[key][frozen.nonzero()[:, 0]]
    return {key: value.clone() for key, value in found.items()}


class Watch(SupervisedPlugin):
    """Compares, after each step, and submodels after each experience."""

    def __init__(self, freezing=None):
        super().__init__()
        self.freezing, self.outputs, self.steps = freezing, [], 0

    def before_training_exp(self, strategy, **kwargs):
        submodels = self.submodels(strategy)
        self.rows = submodels.frozen_rows(strategy.model)
        self.before = frozen_values(strategy, self.freezing, self.rows)
        self.state = {k: v.clone() for k, v in strategy.model.state_dict().items()}

    def submodels(self, strategy):
        self.freezing = self.freezing or strategy._freezing
        return self.freezing.submodels

    def after_update(self, strategy, **kwargs):
        if self.rows:
            now = frozen_values(strategy, self.freezing, self.rows)
            assert now.keys() == self.before.keys() and len(now) > len(self.rows)
            for key, value in now.items():
                assert torch.equal(value, self.before[key]), key
            self.steps += 1

    def after_training_exp(self, strategy, **kwargs):
        model, submodels = strategy.model, self.submodels(strategy)
        if self.rows:  # the others are trained
            free = {n: ~r for n, r in self.rows.items() if r.ndim and not r.all()}
            assert submodels.head in free
            for name, mask in free.items():
                before = self.state[f"{name}.weight"][mask.nonzero()[:, 0]]
                after = model.get_submodule(name).weight[mask.nonzero()[:, 0]]
                assert not torch.equal(before, after), name
        with torch.no_grad():
            now = [own(images()) for own in submodels.all_of(model)]
        for before, after in zip(self.outputs, now):
            assert torch.equal(before, after)
        self.outputs = now


class Clip(SupervisedPlugin):
    def __init__(self, callback):
        super().__init__()
        self.norms = []
        setattr(self, callback, self.clip)

    def clip(self, strategy, **kwargs):
        self.norms.append(float(clip_grad_norm_(strategy.model.parameters(), 0.5)))


def watched(model, optimizer, **options):
    watch = Watch()
    fixed = {"acc_drop": 15, "train_epochs": 4, "plugins": [watch]}
    strategy = rerelrp(model, **{**fixed, "optimizer": optimizer, **options})
    strategy.train(stream_of().train_stream)
    assert len(watch.outputs) == 3 and watch.steps > 0
    return strategy


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_moves_what_is_frozen(name):
    model = mlp()
    watched(model, OPTIMIZERS[name](model.parameters()))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_training_moves_what_is_frozen_in_any_network(name):
    model = NETWORKS[name]()
    watched(model, sgd(model), train_epochs=3)


@pytest.mark.parametrize("peval_mode", ["epoch", "iteration"])
@pytest.mark.parametrize("name", ["mlp", "growing"])
def test_no_evaluation_within_training_moves_what_is_frozen(name, peval_mode):
    model = NETWORKS[name]()
    watched(model, sgd(model), eval_every=2, peval_mode=peval_mode)


class Modes(SupervisedPlugin):
    """Of dropout and normalisation while a batch is forwarded, by experience."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def after_forward(self, strategy, **kwargs):
        dropout, norm = strategy.model[0], strategy.model[1].feature_extractor[2]
        exp = strategy.clock.train_exp_counter
        self.seen.append((exp, dropout.training, norm.training))


@pytest.mark.parametrize("frozen", [True, False])
def test_dropout_rests_from_the_second_experience_on_if_asked(frozen):
    model, modes = nn.Sequential(nn.Dropout(0.1), mlp()), Modes()
    strategy = rerelrp(
        model, freeze_dropout=frozen, plugins=[modes], eval_every=1, acc_drop=15
    )
    strategy.train(stream_of().train_stream[:2])
    assert set(modes.seen) == {(0, True, True), (1, not frozen, False)}
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    "options",
    [
        {"mask_batchnorm": False},
        {"recognition_pass": "each"},
        {"prune_head": True},
        {"reinitialize_free": True},
        {"prune_step": 3, "min_units": 2, "patience": 2},
        {"evaluate_unpruned_first": True},
        {"composite": "zplus", "start": "one"},
        {"precision": "bf16"},
        {"generator": torch.Generator()},
    ],
)
def test_no_option_lets_what_is_frozen_move(options):
    model = mlp()
    watched(model, sgd(model), **options)


def hosted(*, before=(), after=(), model=None, optimizer=None, **options):
    """Avalanche's own strategy with the plugin, among others."""
    model = model or mlp()
    freezing = RelevanceFreezingPlugin(
        model,
        input_shape=SHAPE,
        acc_drop=15,
        validation_fraction=0.3,
        reference=ReferenceSamples(12),
        **options,
    )
    watch = Watch(freezing)
    strategy = build(
        Naive,
        model=model,
        optimizer=optimizer or sgd(model),
        plugins=[*before, freezing, *after, watch],
        train_epochs=4,
    )
    strategy.train(stream_of().train_stream)
    assert len(watch.outputs) == 3 and watch.steps > 0
    return strategy


@pytest.mark.parametrize("callback", ["after_backward", "before_update"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_clipped_gradients_do_not_move_what_is_frozen(place, callback):
    clip = Clip(callback)
    hosted(**{place: [clip]})
    assert max(clip.norms) > 0.5  # it did something


def test_clipping_does_not_see_what_is_frozen():
    """The norm is that of the rows that are trained."""

    class Norm(SupervisedPlugin):
        def before_update(self, strategy, **kwargs):
            rows = watch.rows
            for name, frozen in rows.items():
                for parameter in strategy.model.get_submodule(name).parameters(False):
                    own = parameter.grad if frozen.ndim == 0 else parameter.grad[frozen]
                    assert not own.any()

    watch, model = Watch(), mlp()
    strategy = rerelrp(model, plugins=[Norm(), watch], acc_drop=15)
    strategy.train(stream_of().train_stream)
    assert watch.steps
