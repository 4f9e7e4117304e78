"""A full disk or a kill while saving leaves the checkpoint that was there."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cases import toy_benchmark
from checkpoint_subjects import counted

from avalanche_ext.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def benchmark():
    return toy_benchmark()


@pytest.fixture(scope="module")
def trained(benchmark):
    """A strategy after two experiences."""
    strategy = counted()
    strategy.train(benchmark.train_stream[:2])
    return strategy


@pytest.fixture
def path(trained, benchmark, tmp_path):
    """A good checkpoint."""
    save_checkpoint(tmp_path / "good.pt", trained, benchmark.train_stream)
    return tmp_path / "good.pt"


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
        with pytest.raises(CheckpointError, match="not written.*File too large"):
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
    load_checkpoint(path, counted(), benchmark.train_stream)
    assert link.is_symlink()


SAVE_FOR_EVER = """
import os, signal, sys, time, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(1)  # a fork must not inherit a thread pool
from cases import toy_benchmark
from checkpoint_subjects import counted
from avalanche_ext.checkpoint import save_checkpoint
benchmark, strategy = toy_benchmark(), counted()
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
    path, tests = tmp_path / "c.pt", Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", SAVE_FOR_EVER, str(path), str(tests)],
        cwd=tests.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(path, counted(), benchmark.train_stream).n_experiences == 1
    assert set(os.listdir(tmp_path)) <= {"c.pt", ".c.pt.tmp"}
