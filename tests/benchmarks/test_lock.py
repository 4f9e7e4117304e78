"""Two processes never write into the folder of one run."""

from __future__ import annotations

import signal
import subprocess
import sys

from benchmarks.__main__ import main
from benchmarks.runs.lock import locked

KILLED = """
import os, signal, sys
from pathlib import Path
from benchmarks.runs.lock import locked
with locked(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_second_process_is_refused_before_any_work(tmp_path, capsys):
    arguments = ["run", "naive", "--smoke", "--out", str(tmp_path)]
    folder = tmp_path / "naive" / "0"
    with locked(folder):
        for resume in ([], ["--resume"]):
            assert main([*arguments, *resume]) == 2
        assert [path.name for path in folder.iterdir()] == [".lock"]
    err = capsys.readouterr().err
    line = f"error: {folder} is being written by another process; wanted its end, or "
    assert err == 2 * f"{line}another --out\n"


def test_nothing_is_left_where_nothing_was_written(tmp_path):
    with locked(tmp_path / "out" / "naive" / "0"):
        (tmp_path / "out" / "log").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "log"]


def test_a_killed_process_locks_nothing(tmp_path):
    child = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert child.returncode == -signal.SIGKILL and (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
