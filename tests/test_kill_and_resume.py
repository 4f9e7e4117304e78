"""A killed run, resumed, equals one that never stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import contract
import pytest
import torch
from subjects import SUBJECTS


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    script = Path(__file__).with_name("kill_and_resume.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        capture_output=True,
        text=True,
        cwd=script.parents[1],
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("subject", SUBJECTS)
def test_killed_and_resumed_equals_never_stopped(subject, runs):
    full, resumed = (
        torch.load(runs / subject / f"{name}.pt", weights_only=True)
        for name in ("full", "resumed")
    )
    contract.assert_equal(resumed["weights"], full["weights"])
    contract.assert_equal(resumed["metrics"], full["metrics"])
