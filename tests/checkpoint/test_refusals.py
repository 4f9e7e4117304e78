"""What a checkpoint refuses, by name, leaving files and strategies as they were."""

from __future__ import annotations

import os
import pickle
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.training.plugins import AGEMPlugin, ReplayPlugin
from avalanche.training.supervised import Naive
from cases import naive_with, toy_benchmark, toy_model
from checkpoint_subjects import Counted, counted
from contract import assert_equal, weights
from subjects import SUBJECTS
from torch import nn, optim

from avalanche_ext.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from avalanche_ext.plugins import CwDPlugin, LUCIRPlugin


@pytest.fixture(scope="module")
def benchmark():
    return toy_benchmark()


@pytest.fixture(scope="module")
def trained(benchmark):
    """A strategy after two experiences; no test changes it."""
    strategy = counted()
    strategy.train(benchmark.train_stream[:2])
    return strategy


@pytest.fixture
def path(trained, benchmark, tmp_path):
    """A good checkpoint."""
    save_checkpoint(tmp_path / "good.pt", trained, benchmark.train_stream)
    return tmp_path / "good.pt"


@contextmanager
def refused(strategy, message):
    """A `CheckpointError` that leaves the strategy and the generators as they were."""
    parameters = dict(strategy.model.named_parameters())
    before = {**weights(strategy), "generator": torch.get_rng_state()}
    plugins, count = list(strategy.plugins), strategy.plugins[0].count
    with pytest.raises(CheckpointError, match=message):
        yield
    after = {**weights(strategy), "generator": torch.get_rng_state()}
    assert_equal(after, before)
    assert all(p is parameters[n] for n, p in strategy.model.named_parameters())
    assert (strategy.plugins, strategy.plugins[0].count) == (plugins, count)


def rewrite(path: Path, **changes: Any) -> None:
    """Change the header of a checkpoint."""
    content = torch.load(path, weights_only=True)
    content["header"].update(changes)
    torch.save(content, path)


