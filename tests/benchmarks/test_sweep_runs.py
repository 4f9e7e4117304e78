"""Sweeps that are killed, with real processes and on a real Ray cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from sweep_runs import (
    EPOCHS,
    OPTIONS,
    RECIPES,
    SECONDS,
    assert_same,
    finished,
    wait_for,
)

from benchmarks.__main__ import main

HERE = Path(__file__).parent
PYTHON = [sys.executable, "-m", "benchmarks"]
pytestmark = pytest.mark.slow
SWEEP = [*OPTIONS, "--set", EPOCHS]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{HERE.parent}",
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Folder of the same runs, one by one and undisturbed, in this process."""
    out = tmp_path_factory.mktemp("reference")
    for recipe in RECIPES:
        arguments = ["run", recipe, *OPTIONS, f"--{EPOCHS}", "--out", str(out)]
        assert main(arguments) == 0
    return out


def sweep_naive(out):
    """A sweep in a process of its own, that says what it has to say into a file."""
    with (out / "said.txt").open("a") as said:
        return psutil.Popen(
            [*PYTHON, "sweep", "naive", *SWEEP, "--jobs", "1", "--out", out],
            stdout=said,
            stderr=said,
            env=ENVIRONMENT,
        )


def record(run):
    """What a run has written."""
    return json.loads((run / "run.json").read_text())


def test_killed_run_is_tried_again_and_a_killed_sweep_takes_its_runs_along(
    reference, tmp_path, capfd
):
    naive = tmp_path / "naive" / "0"
    driver = sweep_naive(tmp_path)
    wait_for(naive, 1)
    [run] = driver.children()
    n = finished(naive)
    run.kill()
    wait_for(naive, n + 1)
    [run] = driver.children()
    driver.kill()
    assert driver.wait(SECONDS) == -signal.SIGKILL
    run.wait(SECONDS)  # else TimeoutExpired
    assert not record(naive)["finished"]
    again = f"naive 0: killed by SIGKILL; trying again after experience {n}\n"
    assert again in (tmp_path / "said.txt").read_text()
    capfd.readouterr()
    words = ["sweep", "naive", *SWEEP, "--jobs", "1", "--out", str(tmp_path)]
    assert main(words) == 0
    assert "1 finished, 0 were finished already" in capfd.readouterr().out
    assert_same(naive, reference / "naive" / "0")
    assert record(naive)["resumed"] == 2


def test_stopped_sweep_stops_its_runs_and_says_how_to_go_on(tmp_path):
    driver = sweep_naive(tmp_path)
    wait_for(tmp_path / "naive" / "0", 1)
    [run] = driver.children()
    driver.terminate()
    assert driver.wait(SECONDS) == 128 + signal.SIGTERM
    assert not run.is_running()
    said = (tmp_path / "said.txt").read_text()
    assert said.endswith(
        "stopped; what was finished is saved, and the same command goes on\n"
    )
    assert "resume with" in (tmp_path / "naive" / "0" / "output.txt").read_text()


def test_ray_cluster_that_loses_a_worker_gives_the_results_of_runs_one_by_one(
    reference, tmp_path
):
    pytest.importorskip("ray")
    if "lo" in psutil.net_if_stats() and not psutil.net_if_stats()["lo"].isup:
        pytest.skip("the machine's loopback interface is down, Ray needs it")
    done = subprocess.run(
        [sys.executable, "ray_cluster.py", *RECIPES, *SWEEP, "--out", tmp_path],
        cwd=HERE,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"code": 0, "nodes": 2}
    assert done.stdout.count("naive 0: WorkerCrashedError") == 1
    assert "2 finished, 0 were finished already, 0 failed" in done.stdout
    for recipe, resumed in zip(RECIPES, (1, 0), strict=True):
        run = tmp_path / recipe / "0"
        assert_same(run, reference / recipe / "0")
        assert record(run)["resumed"] == resumed
