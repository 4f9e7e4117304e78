"""Whole methods beside bare loops, at tiny size: LUCIR's family, and the driver."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from avalanche.core import SupervisedPlugin
from timings.entries import ENTRIES
from timings.methods import command
from timings.methods.compare import SIDES, compare, peak, trained
from timings.methods.inference import classifier
from timings.methods.lucir_family import Family, Learner
from timings.methods.method import Frame
from timings.methods.registry import METHODS
from timings.methods.switches import SWITCHES
from torch.testing import assert_close

from avalanche_ext.models import CifarResNet

FRAME = Frame(torch.device("cpu"), n_batches=1)
BATCH, EXEMPLARS = 10, 2
TINY = Family(
    lambda: CifarResNet(n_blocks=1, width=2), batch_size=BATCH, exemplars=EXEMPLARS
).methods()
BY_NAME = pytest.mark.parametrize("method", TINY, ids=lambda m: m.name)


class FirstBatch(SupervisedPlugin):
    """Keeps what an experience's first mini-batch began with, and its loss."""

    def __init__(self):
        super().__init__()
        self.images, self.model, self.loss = [], None, None

    def before_training_exp(self, strategy, **kwargs):
        self.images, self.loss = [], None

    def before_forward(self, strategy, **kwargs):
        if not self.images:
            self.model = copy.deepcopy(strategy.model)
            self.x, self.y = strategy.mb_x, strategy.mb_y
            bdr = [p for p in strategy.plugins if hasattr(p, "adjustment")]
            self.adjustment = bdr[0].adjustment if bdr else None
        self.images.append(len(strategy.mb_y))

    def before_backward(self, strategy, **kwargs):
        if self.loss is None:
            self.loss = strategy.loss.detach().clone()


def second(make):
    """What was noted of the second experience, and the run."""
    notes = FirstBatch()
    run = make(FRAME, [notes])
    for experience in run.experiences:
        run.strategy.train(experience)
    return notes, run


@BY_NAME
def test_the_bare_loop_trains_as_many_images_as_the_method(method):
    notes, _ = second(method.ours)
    assert sum(notes.images) == method.bare(FRAME)()
    assert len(notes.images) == 2  # ten new images, ten exemplars
    assert sum(notes.images) == BATCH + 5 * EXEMPLARS


@BY_NAME
def test_the_bare_loop_has_the_methods_loss(method):
    notes, _ = second(method.ours)
    head = notes.model.train_classifier
    bare = Learner(method.name, notes.model.feature_extractor)
    bare.scale = head.scale
    bare.old, bare.new = head.prototypes
    bare.adjustment = notes.adjustment
    assert (notes.adjustment is not None) == (method.name == "bdr")
    assert_close(bare.loss(notes.x, notes.y).detach(), notes.loss.squeeze())


@BY_NAME
def test_the_bare_loop_learns_what_the_method_learns(method):
    bare = Learner(method.name, method.ours(FRAME, ()).strategy.model.feature_extractor)
    if method.name == "bdr":
        bare.start_adjustment([(torch.randn(20, 3, 32, 32), torch.arange(20) % 10)])
    before = [p.clone() for p in (bare.old, bare.new, bare.scale)]
    bare.step(torch.randn(10, 3, 32, 32), torch.arange(10) % 10)
    stays = [
        torch.equal(a, b)
        for a, b in zip(before, (bare.old, bare.new, bare.scale), strict=True)
    ]
    assert stays == [True, False, False]
    assert all(p.grad is not None for p in bare.extractor.parameters())


@BY_NAME
def test_avalanches_strategy_has_the_same_images(method):
    notes, run = second(method.theirs)
    assert sum(notes.images) == BATCH + 5 * EXEMPLARS
    ours = method.ours(FRAME, ())
    for mine, theirs in zip(ours.experiences, run.experiences, strict=True):
        assert len(mine.dataset) == len(theirs.dataset) == BATCH
        x, y = mine.dataset[3][:2]
        assert torch.equal(x, theirs.dataset[3][0])
        assert y == theirs.dataset[3][1]