class Trap:
    """Writes a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def damaged_files() -> dict[str, Any]:
    def flipped(path):
        data = bytearray(path.read_bytes())
        data[data.index(b"archive/data/1") + 400] ^= 1
        path.write_bytes(data)

    def truncated(share):
        return lambda path: path.write_bytes(
            path.read_bytes()[: int(share * path.stat().st_size)]
        )

    def pickled(path):
        path.write_bytes(pickle.dumps(Trap(path.with_name("trapped"))))

    return {
        "missing": Path.unlink,
        "a folder": lambda path: (path.unlink(), path.mkdir()),
        "empty": lambda path: path.write_bytes(b""),
        "truncated early": truncated(0.2),
        "truncated late": truncated(0.99),
        "random bytes": lambda path: path.write_bytes(os.urandom(5000)),
        "a flipped bit": flipped,
        "a state_dict": lambda path: torch.save(toy_model().state_dict(), path),
        "a tensor": lambda path: torch.save(torch.ones(3), path),
        "a whole model": lambda path: torch.save(toy_model(), path),
        "a pickle": pickled,
        "code in a torch file": lambda path: torch.save(
            {"magic": Trap(path.with_name("trapped"))}, path
        ),
    }


@pytest.mark.parametrize("damage", damaged_files())
def test_no_checkpoint_is_refused(damage, path, benchmark):
    damaged_files()[damage](path)
    strategy = counted()
    with refused(strategy, r"good\.pt (is|holds)"):
        load_checkpoint(path, strategy, benchmark.train_stream)
    assert not path.with_name("trapped").exists()


def test_newer_format_is_refused(path, benchmark):
    rewrite(path, format=99, version="7.0")
    strategy = counted()
    with refused(strategy, "format 99, written by version 7.0; wanted 1"):
        load_checkpoint(path, strategy, benchmark.train_stream)


class Other(Naive):
    pass


def wider() -> nn.Module:
    model = toy_model()
    model.feature_extractor[4] = nn.Linear(16, 9)
    return model


def with_adam() -> Any:
    strategy = counted()
    strategy.optimizer = optim.Adam(strategy.model.parameters())
    return strategy


def as_class(cls: type) -> Any:
    strategy = counted()
    strategy.__class__ = cls
    return strategy


OTHERS = {
    "strategy": (lambda: as_class(Other), "strategy Naive; this run has Other"),
    "plugins": (
        lambda: counted(ReplayPlugin(12), Counted()),
        r"plugins \['Counted', 'ReplayPlugin', .*; this run has \['ReplayPlugin'",
    ),
    "model": (
        lambda: counted(model=nn.Sequential(nn.Flatten(), nn.Linear(36, 6))),
        "model FeatureClassifier; this run has Sequential",
    ),
    "optimizer": (with_adam, "optimizer SGD; this run has Adam"),
    "width": (
        lambda: counted(model=wider()),
        r"shape \[8, 16\] of parameter feature_extractor.4.weight; .* has \[9, 16\]",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_checkpoint_of_another_strategy_is_refused(other, path, benchmark):
    build, message = OTHERS[other]
    strategy = build()
    strategy.plugins[0].count = 0
    with refused(strategy, message):
        load_checkpoint(path, strategy, benchmark.train_stream)


def test_other_stream_is_refused(path, benchmark):
    strategy, stream = counted(), list(benchmark.train_stream)
    with refused(strategy, r"classes by experience \[\[0, 1\], \[2, 3\]\]; this run"):
        load_checkpoint(path, strategy, stream[::-1])
    with refused(strategy, "stream has 1 experiences; wanted at least 2"):
        load_checkpoint(path, strategy, stream[:1])
    shuffled = [
        SimpleNamespace(dataset=e.dataset.subset(range(len(e.dataset))[::-1]))
        for e in stream
    ]
    for ours, theirs in zip(shuffled, stream, strict=True):
        ours.classes_in_this_experience = theirs.classes_in_this_experience
    with refused(strategy, "other samples in experience 0, or in another order"):
        load_checkpoint(path, strategy, shuffled)


def test_trained_strategy_is_refused(path, trained, benchmark):
    with refused(trained, "was trained on 2 experiences; wanted a new one"):
        load_checkpoint(path, trained, benchmark.train_stream)


def test_move_from_cpu_to_another_device_is_refused(path, benchmark):
    strategy = counted()
    strategy.device = torch.device("meta")
    with refused(strategy, "device cpu; this strategy has meta"):
        load_checkpoint(path, strategy, benchmark.train_stream)


@pytest.mark.parametrize("callback", ["before_training", "after_training_exp"])
def test_saving_and_loading_inside_an_experience_are_refused(callback, path, benchmark):
    errors = []

    class Hasty(Counted):
        pass

    def act(self, strategy, **kwargs):
        for action in (save_checkpoint, load_checkpoint):
            with pytest.raises(CheckpointError, match="only between experiences") as e:
                action(path, strategy, benchmark.train_stream)
            errors.append(e)

    setattr(Hasty, callback, act)
    counted(Hasty()).train(benchmark.train_stream[0])
    assert len(errors) == 2


def test_saving_inside_an_evaluation_is_refused(path, benchmark):
    class Hasty(Counted):
        def before_eval(self, strategy, **kwargs):
            save_checkpoint(path, strategy, benchmark.train_stream)

    with pytest.raises(CheckpointError, match="only between experiences"):
        counted(Hasty()).eval(benchmark.test_stream)


class Foreign:
    """A class of nobody's the package knows."""

    def __init__(self, content: Any = 1) -> None:
        self.content = content


class Words(list):
    pass


UNSAVABLE = {
    "an iterator": (iter([1]), r"\.kept is a list_iterator: a running iterator"),
    "a generator": ((i for i in [1]), r"\.kept is a generator: a running iterator"),
    "an object in a list": ([Foreign()], r"\.kept\[0\] is a Foreign: nothing tells"),
    "an object in a dict": ({5: Foreign()}, r"\.kept\[5\] is a Foreign: nothing tells"),
    "a kind of list": (Words([1]), r"\.kept is a Words: it is an unknown kind of list"),
    "far inside": (Foreign({2: Foreign()}), r"\.kept\.content\[2\] is a Foreign"),
}


@pytest.mark.parametrize("kept", UNSAVABLE)
def test_what_cannot_be_saved_is_named_and_the_file_kept(kept, path, benchmark):
    content, message = UNSAVABLE[kept]
    good = path.read_bytes()
    strategy = counted(Counted(kept=content))
    with pytest.raises(
        CheckpointError, match=r"strategy\.plugins\[0\] \(Counted\)" + message
    ):
        save_checkpoint(path, strategy, benchmark.train_stream)
    assert path.read_bytes() == good


def test_running_iterator_of_a_host_plugin_is_named(path, benchmark):
    strategy = counted(AGEMPlugin(8, 8))
    strategy.train(benchmark.train_stream[0])
    with pytest.raises(CheckpointError, match=r"\(AGEMPlugin\)\.buffer_dliter"):
        save_checkpoint(path, strategy, benchmark.train_stream)


