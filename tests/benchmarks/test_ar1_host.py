"""Avalanche's AR1 around a network that is given to it."""

from __future__ import annotations

import urllib.request
from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from avalanche.models.batch_renorm import BatchRenorm2D
from avalanche.training.plugins import EvaluationPlugin
from torch import nn

from avalanche_ext.models.mobilenet import mobilenet_v1_cifar
from benchmarks.__main__ import main
from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.runs.evaluate import classes_of
from benchmarks.runs.parser import parse
from benchmarks.runs.results import read_matrix
from benchmarks.runs.run import start
from benchmarks.streams import make_stream
from benchmarks.training.ar1_host import SplitNetwork, make_ar1, split_mobilenet


def network(latent_layer="conv3_1.sep"):
    """Eleven blocks for digits, a quarter as wide."""
    torch.manual_seed(0)
    extractor = mobilenet_v1_cifar(in_channels=1, width=0.25)
    head = nn.Linear(extractor.feature_size, 10, bias=False)
    return extractor, split_mobilenet(extractor, latent_layer, head)


@pytest.fixture
def strategy(monkeypatch):
    """AR1; whatever opens a URL fails the test."""
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_: pytest.fail("download"))
    return make_ar1(
        network()[1],
        lr=0.01,
        inc_lr=0.01,
        train_epochs=1,
        train_mb_size=32,
        rm_sz=60,
        evaluator=EvaluationPlugin(),
    )


def test_parts_compute_what_the_whole_does(rng):
    extractor, split = network()
    split.eval(), extractor.eval()
    x = torch.randn(3, 1, 16, 16, generator=rng)
    logits, latents = split(x, return_lat_acts=True)
    torch.testing.assert_close(logits, split.output(extractor(x)))
    assert len(split.lat_features) == 7  # up to block 6
    torch.testing.assert_close(split(x[:1], latent_input=latents[1:]), logits)


def test_images_get_no_gradient_below_once_there_is_memory(rng):
    _, split = network()
    x = torch.randn(3, 1, 16, 16, generator=rng)
    _, latents = split(x, return_lat_acts=True)
    split(x, latent_input=latents.detach()).sum().backward()
    assert all(p.grad is None for p in split.lat_features.parameters())
    assert all(p.grad is not None for p in split.end_features.parameters())


def test_given_network_is_trained_with_batch_renormalisation(strategy):
    norms = [m for m in strategy.model.modules() if "Norm" in type(m).__name__]
    assert not norms
    renorms = [m for m in strategy.model.modules() if isinstance(m, BatchRenorm2D)]
    assert len(renorms) == 11 and isinstance(strategy.model, SplitNetwork)


def test_convolutions_below_are_frozen_from_the_second_experience_on(strategy):
    stream = make_stream("split_digits", class_order="natural").train_stream
    seen = [_convolutions(strategy.model)]
    for experience in stream[:3]:
        strategy.train(experience)
        seen.append(_convolutions(strategy.model))
        assert len(strategy.rm[1]) == 60
    changes = [[not torch.equal(*pair) for pair in zip(*s)] for s in pairwise(seen)]
    assert all(changes[0])
    for later in changes[1:]:
        assert not any(later[:7]) and all(later[7:])


def _convolutions(model):
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    return [conv.weight.detach().clone() for conv in convs]


@pytest.mark.parametrize(
    ("n_lower", "bias", "message"),
    [(0, False, "n_lower is 0; wanted"), (2, False, "n_lower is 2"), (1, True, "bias")],
)
def test_cuts_and_heads_that_make_no_sense_are_refused(n_lower, bias, message):
    blocks = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(UsageError, match=message):
        SplitNetwork(blocks, n_lower, nn.Linear(4, 2, bias=bias))


def test_normalisation_that_avalanche_would_overlook_is_refused():
    norm = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 1, 1), bn=nn.BatchNorm2d(1)))
    head = nn.Linear(1, 2, bias=False)
    assert SplitNetwork(nn.Sequential(norm, nn.Flatten()), 1, head)
    hidden = nn.Sequential(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)))
    with pytest.raises(UsageError, match=r"0\.1 is a normalisation; wanted"):
        SplitNetwork(hidden.append(nn.Flatten()), 1, head)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--latent_layer", "conv9"], "latent_layer is 'conv9'; wanted one of conv1, "),
        (["--network", "small_cnn"], "network is small_cnn; wanted mobilenet"),
        (["--optimizer", "adam"], "optimizer adam"),
    ],
)
def test_options_that_do_not_fit_are_one_line(options, message, tmp_path, capsys):
    arguments = ["run", "avalanche_ar1", "--smoke", "--out", str(tmp_path), *options]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_resumed_run_equals_one_that_never_stopped(tmp_path):
    options = ["--smoke", "--device", "cpu", "--lr", "0.01", "--inc_lr", "0.01"]
    full, cut = tmp_path / "full", tmp_path / "cut"
    assert main(["run", "avalanche_ar1", *options, "--out", str(full)]) == 0
    run = parse(RECIPES["avalanche_ar1"], [*options, "--out", str(cut)])
    stopped = start(run, "")
    run.folder.prepare(run.to_yaml())
    stream = stopped.benchmark.train_stream
    seen = set()
    for experience in stream[:2]:
        seen |= classes_of(experience)
        stopped._one_experience(experience, seen)
    assert main(["run", "avalanche_ar1", "--resume", "--out", str(cut)]) == 0
    rows = [
        read_matrix(f / "avalanche_ar1" / "0" / "accuracy.csv") for f in (full, cut)
    ]
    assert rows[0] == rows[1]
    # whose losses, with all digits, are more sensitive
    logs = [(f / "avalanche_ar1" / "0" / "log.txt").read_text() for f in (full, cut)]
    assert logs[0] == logs[1] and "Loss_Epoch" in logs[0]