def test_inference_gives_the_accuracy_of_evaluation(monkeypatch):
    run = trained(TINY[0].ours, FRAME)
    run.strategy.train(run.experiences[1])
    (accuracy,) = run.strategy.eval(run.test_stream).values()
    right = []
    item = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda t: right.append(item(t)))
    n = classifier(run)()
    assert n == sum(len(e.dataset) for e in run.test_stream) == BATCH
    assert right[-1] / n == pytest.approx(accuracy)


def test_the_driver_measures_prints_and_writes(monkeypatch, tmp_path, capsys):
    sizes = dict.fromkeys(SIDES, 5_000_000)
    monkeypatch.setattr(command, "peaks", lambda name, frame: sizes)
    monkeypatch.setattr(command, "N_BATCHES", {"cpu": 1})
    monkeypatch.setattr(command, "ENTRIES", ())
    out = tmp_path / "timing.json"
    command.run(TINY[1:2], FRAME.device, 2, out, tmp_path / "profiles")
    record = json.loads(out.read_text())
    assert {"versions", "hardware", "repeats", "methods"} <= record.keys()
    (found,) = record["methods"]
    assert {
        side: len(s) for side, s in found["epoch_seconds"].items()
    } == dict.fromkeys(SIDES, 2)
    assert found["bare_images"] == BATCH + 5 * EXEMPLARS
    assert found["new_images"] == BATCH
    assert found["kept_bytes"]["ours"]["exemplars"] == 10 * EXEMPLARS * 3 * 32 * 32
    assert 0 < found["outside"]["epoch"] < 1
    names = [figure["name"] for figure in found["figures"]]
    assert names == ["training", "gain", "evaluation"]
    printed = capsys.readouterr().out
    assert "ICaRL" in printed
    assert "class_statistics" in printed
    assert printed.count("aten::") > 3
    events = json.loads((tmp_path / "profiles" / "bdr.json").read_text())
    assert events["traceEvents"]


def test_figures_are_medians_of_the_ratios_of_turns():
    found = compare(TINY[0], FRAME, 3)
    training, gain, evaluation = found["figures"]
    epochs, answered = found["epoch_seconds"], found["evaluation_seconds"]
    for figure, above, below in (
        (training, epochs["ours"], epochs["bare"]),
        (gain, epochs["theirs"], epochs["ours"]),
        (evaluation, answered["ours"], answered["bare"]),
    ):
        assert figure.value == sorted(a / b for a, b in zip(above, below))[1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak")
@pytest.mark.parametrize("side", SIDES)
def test_the_peak_of_a_side_is_of_its_own_training(side):
    made = []

    def noted(name):
        make = getattr(TINY[2], name)
        return lambda *args: made.append(name) or make(*args)

    method = replace(TINY[2], **{name: noted(name) for name in SIDES})
    assert peak(method, side, FRAME) >= 0  # next to nothing, at this size
    assert made == [side]


def test_methods_have_names_of_their_own():
    names = [method.name for method in METHODS]
    assert len(set(names)) == len(names)


def test_slow_restatements_are_figures_that_there_are():
    there = {entry.name for entry in ENTRIES}
    assert {name for method in METHODS for name in method.slow} <= there


def test_the_driver_measures_every_switch(monkeypatch, tmp_path, capsys):
    eager = partial(torch.compile, backend="eager")  # the real one takes half a minute
    monkeypatch.setattr(torch, "compile", eager)
    monkeypatch.setattr(command, "N_BATCHES", {"cpu": 1})
    out = tmp_path / "timing.json"
    command.run(TINY[:1], FRAME.device, 1, out, switches=True)
    (found,) = json.loads(out.read_text())["methods"]
    assert found["switch_seconds"].keys() == SWITCHES.keys()
    assert [f["name"] for f in found["figures"]] == list(SWITCHES)[1:]
    assert all(len(s) == 2 for s in found["switch_seconds"].values())
    assert "over one with bf16+channels_last" in capsys.readouterr().out
