"""CwD and BDR over several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one process saw alone, and each of two together."""
    folder = tmp_path_factory.mktemp("two_processes")
    subprocess.run([sys.executable, str(SCRIPT), str(folder)], check=True, timeout=300)
    return [torch.load(folder / f"{name}.pt") for name in ("alone", "0", "1")]


def test_every_process_holds_the_same_offsets(runs):
    _, first, second = runs
    assert len(first["offsets"]) == 5  # 2 and 3 batches
    for ours, theirs in zip(first["offsets"], second["offsets"]):
        assert torch.equal(ours, theirs)
    assert first["offsets"][-1].abs().min() > 0


def test_together_they_see_what_one_process_sees(runs):
    alone, first, _ = runs
    for ours, wanted in zip(first["offsets"], alone["offsets"]):
        assert_close(ours, wanted, rtol=0, atol=1e-6)
    for ours, wanted in zip(first["gradients"], alone["gradients"]):
        assert_close(ours, wanted, rtol=1e-4, atol=1e-6)
