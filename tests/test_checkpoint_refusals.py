"""What a checkpoint refuses, by name, leaving files and strategies as they were."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import AGEMPlugin, ReplayPlugin
from avalanche.training.supervised import Naive
from cases import naive_with, toy_benchmark, toy_model
from contract import assert_equal, weights
from torch import nn, optim

from avalanche_ext.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


class Counter(SupervisedPlugin):
    """Counts experiences, and keeps what a test wants."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.count, self.kept = 0, None
        vars(self).update(attributes)

    def after_training_exp(self, strategy, **kwargs):
        self.count += 1


def make(*plugins: Any, **options: Any) -> Any:
    return naive_with(*(plugins or (Counter(), ReplayPlugin(12))), **options)


@pytest.fixture(scope="module")
def benchmark():
    return toy_benchmark()


@pytest.fixture(scope="module")
def trained(benchmark):
    """A strategy after two experiences; no test changes it."""
    strategy = make()
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
    strategy = make()
    with refused(strategy, r"good\.pt (is|holds)"):
        load_checkpoint(path, strategy, benchmark.train_stream)
    assert not path.with_name("trapped").exists()


def test_newer_format_is_refused(path, benchmark):
    rewrite(path, format=99, version="7.0")
    strategy = make()
    with refused(strategy, "format 99, written by version 7.0; wanted 1"):
        load_checkpoint(path, strategy, benchmark.train_stream)


class Other(Naive):
    pass


def wider() -> nn.Module:
    model = toy_model()
    model.feature_extractor[4] = nn.Linear(16, 9)
    return model


def with_adam() -> Any:
    strategy = make()
    strategy.optimizer = optim.Adam(strategy.model.parameters())
    return strategy


def as_class(cls: type) -> Any:
    strategy = make()
    strategy.__class__ = cls
    return strategy