def test_extra_takes_plain_data_only(path, trained, benchmark):
    with pytest.raises(CheckpointError, match=r"extra\['a'\] is a Foreign"):
        save_checkpoint(path, trained, benchmark.train_stream, extra={"a": Foreign()})


def test_handles_and_functions_stay_as_constructed(tmp_path, benchmark):
    path = tmp_path / "c.pt"
    kept = {"kept": [print, lambda: 1], "lock": threading.Lock(), "own": Foreign()}
    strategy = counted(Counted(**kept))
    strategy.plugins[0].own.content = {"changed": (1, 2)}
    strategy.model.register_forward_hook(print)
    save_checkpoint(path, strategy, benchmark.train_stream)
    own, function = Foreign(), lambda: 2
    strategy = counted(Counted(kept=[print, function], lock=None, own=own))
    load_checkpoint(path, strategy, benchmark.train_stream)
    plugin = strategy.plugins[0]
    assert plugin.kept == [print, function] and plugin.lock is None
    assert plugin.own is own and own.content == {"changed": (1, 2)}
    assert not strategy.model._forward_hooks


@pytest.mark.parametrize("kept", [Foreign(), lambda: 1])
def test_object_without_counterpart_is_named_when_loading(kept, path, benchmark):
    strategy = counted(Counted(kept=kept))
    strategy.train(benchmark.train_stream[0])
    save_checkpoint(path, strategy, benchmark.train_stream)
    strategy = counted(Counted())
    with refused(strategy, r"\(Counted\)\.kept was a \w+ when it was saved"):
        load_checkpoint(path, strategy, benchmark.train_stream)


def test_stream_shorter_than_the_training_is_refused(path, trained, benchmark):
    good = path.read_bytes()
    with pytest.raises(CheckpointError, match="1 experiences; wanted at least 2"):
        save_checkpoint(path, trained, benchmark.train_stream[:1])
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    ("saved", "ours", "message"),
    [
        ({}, {"exemplars_per_class": 3}, r"HerdingBuffer.per_class = 5; .* has 3"),
        ({}, {"memory_size": 9, "exemplars_per_class": None}, "per_class = 5; .* None"),
        ({}, {"margin": 0.1}, r"LUCIRPlugin.margin = 0.5; this run has 0.1"),
        ({"herding": "lucir"}, {}, "variant = 'lucir'"),
    ],
)
def test_other_arguments_of_our_plugins_are_refused(saved, ours, message, tmp_path):
    stream, path = toy_benchmark().train_stream, tmp_path / "c.pt"
    strategy = SUBJECTS["LUCIR"](**saved)
    strategy.train(stream[0])
    save_checkpoint(path, strategy, stream)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path, SUBJECTS["LUCIR"](**ours), stream)
    load_checkpoint(path, SUBJECTS["LUCIR"](**saved), stream)


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        ({"strength": 5.0}, r"LeftOutEWCPlugin.strength = \(1.0,\); .* has \(5.0,\)"),
        ({"memory_size": 7}, "MemorablePastBuffer.size = 6; this run has 7"),
        (
            {"generator": torch.Generator()},
            "saved without a generator; wanted the same",
        ),
    ],
)
def test_other_priors_and_memories_are_refused(ours, message, tmp_path):
    stream, path = toy_benchmark().train_stream, tmp_path / "c.pt"
    strategy = SUBJECTS["EWCFRReplay"]()
    strategy.train(stream[0])
    save_checkpoint(path, strategy, stream)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path, SUBJECTS["EWCFRReplay"](**ours), stream)


def test_numbers_of_numpy_are_arguments_like_any_other(tmp_path):
    def made(weight, coefs):
        plugins = [LUCIRPlugin(distillation_weight=weight), *map(CwDPlugin, coefs)]
        return naive_with(*plugins)

    strategy, stream = made(np.float64(4), [0.5, 0.1]), toy_benchmark().train_stream
    strategy.train(stream[0])
    save_checkpoint(tmp_path / "c.pt", strategy, stream)
    load_checkpoint(tmp_path / "c.pt", made(4.0, [0.5, 0.1]), stream)
    for ours, message in (
        (
            made(np.float32(3), [0.5, 0.1]),
            "distillation_weight = 4.0; this run has 3.0",
        ),
        (made(4.0, [0.7, 0.1]), "CwDPlugin.coef = 0.5; this run has 0.7"),
        (made(4.0, [0.5, 0.2]), r"CwDPlugin\[2\].coef = 0.1; this run has 0.2"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(tmp_path / "c.pt", ours, stream)
