"""Bare loops of EWC+FR+Replay, AR1*, ReReLRP and Mnemonics, at tiny size."""

from __future__ import annotations

import copy

import pytest
import torch
from avalanche.core import SupervisedPlugin
from timings.methods import ar1_star, ewc_fr_replay, mnemonics, rerelrp
from timings.methods.compare import trained
from timings.methods.lucir_family import Family, Learner
from timings.methods.method import Frame
from timings.methods.registry import METHODS
from torch.testing import assert_close

from avalanche_ext import models
from avalanche_ext.buffers import LatentBuffer
from avalanche_ext.models import CifarResNet, MobileNetV1

pytestmark = [
    pytest.mark.filterwarnings("ignore:norm layers up to"),
    pytest.mark.filterwarnings("ignore:features is 40, but"),
    pytest.mark.filterwarnings("ignore:.*reference samples of experience"),
    pytest.mark.filterwarnings("ignore:Call to deprecated"),
    pytest.mark.filterwarnings("ignore:.*no better than chance"),
]
FRAME = Frame(torch.device("cpu"), n_batches=2)
FAMILIES = {
    "ewc_fr_replay": (ewc_fr_replay, {"BATCH": 10, "MEMORY": 4}),
    "ar1_star": (ar1_star, {"BATCH": 8, "CURRENT": 3, "REPLAYED": 5, "SIZE": 32}),
    "rerelrp": (rerelrp, {"BATCH": 10, "KEPT": 1, "REFERENCE": 2}),
}
TINY = Family(lambda: CifarResNet(n_blocks=1, width=2), batch_size=10, exemplars=2)
NEEDED = {"ewc_fr_replay": 24, "ar1_star": 16, "rerelrp": 20, "mnemonics": 30}


def of(name):
    """With one method only."""
    return pytest.mark.parametrize("method", [name], indirect=True)


@pytest.fixture(params=NEEDED)
def method(request, monkeypatch):
    """A method with a tiny network, tiny mini-batches and a tiny memory."""
    if request.param == "mnemonics":
        return mnemonics.methods(TINY)[0]
    module, sizes = FAMILIES[request.param]
    for name, size in sizes.items():
        monkeypatch.setattr(module, name, size)
    monkeypatch.setattr(models, "MobileNetV1", lambda: MobileNetV1(width=0.05))
    monkeypatch.setattr(
        models, "resnet18_imagenet", lambda: CifarResNet(n_blocks=1, width=2)
    )
    return module.METHODS[0]


class Iterations(SupervisedPlugin):
    """Keeps each mini-batch of an experience: the model before, sizes and losses."""

    def __init__(self):
        super().__init__()
        self.sizes, self.models, self.batches, self.losses = [], [], [], []

    def before_training_exp(self, strategy, **kwargs):
        for notes in self.sizes, self.models, self.batches, self.losses:
            notes.clear()

    def before_training_iteration(self, strategy, **kwargs):
        self.models.append(copy.deepcopy(strategy.model))

    def before_backward(self, strategy, **kwargs):
        self.sizes.append(len(strategy.mb_output))
        self.batches.append([f.detach().clone() for f in strategy.mbatch])
        self.losses.append(strategy.loss.detach().squeeze().clone())


def second(make, notes=None):
    """What was noted of the second experience, and the run."""
    notes = notes or Iterations()
    run = make(FRAME, [notes])
    for experience in run.experiences:
        run.strategy.train(experience)
    return notes, run


def test_the_bare_loop_trains_as_many_images_and_mini_batches_as_the_method(
    method, monkeypatch
):
    notes, _ = second(method.ours)
    steps = []
    bare = method.bare(FRAME)
    for kind in torch.optim.SGD, torch.optim.Adam:
        step = kind.step
        monkeypatch.setattr(
            kind, "step", lambda self, step=step: steps.append(1) or step(self)
        )
    assert bare() == sum(notes.sizes) == NEEDED[method.name]
    assert len(steps) == len(notes.sizes)


def test_avalanches_strategy_has_the_same_new_images(method):
    ours, (notes, run) = method.ours(FRAME, ()), second(method.theirs)
    assert len(notes.sizes) >= 2
    for mine, other in zip(ours.experiences, run.experiences, strict=True):
        assert len(mine.dataset) == len(other.dataset)
        for i in 0, len(mine.dataset) - 1:
            assert torch.equal(mine.dataset[i][0], other.dataset[i][0])
            assert mine.dataset[i][1] == other.dataset[i][1]


