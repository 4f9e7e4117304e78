"""Mnemonics, killed and resumed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import toy_benchmark
from contract import assert_equal, weights
from mnemonics_hosts import mnemonics, quick, train_on, trained

from avalanche_ext.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

OTHER = [
    ({"exemplars_per_class": 5}, "per_class"),
    ({"memory_size": 20}, "memory_size"),
    ({"selection": "herding"}, "Selection.kind"),
    ({"optimization": None}, "Mnemonics.optimization"),
    ({"optimization": quick(lr=0.02)}, "MnemonicsOptimizer.lr"),
    ({"optimization": quick(inner_steps=3)}, "MnemonicsOptimizer.inner_steps"),
    ({"optimization": quick(adjust_old=None)}, "MnemonicsOptimizer.adjust_old"),
    ({"storage_dtype": "uint8"}, "storage_dtype"),
    ({"buffer_transform": None}, "buffer_transform"),
    ({"mean": (0.4,)}, "Mnemonics.mean"),
    ({"std": [1 / 20]}, "Mnemonics.std"),
    ({"distillation": "icarl"}, "plugins"),
    ({"distillation_weight": 4.0}, "LUCIRPlugin.distillation_weight"),
    ({"weight_transfer": False}, "plugins"),
    ({"decay_to_one": True}, "Mnemonics.decay_to_one"),
    ({"finetuning_epochs": 3}, "BalancedFinetuningPlugin.epochs"),
    ({"finetuning_epochs": 0}, "plugins"),
    ({"finetuning_lr": 0.1}, "BalancedFinetuningPlugin.lr"),
    ({"predict": "nearest_mean"}, "NearestExemplarMeanPlugin.predict"),
    ({"second_view": "bgr"}, "NearestExemplarMeanPlugin.second_view"),
    ({"imprint": False}, "plugins"),
    ({"margin": 0.4}, "LUCIRPlugin.margin"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint behind the first experience."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("saved") / "checkpoint.pt"
    save_checkpoint(path, trained(mnemonics(), 1), toy_benchmark().train_stream)
    return path


@pytest.mark.parametrize(("other", "name"), OTHER)
def test_a_checkpoint_of_other_arguments_is_refused(other, name, saved):
    with pytest.raises(CheckpointError, match=f"was saved with .*{name}"):
        load_checkpoint(saved, mnemonics(**other), toy_benchmark().train_stream)


def test_exemplars_their_origin_and_losses_are_restored(saved):
    torch.manual_seed(0)
    wanted = trained(mnemonics(), 1).buffer
    fresh = mnemonics()
    load_checkpoint(saved, fresh, toy_benchmark().train_stream)
    found = fresh.buffer
    assert_equal(found.images(), wanted.images())
    assert_equal(found.initial(0), wanted.initial(0))
    for ours, theirs in zip(found.history.entries, wanted.history.entries, strict=True):
        assert_equal(ours, theirs)
    assert found.memory_bytes() == wanted.memory_bytes()


#: Step: in the second experience 3 and 4 are on new exemplars, 5 to 8 on old ones.
KILLED = [(4, "lucir"), (6, "lucir"), (4, "icarl"), (6, "icarl")]

SCRIPT = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(1)  # a fork must not inherit a thread pool
from kill_and_resume import in_a_process
from mnemonics_hosts import train_on
from pathlib import Path
for case in sys.argv[3:]:
    step, distillation = case.split("-")
    path = Path(sys.argv[1]) / f"{case}.pt"
    status = in_a_process(
        lambda: train_on(path, 0, kill_at=int(step), distillation=distillation)
    )
    assert status == -signal.SIGKILL, status
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folder of what killed processes had saved."""
    folder, tests = tmp_path_factory.mktemp("killed"), Path(__file__).parents[1]
    cases = [f"{step}-{distillation}" for step, distillation in KILLED]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(tests), *cases],
        cwd=tests.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("step", "distillation"), KILLED)
def test_killed_while_exemplars_are_optimised_and_resumed_equals_never_stopped(
    step, distillation, killed, tmp_path
):
    wanted, metrics = train_on(tmp_path / "full.pt", 0, distillation=distillation)
    path = killed / f"{step}-{distillation}.pt"
    resumed, again = train_on(path, 1, seed=99, distillation=distillation)
    assert_equal(weights(resumed), weights(wanted))
    assert_equal(resumed.buffer.images(), wanted.buffer.images())
    assert_equal(again, metrics)