OTHERS = {
    "strategy": (lambda: as_class(Other), "strategy Naive; this run has Other"),
    "plugins": (
        lambda: make(ReplayPlugin(12), Counter()),
        r"plugins \['Counter', 'ReplayPlugin', .*; this run has \['ReplayPlugin'",
    ),
    "model": (
        lambda: make(model=nn.Sequential(nn.Flatten(), nn.Linear(36, 6))),
        "model FeatureClassifier; this run has Sequential",
    ),
    "optimizer": (with_adam, "optimizer SGD; this run has Adam"),
    "width": (
        lambda: make(model=wider()),
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
    strategy, stream = make(), list(benchmark.train_stream)
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
    strategy = make()
    strategy.device = torch.device("meta")
    with refused(strategy, "device cpu; this strategy has meta"):
        load_checkpoint(path, strategy, benchmark.train_stream)


@pytest.mark.parametrize("callback", ["before_training", "after_training_exp"])
def test_saving_and_loading_inside_an_experience_are_refused(callback, path, benchmark):
    errors = []

    class Hasty(Counter):
        pass

    def act(self, strategy, **kwargs):
        for action in (save_checkpoint, load_checkpoint):
            with pytest.raises(CheckpointError, match="only between experiences") as e:
                action(path, strategy, benchmark.train_stream)
            errors.append(e)

    setattr(Hasty, callback, act)
    make(Hasty()).train(benchmark.train_stream[0])
    assert len(errors) == 2


def test_saving_inside_an_evaluation_is_refused(path, benchmark):
    class Hasty(Counter):
        def before_eval(self, strategy, **kwargs):
            save_checkpoint(path, strategy, benchmark.train_stream)

    with pytest.raises(CheckpointError, match="only between experiences"):
        make(Hasty()).eval(benchmark.test_stream)


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
    strategy = make(Counter(kept=content))
    with pytest.raises(
        CheckpointError, match=r"strategy\.plugins\[0\] \(Counter\)" + message
    ):
        save_checkpoint(path, strategy, benchmark.train_stream)
    assert path.read_bytes() == good


def test_running_iterator_of_a_host_plugin_is_named(path, benchmark):
    strategy = make(AGEMPlugin(8, 8))
    strategy.train(benchmark.train_stream[0])
    with pytest.raises(CheckpointError, match=r"\(AGEMPlugin\)\.buffer_dliter"):
        save_checkpoint(path, strategy, benchmark.train_stream)


def test_extra_takes_plain_data_only(path, trained, benchmark):
    with pytest.raises(CheckpointError, match=r"extra\['a'\] is a Foreign"):
        save_checkpoint(path, trained, benchmark.train_stream, extra={"a": Foreign()})


def test_handles_and_functions_stay_as_constructed(tmp_path, benchmark):
    path = tmp_path / "c.pt"
    kept = {"kept": [print, lambda: 1], "lock": threading.Lock(), "own": Foreign()}
    strategy = make(Counter(**kept))
    strategy.plugins[0].own.content = {"changed": (1, 2)}
    save_checkpoint(path, strategy, benchmark.train_stream)
    own, function = Foreign(), lambda: 2
    strategy = make(Counter(kept=[print, function], lock=None, own=own))
    load_checkpoint(path, strategy, benchmark.train_stream)
    plugin = strategy.plugins[0]
    assert plugin.kept == [print, function] and plugin.lock is None
    assert plugin.own is own and own.content == {"changed": (1, 2)}


@pytest.mark.parametrize("kept", [Foreign(), lambda: 1])
def test_object_without_counterpart_is_named_when_loading(kept, path, benchmark):
    save_checkpoint(path, make(Counter(kept=kept)), benchmark.train_stream)
    strategy = make(Counter())
    with refused(strategy, r"\(Counter\)\.kept was a \w+ when it was saved"):
        load_checkpoint(path, strategy, benchmark.train_stream)


def test_stream_shorter_than_the_training_is_refused(path, trained, benchmark):
    good = path.read_bytes()
    with pytest.raises(CheckpointError, match="1 experiences; wanted at least 2"):
        save_checkpoint(path, trained, benchmark.train_stream[:1])
    assert path.read_bytes() == good


def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_written(content: Any, file: Any) -> None:
    file.write(b"half of it")
    full_disk()


@pytest.mark.parametrize(
    ("function", "failure"),
    [("torch.save", half_written), ("os.fsync", full_disk), ("os.replace", full_disk)],
)
def test_full_disk_leaves_the_old_checkpoint(
    function, failure, path, trained, benchmark, monkeypatch
):
    good = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(function, failure)
        with pytest.raises(CheckpointError, match="No space left on device"):
            save_checkpoint(path, trained, benchmark.train_stream)
    assert path.read_bytes() == good
    assert os.listdir(path.parent) == [path.name]


def test_real_limit_on_the_size_of_files_leaves_the_old_checkpoint(
    path, trained, benchmark
):
    good = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(good) // 2, limits[1]))
        with pytest.raises(CheckpointError, match="not written, an older one is as"):
            save_checkpoint(path, trained, benchmark.train_stream)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == good
    assert os.listdir(path.parent) == [path.name]


def test_missing_folder_is_named(trained, benchmark, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        save_checkpoint(tmp_path / "nowhere" / "c.pt", trained, benchmark.train_stream)


def test_link_to_a_checkpoint_stays_a_link(path, trained, benchmark):
    link = path.with_name("link.pt")
    link.symlink_to(path)
    path.write_bytes(b"")
    save_checkpoint(link, trained, benchmark.train_stream)
    load_checkpoint(path, make(), benchmark.train_stream)
    assert link.is_symlink()


SAVE_FOR_EVER = """
import os, signal, sys, time, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(1)  # a fork must not inherit a thread pool
from test_checkpoint_refusals import make, save_checkpoint, toy_benchmark
benchmark, strategy = toy_benchmark(), make()
strategy.train(benchmark.train_stream[0])
extra = {"size": torch.zeros(200_000)}
start = time.perf_counter()
save_checkpoint(sys.argv[1], strategy, benchmark.train_stream, extra=extra)
seconds = time.perf_counter() - start
for attempt in range(8):
    child = os.fork()
    while not child:
        save_checkpoint(sys.argv[1], strategy, benchmark.train_stream, extra=extra)
    time.sleep(seconds * (0.5 + attempt / 6))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    torch.load(sys.argv[1], weights_only=True)["table"]
"""


def test_killed_while_saving_leaves_a_whole_checkpoint(benchmark, tmp_path):
    path, tests = tmp_path / "c.pt", Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", SAVE_FOR_EVER, str(path), str(tests)],
        cwd=tests.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(path, make(), benchmark.train_stream).n_experiences == 1
    assert set(os.listdir(tmp_path)) <= {"c.pt", ".c.pt.tmp"}