def test_inference_answers_the_whole_test_stream(method):
    run = trained(method.ours, FRAME)
    run.strategy.train(run.experiences[1])
    run.strategy.eval(run.test_stream)
    assert method.inference(run)() == sum(len(e.dataset) for e in run.test_stream)


def test_epochs_asked_for_later_are_those_that_are_trained(method):
    run = trained(method.ours, FRAME)
    run.strategy.train_epochs = 3
    run.strategy.train(run.experiences[1])
    assert run.strategy.clock.train_exp_epochs == 3


@of("ewc_fr_replay")
def test_the_bare_loss_is_that_of_all_three_priors(method):
    found = []

    class Priors(Iterations):
        def before_backward(self, strategy, **kwargs):
            super().before_backward(strategy)
            own = {type(p).__name__: p for p in strategy.plugins}
            rows, (flat, anchor, h) = (
                own["FunctionalPriorPlugin"]._rows,
                own["LeftOutEWCPlugin"]._flat or (None,) * 3,
            )
            if rows is None:
                return
            _, y, at, _ = strategy.mbatch
            soft, _ = rows._soft_of(at, 10, rows.temperature)
            mixed = (y, rows.roles[at], soft, rows.weights[at])
            n = len(strategy.adapted_dataset)
            terms = (
                ewc_fr_replay.mixed_loss(strategy.mb_output, *mixed),
                ewc_fr_replay.penalty(flat.weights(), anchor, h, n),
            )
            found.append([term.detach() for term in terms])

    notes, _ = second(method.ours, Priors())
    assert [float(penalty) > 0 for _, penalty in found] == [False, True, True]
    assert_close([a + b for a, b in found], notes.losses)


@of("ar1_star")
def test_the_bare_loss_is_that_of_images_and_latents(method, monkeypatch):
    replayed, latents = [], LatentBuffer.latents

    def noted(self, *args):
        replayed.append(latents(self, *args))
        return replayed[-1]

    monkeypatch.setattr(LatentBuffer, "latents", noted)
    notes, _ = second(method.ours)
    model, (x, y, _), old = notes.models[0], notes.batches[0], replayed[0]
    bare = ar1_star.Learner(model.feature_extractor, model.train_classifier, FRAME)
    assert bare.latents.shape[1:] == old.shape[1:]
    n = len(x)
    assert (n, len(old)) == (3, 5)
    assert_close(bare.step(x, y[:n], old, y[n:]).detach(), notes.losses[0])


@of("rerelrp")
def test_the_bare_step_is_that_around_frozen_units(method):
    notes, run = second(method.ours)
    x, y, *_ = notes.batches[0]
    first, after = notes.models[:2]
    freezing = run.strategy._freezing.submodels
    keep = {n: u for n, u in freezing.keeps[0].items() if n != freezing.head}
    assert all(0 < int(units.sum()) < len(units) for units in keep.values())
    bare = rerelrp.Learner(first, keep)
    assert_close(bare.step(x, y).detach(), notes.losses[0])
    assert_close(dict(first.named_parameters()), dict(after.named_parameters()))


@of("mnemonics")
def test_the_bare_loss_is_that_of_transferred_kernels(method):
    notes, _ = second(method.ours)
    model, (x, y, *_) = notes.models[0], notes.batches[0]
    assert any(n.endswith("mtl_weight") for n, _ in model.named_parameters())
    bare = Learner("lucir", model.feature_extractor)
    bare.scale = model.train_classifier.scale
    bare.old, bare.new = model.train_classifier.prototypes
    assert_close(bare.loss(x, y).detach(), notes.losses[0])


@of("mnemonics")
def test_the_bare_network_learns_scales_of_kernels(method):
    network = mnemonics.transferring(TINY)
    (notes, _), learned = second(method.ours), dict(network.named_parameters())
    theirs = dict(notes.models[0].feature_extractor.named_parameters())
    assert learned.keys() == theirs.keys()


def test_every_method_of_the_package_is_timed():
    names = {method.name for method in METHODS}
    assert names == {*NEEDED, "lucir", "bdr", "cwd"}
