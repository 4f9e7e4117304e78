"""Runs from start to end, in this process."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from avalanche_ext import checkpoint
from avalanche_ext._finite import FiniteTerm
from benchmarks.__main__ import main
from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.runs.results import read_matrix
from benchmarks.runs.run import choose_device, choose_loggers
from benchmarks.runs.stopping import sigterm_interrupts

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAIVE = ["run", "naive", "--smoke", "--device", "cpu"]
PICTURES = {
    "rerelrp": {"capacity", "heatmaps"},
    "mnemonics": {"exemplars", "embedding", "margins", "optimization"},
}


def files(folder):
    """Contents of all files below a folder."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def metrics(folder):
    """Metrics in the one run.json below a folder."""
    [path] = folder.rglob("run.json")
    return json.loads(path.read_text())["metrics"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a finished smoke run of Naive."""
    out = tmp_path_factory.mktemp("finished")
    assert main([*NAIVE, "--out", str(out)]) == 0
    return out / "naive" / "0"


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it that a test may change, and the folder given to --out."""
    folder = tmp_path / "naive" / "0"
    folder.mkdir(parents=True)
    for path, content in files(finished).items():
        (folder / path.name).write_bytes(content)
    return folder, ["--out", str(tmp_path)]


BASES = {recipe.base for recipe in RECIPES.values()}


@pytest.mark.parametrize("recipe", sorted(BASES - {"naive", "lucir_digits"}))
def test_smoke_run_of_each_recipe_leaves_all_files(recipe, tmp_path, capsys):
    arguments = ["run", recipe, "--smoke", "--seed", "3", "--out", str(tmp_path)]
    small = ["--network", "small_cnn"] if recipe == "lucir_cifar100" else []
    assert main([*arguments, *small]) == 0
    folder = tmp_path / recipe / "3"
    names = {"run.json", "accuracy.csv", "checkpoint.pt", "config.yaml", "log.txt"}
    drawn = PICTURES.get(recipe.split("_")[0], set())
    folders = {"pictures"} if drawn else set()
    assert {path.name for path in folder.iterdir()} == names | folders
    assert {path.stem for path in folder.glob("pictures/*.png")} == drawn
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 6 and lines[4].startswith("experience 5 of 5: ") and not err
    record = json.loads((folder / "run.json").read_text())
    assert record["smoke"] and record["finished"] and record["seed"] == 3


def test_record_says_what_was_run_on_what_and_how_well(finished):
    record = json.loads((finished / "run.json").read_text())
    saved = yaml.safe_load((finished / "config.yaml").read_text())
    matrix = read_matrix(finished / "accuracy.csv")
    assert record["options"].items() <= saved.items() and saved["smoke"]
    assert record["command"].startswith("python -m benchmarks run naive --smoke")
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert record["hardware"]["device"] == "cpu"
    assert record["minutes"] > 0 and record["peak_memory_bytes"]["ram"] > 2**26
    assert record["memory_bytes"] == {}
    assert sum(record["test_images"]) == 355 and len(matrix) == 5
    cells = zip(matrix[-1], record["test_images"], strict=True)
    slow = sum(a * n for a, n in cells) / 355
    assert record["metrics"]["final_accuracy"] == pytest.approx(slow)
    assert [row.count(None) for row in matrix] == [4, 3, 2, 1, 0]


def test_same_seed_gives_the_same_run_whatever_was_drawn_before(finished, tmp_path):
    torch.rand(7), np.random.rand(7), random.random()
    assert main([*NAIVE, "--out", str(tmp_path)]) == 0
    again = tmp_path / "naive" / "0"
    for name in ("accuracy.csv", "log.txt"):
        assert (again / name).read_bytes() == (finished / name).read_bytes()


def test_other_seed_and_the_choice_of_loggers_change_only_what_they_should(
    finished, tmp_path
):
    assert main([*NAIVE, "--loggers", "csv", "--out", str(tmp_path / "a")]) == 0
    assert main([*NAIVE, "--seed", "1", "--out", str(tmp_path / "b")]) == 0
    assert metrics(tmp_path / "a") == metrics(finished)
    assert metrics(tmp_path / "b") != metrics(finished)
    assert (tmp_path / "a" / "naive" / "0" / "eval_results.csv").exists()


def test_results_are_never_overwritten_without_resume(copied, capsys):
    folder, out = copied
    before = files(folder)
    assert main([*NAIVE, *out]) == 2
    assert files(folder) == before
    err = capsys.readouterr().err
    assert "--resume" in err and "--out" in err and err.count("\n") == 1


def test_finished_run_is_left_as_it_is(copied, capsys):
    folder, out = copied
    before = files(folder)
    assert main(["run", "naive", "--resume", *out]) == 0
    assert files(folder) == before
    assert "is finished already" in capsys.readouterr().out


def test_files_lost_after_the_last_checkpoint_come_back(copied):
    folder, out = copied
    before = files(folder)
    for name in ("run.json", "accuracy.csv"):
        (folder / name).unlink()
    assert main(["run", "naive", "--resume", *out]) == 0
    assert (folder / "accuracy.csv").read_bytes() == before[folder / "accuracy.csv"]
    assert metrics(folder) == json.loads(before[folder / "run.json"])["metrics"]


def test_resume_without_anything_saved_starts(tmp_path, capsys):
    assert main([*NAIVE, "--resume", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("no experience is saved in ") and "experience 1 of 5" in out


def test_resume_without_the_checkpoint_overwrites_no_results(copied, capsys):
    folder, out = copied
    (folder / "checkpoint.pt").unlink()
    (folder / "run.json").unlink()
    before = files(folder)
    assert main(["run", "naive", "--resume", *out]) == 2
    assert files(folder) == before
    wanted = f"no checkpoint.pt in {folder}, but accuracy.csv has 5 rows; wanted the"
    assert wanted in capsys.readouterr().err


@pytest.mark.parametrize("damage", [b"", b"no checkpoint", None])
def test_damaged_checkpoint_is_refused_and_nothing_overwritten(copied, damage, capsys):
    folder, out = copied
    path = folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-999] if damage is None else damage)
    (folder / "run.json").unlink()
    before = files(folder)
    assert main(["run", "naive", "--resume", *out]) == 2
    assert files(folder) == before
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "checkpoint.pt" in err
    assert "Traceback" not in err


def test_full_disk_keeps_the_last_checkpoint_and_says_so(tmp_path, monkeypatch, capsys):
    save, calls = checkpoint.save_checkpoint, []

    def full_at_the_second(path, *arguments, **options):
        calls.append(path)
        if len(calls) == 2:
            raise checkpoint.CheckpointError(f"{path} not written: no space")
        save(path, *arguments, **options)

    monkeypatch.setattr(checkpoint, "save_checkpoint", full_at_the_second)
    assert main([*NAIVE, "--out", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "no space" in err and "Traceback" not in err
    assert err.endswith(
        "resume with\n"
        f"  python -m benchmarks {' '.join(NAIVE)} --out {tmp_path} --resume\n"
    )
    assert len(metrics(tmp_path)["accuracy_over_experiences"]) == 1


def test_what_our_code_says_is_one_line_and_a_defect_a_traceback(
    tmp_path, monkeypatch, capsys
):
    def diverge(*_, **__):
        term = FiniteTerm("the loss")
        term.look_at(torch.tensor(torch.nan))

    def fail(*_, **__):
        raise ValueError("a defect")

    monkeypatch.setattr("benchmarks.runs.run.accuracy_row", diverge)
    assert main([*NAIVE, "--out", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: the loss is not finite; wanted a finite number: did ")
    assert "start again with\n  python -m benchmarks run naive" in err
    monkeypatch.setattr("benchmarks.runs.run.accuracy_row", fail)
    with pytest.raises(ValueError, match="a defect"):
        main([*NAIVE, "--out", str(tmp_path)])


def test_failure_of_any_kind_says_how_to_resume(copied, monkeypatch, capsys):
    folder, out = copied
    (folder / "run.json").unlink()

    def run_out_of_memory(*arguments, **options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(checkpoint, "load_checkpoint", run_out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        main(["run", "naive", "--resume", *out])
    assert (
        "failed; the experiences finished so far are saved" in capsys.readouterr().err
    )


def test_missing_data_are_named_before_anything_is_written(tmp_path, capsys):
    arguments = ["run", "naive", "--stream", "split_cifar10"]
    places = ["--out", str(tmp_path / "out"), "--dataset-root", str(tmp_path / "no")]
    assert main([*arguments, *places]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: split_cifar10 lacks ") and "171 MB" in err
    assert "benchmarks run naive --stream split_cifar10 --dataset-root" in err
    assert not (tmp_path / "out").exists()


def test_wrong_option_of_the_stream_is_an_error_not_a_traceback(tmp_path, capsys):
    wrong = ["--n_experiences", "3", "--out", str(tmp_path)]
    assert main(["run", "naive", *wrong]) == 2
    assert "n_experiences is 3" in capsys.readouterr().err


def test_threads_are_those_asked_for(tmp_path):
    before = torch.get_num_threads()
    try:
        assert main([*NAIVE, "--threads", "1", "--out", str(tmp_path)]) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="--device cuda"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("terminal", "names"), [(True, ("text", "interactive")), (False, ("text",))]
)
def test_progress_bars_are_for_people_only(terminal, names, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    assert choose_loggers(None) == names
    assert choose_loggers(["csv"]) == ["csv"]


def test_sigterm_interrupts_only_inside_the_block():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as stop, sigterm_interrupts():
        signal.raise_signal(signal.SIGTERM)
    assert stop.value.args == (signal.SIGTERM,)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_metric_of_what_the_strategy_lacks_is_refused_before_training(
    tmp_path, capsys
):
    further = ["--metrics", "nearest_exemplar_mean"]
    assert main([*NAIVE, *further, "--out", str(tmp_path)]) != 0
    wanted = "Naive has no class means of exemplars; wanted a NearestExemplarMeanPlugin"
    assert wanted in capsys.readouterr().err and not files(tmp_path)


def test_further_metrics_are_measured_beside_those_of_every_run(tmp_path):
    further = ["--metrics", "gradient_reconstruction", "task_recognition"]
    assert main([*NAIVE, *further, "--loggers", "text", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "naive" / "0"
    log = (folder / "log.txt").read_text()
    assert log.count("Gradient_Reconstruction") > 4 and "Top1_Acc_Stream" in log
    values = json.loads((folder / "run.json").read_text())["further_metrics"]
    reconstruction = "Gradient_Reconstruction"
    assert not any(name.startswith(reconstruction) for name in values[0])  # no past
    kinds = {name.partition("/")[0] for name in values[-1]}
    accuracies = [f"Task{kind}_Acc_" for kind in ("Aware", "Agnostic")]
    parts = {name + part for name in accuracies for part in ("Exp", "Stream")}
    assert len(values) == 5 and kinds == {reconstruction, *parts}
    name = "Gradient_Reconstruction/train_phase/train_stream/relative"
    assert re.findall(rf"{name} = ([\d.]+)", log)[-1] == f"{values[-1][name]:.4f}"
    script = [sys.executable, SCRIPTS / "further_metrics.py", tmp_path]
    wanted = ["relative", "cosine", "--experience", "5"]
    shown = subprocess.run([*script, *wanted], check=True, capture_output=True)
    value = f"{values[-1][name]:.3f} ± 0.000"
    line = f"{tmp_path / 'naive'}  relative {value}  cosine -\n"  # of no prior
    assert shown.stdout.decode() == line
    empty = [*script[:2], tmp_path / "none", "x", "--experience", "1"]
    assert subprocess.run(empty, check=False).returncode
    script[1] = SCRIPTS / "task_accuracies.py"
    shown = subprocess.run(script, check=True, capture_output=True).stdout.decode()
    matrix = [
        [value for name, value in each.items() if name.startswith("TaskAgnostic_Acc_E")]
        for each in values
    ]
    drops = [max(row[e] for row in matrix[e:-1]) - matrix[-1][e] for e in range(4)]
    average, forgets = 100 * sum(matrix[-1]) / 5, 100 * sum(drops) / 4
    assert f"TaskAgnostic average {average:.1f} ± 0.0" in shown
    assert f"TaskAgnostic forgets {forgets:.1f} ± 0.0" in shown
