"""A run in the frame of another one: ``--like``, and which baselines can have it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.runs.baseline_names import BASELINES, applicable
from benchmarks.runs.parser import parse
from benchmarks.runs.same_frame import FRAME

FRAME_OF_RUN = {
    "stream": "split_cifar10",
    "n_experiences": 2,
    "class_order": "icarl",
    "stream_seed": 3,
    "network": "resnet8",
    "train_epochs": 7,
    "optimizer": "adam",
    "lr": 0.125,
    "milestones": [4, 6],
    "memory_resident": True,
}
KEPT = {"exemplars": 30_000, "tensors": 720, "frozen_copies": 10**6}


def finished_run(folder, **changes):
    """The folder of a run with these options."""
    record = {
        "recipe": "lucir_cifar100",
        "seed": 5,
        "experiences": 2,
        "experiences_finished": 2,
        "setting": "split_cifar10",
        "memory": "20 exemplars a class",
        "changed": [],
        "metrics": {"final_accuracy": 0.5},
        "test_images": [5000, 5000],
        "minutes": 1.5,
        "finished": True,
        "smoke": False,
        "note": "TIN32",
        "options": {**FRAME_OF_RUN, "exemplars_per_class": 20, "margin": 0.5},
        "memory_bytes": KEPT,
        **changes,
    }
    folder = folder / "lucir_cifar100" / "5"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record))
    return str(folder)


@pytest.fixture
def other(tmp_path):
    return finished_run(tmp_path / "other")


@pytest.mark.parametrize("name", ["naive", "joint", "replay", "ewc", "lwf", "der"])
def test_like_takes_over_the_whole_frame(name, other):
    run = parse(RECIPES[name], ["--like", other])
    frame = {**FRAME_OF_RUN, "milestones": (4, 6)}
    assert {key: run.options[key] for key in frame} == frame
    assert run.settings.note == "TIN32" and not run.settings.smoke
    assert run.settings.seed == 0
    assert set(frame) - {"memory_resident"} <= set(run.changed)


def test_like_takes_over_the_bytes_kept_without_copies_of_networks(other):
    for name in ("replay", "der", "icarl"):
        run = parse(RECIPES[name], ["--like", other])
        assert run.options["memory_bytes"] == 30_720
    assert (
        RECIPES["replay"]
        .setup(**run_options("replay", other))
        .memory.startswith("10 exemplars")
    )


def run_options(name, other):
    return parse(RECIPES[name], ["--like", other]).options


def test_icarl_keeps_its_own_learning_rate_unless_it_is_given(other):
    own = parse(RECIPES["icarl"], []).options["lr"]
    assert run_options("icarl", other)["lr"] == own != FRAME_OF_RUN["lr"]
    given = parse(RECIPES["icarl"], ["--like", other, "--lr", "0.5"])
    assert given.options["lr"] == 0.5


def test_options_given_win_over_those_taken_over(other, tmp_path):
    yaml = tmp_path / "own.yaml"
    yaml.write_text("momentum: 0.5\n")
    arguments = ["--lr=0.5", "--like", other, "--note", "mine", "--config", str(yaml)]
    run = parse(RECIPES["replay"], [*arguments, "--exemplars", "200"])
    assert (run.options["lr"], run.options["momentum"]) == (0.5, 0.5)
    assert run.options["train_epochs"] == 7 and run.settings.note == "mine"
    assert (run.options["exemplars"], run.options["memory_bytes"]) == (200, None)


def test_smoke_is_taken_over_and_wins_if_given(tmp_path, other):
    frame = {**FRAME_OF_RUN, "stream": "split_digits", "train_epochs": 1}
    small = finished_run(tmp_path / "small", smoke=True, options=frame)
    assert parse(RECIPES["naive"], ["--like", small]).settings.smoke
    run = parse(RECIPES["naive"], ["--like", other, "--smoke"])
    assert run.options["stream"] == "split_digits" and run.settings.smoke


def test_avalanches_ar1_takes_over_the_cut_and_the_later_learning_rate(tmp_path):
    options = {"stream": "mnist_nc", "network": "mobilenet_cifar", "lr": 0.02}
    method = {"latent_layer": "conv4_1.dw", "later_lr": 0.005}
    other = finished_run(tmp_path / "ar1", options={**options, **method})
    taken = run_options("avalanche_ar1", other)
    assert taken["latent_layer"] == "conv4_1.dw" and taken["inc_lr"] == 0.005
    assert taken["lr"] == 0.02 and taken["memory_bytes"] == 30_720
    other = finished_run(tmp_path / "ar1", options={**options, "latent_layer": None})
    own = parse(RECIPES["avalanche_ar1"], []).options
    assert run_options("avalanche_ar1", other)["inc_lr"] == own["inc_lr"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finished": False}, "is not finished, so the bytes it keeps are unknown"),
        ({"options": {"margin": 0.5}}, "lucir_cifar100 and replay have no option"),
        ({"memory_bytes": {"frozen_copies": 5}}, "keeps no bytes .*--exemplars"),
        ({"memory_bytes": {"exemplars": 5}}, None),
        (
            {"options": {"network": "resnet9000"}},
            "--network is resnet9000; wanted one of",
        ),
    ],
)
def test_a_run_that_cannot_be_followed_is_named(changes, message, tmp_path):
    other = finished_run(tmp_path / "other", **changes)
    if message is None:  # the recipe says how many bytes it wants
        with pytest.raises(UsageError, match="memory_bytes is 5; wanted at least"):
            RECIPES["replay"].setup(**run_options("replay", other))
        return
    with pytest.raises(UsageError, match=message) as error:
        parse(RECIPES["replay"], ["--like", other])
    assert "\n" not in str(error.value)


def test_a_run_in_a_folder_of_another_name_is_named(other, tmp_path):
    Path(other).rename(tmp_path / "best")
    with pytest.raises(
        UsageError, match="run of lucir_cifar100; wanted it in a folder"
    ):
        parse(RECIPES["replay"], ["--like", str(tmp_path / "best")])


def test_a_folder_that_holds_no_run_is_named(tmp_path):
    with pytest.raises(
        UsageError, match="holds no run.json; wanted the folder of a run"
    ):
        parse(RECIPES["replay"], ["--like", str(tmp_path)])


def test_resumed_the_saved_options_stand_though_the_other_run_has_changed(tmp_path):
    other = finished_run(tmp_path / "other")
    here = ["--like", other, "--out", str(tmp_path / "out")]
    run = parse(RECIPES["replay"], here)
    run.folder.prepare(run.to_yaml())
    finished_run(tmp_path / "other", options={"train_epochs": 99}, note="")
    again = parse(RECIPES["replay"], [*here, "--resume"])
    assert again.options == run.options and again.settings.note == "TIN32"
    assert run.like == again.like == "lucir_cifar100"
    elsewhere = finished_run(tmp_path / "moved")
    again = parse(RECIPES["replay"], ["--like", elsewhere, *here[2:], "--resume"])
    assert again.settings.like == run.settings.like


def test_a_method_and_a_baseline_like_it_run_with_the_same_bytes(tmp_path):
    small = ["--out", str(tmp_path), "--loggers", "text"]
    assert main(["run", "lucir_digits", "--smoke", *small]) == 0
    folder = tmp_path / "lucir_digits" / "0"
    assert main(["run", "replay", "--like", str(folder), *small]) == 0
    theirs, ours = (
        json.loads((tmp_path / name / "0" / "run.json").read_text())
        for name in ("lucir_digits", "replay")
    )
    assert ours["smoke"] and ours["setting"] == theirs["setting"]
    assert ours["like"] == "lucir_digits" and theirs["like"] is None
    wanted = sum(n for k, n in theirs["memory_bytes"].items() if k != "frozen_copies")
    assert 0 <= wanted - ours["memory_bytes"]["exemplars"] < 64


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"network": "resnet32"}, {"avalanche_ar1"}),
        ({"task_labels": True}, {"lwf", "icarl", "der", "avalanche_ar1"}),
        (
            {"task_labels": True, "train_mb_size": 2},
            {"joint", "lwf", "icarl", "der", "avalanche_ar1"},
        ),
        ({"stream": "mnist_nc", "network": "mobilenet_cifar"}, set()),
        ({"stream": "mnist_nic", "network": "mobilenet_cifar"}, {"icarl"}),
        (
            {"stream": "core50_nicv2_391", "network": "mobilenet", "milestones": [2]},
            {"icarl", "avalanche_ar1"},
        ),
        ({"stream": "image_folder"}, {"icarl", "der", "avalanche_ar1"}),
        ({"network": "mlp", "lr": 0.1, "margin": 0.5}, {"avalanche_ar1"}),
    ],
)
def test_baselines_apply_where_they_can_be_set_up(options, missing):
    names = applicable(options)
    assert set(BASELINES) - set(names) == missing
    assert names == [name for name in BASELINES if name in names]


def test_the_names_of_baselines_are_recipes_with_a_frame():
    for name in BASELINES:
        assert set(FRAME) <= set(parse(RECIPES[name], []).options)


def test_names_of_baselines_cost_no_torch():
    code = "import sys; from benchmarks.runs.baseline_names import applicable as a; "
    code += "a({}); print({'torch', 'avalanche', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout == "set()\n", done.stderr
