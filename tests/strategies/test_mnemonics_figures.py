"""What Mnemonics has to show of its exemplars."""

from __future__ import annotations

from io import BytesIO

import pytest
import torch
from cases import toy_benchmark
from contract import weights
from mnemonics_cases import agent, experience, fill, small_model
from mnemonics_hosts import mnemonics, quick, trained

from avalanche_ext.buffers import MnemonicsBuffer
from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint
from avalanche_ext.strategies._mnemonics_figures import mnemonics_figures

NAMES = {"exemplars", "embedding", "margins", "optimization"}


def png(figure):
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, NAMES),
        ({"storage_dtype": "uint8", "memory_size": 14}, NAMES),
        ({"selection": "herding"}, NAMES),
        ({"optimization": quick(objective="ncm")}, NAMES),
        ({"optimization": None}, NAMES - {"optimization"}),
        ({"exemplars_per_class": 1}, NAMES),
    ],
)
def test_figures_show_the_exemplars_and_leave_all_as_it_was(options, names):
    strategy = trained(mnemonics(**options))
    before, images = weights(strategy), strategy.buffer.images()
    state = torch.get_rng_state()
    figures = strategy.figures(toy_benchmark().test_stream)
    assert set(figures) == names
    assert torch.equal(torch.get_rng_state(), state)
    after = weights(strategy)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    for label, own in strategy.buffer.images().items():
        assert torch.equal(own, images[label])
    assert titles(figures["embedding"]) == ["random", "herding", "mnemonics"]
    assert all(module.training for module in strategy.model.modules())


def test_a_resumed_run_shows_the_same(tmp_path):
    torch.manual_seed(0)
    strategy, stream = mnemonics(), toy_benchmark().train_stream
    strategy.train(stream)
    save_checkpoint(tmp_path / "c.pt", strategy, stream)
    fresh = mnemonics()
    load_checkpoint(tmp_path / "c.pt", fresh, stream)
    found = [each.figures(None) for each in (strategy, fresh)]
    assert found[0].keys() == found[1].keys() == NAMES
    for name in NAMES:
        assert png(found[0][name]) == png(found[1][name]), name


@pytest.mark.parametrize(
    ("shape", "labels", "per_class", "missing"),
    [
        ((5, 6, 6), (0, 1), 6, "exemplars"),
        ((1, 6, 6), (0,), 1, "embedding"),
    ],
)
def test_what_cannot_be_drawn_is_left_out(shape, labels, per_class, missing):
    model = small_model(shape)
    buffer = MnemonicsBuffer("herding", per_class=per_class, optimizer=quick())
    fill(buffer, experience(labels, per_class, shape), host=agent(model))
    figures = mnemonics_figures(buffer, model, torch.device("cpu"))
    assert set(figures) == NAMES - {missing}
