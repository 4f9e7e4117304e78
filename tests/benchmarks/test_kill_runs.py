"""Runs that are stopped in the middle of the second experience."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of the runs, and their exit statuses."""
    folder = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", HERE / "kill_runs.py", folder],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_killed_and_resumed_run_leaves_what_an_undisturbed_one_leaves(runs):
    folder, statuses = runs
    assert statuses["full"] == statuses["resumed"] == 0
    assert statuses["SIGKILL"] == -signal.SIGKILL
    assert statuses["finished before SIGKILL"] == 1
    full, resumed = (folder / n / "lucir_digits/0" for n in ("full", "SIGKILL"))
    for name in ("accuracy.csv", "log.txt"):
        assert (full / name).read_bytes() == (resumed / name).read_bytes()
    records = [json.loads((f / "run.json").read_text()) for f in (full, resumed)]
    assert [record["resumed"] for record in records] == [0, 1]
    for record in records:
        record["command"] = record["command"].replace("SIGKILL", "full")
        for name in ("minutes", "train_seconds", "peak_memory_bytes", "resumed"):
            assert record.pop(name) is not None
    assert records[0] == records[1]
    assert records[0]["finished"] and records[0]["smoke"]


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_stopped_run_says_how_to_go_on(runs, name, status):
    folder, statuses = runs
    assert statuses[name] == status
    said = (folder / f"{name}.txt").read_text()
    typed = "run lucir_digits --smoke --train_epochs 3 --loggers text"
    again = f"python -m benchmarks {typed} --out {folder / name} --resume"
    assert said.endswith(f"resume with\n  {again}\n")
    assert "Traceback" not in said
    record = json.loads((folder / name / "lucir_digits/0/run.json").read_text())
    assert record["experiences_finished"] == 1 and not record["finished"]
