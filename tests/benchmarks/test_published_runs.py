"""Whole published runs at a small size, on generated images."""

from __future__ import annotations

import json
import os
import pickle
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.streams import make_stream
from benchmarks.streams.stand_in import class_images

SCRIPTS = Path(__file__).parents[2] / "scripts"
RECORD = """
import json, sys
with open({file!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
"""


def run_script(name, *words, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(SCRIPTS / name), run_name="__main__")


def commands_of(tmp_path, *words, **environment):
    """What the script would hand to Python."""
    record, said = tmp_path / "record.py", tmp_path / "said.jsonl"
    record.write_text(RECORD.format(file=str(said)))
    said.write_text("")
    places = {"PYTHON": f"{sys.executable} {record}", "OUT": str(tmp_path / "out")}
    done = subprocess.run(
        ["bash", SCRIPTS / "published_runs.sh", *words],
        env={**os.environ, **places, **environment},
        capture_output=True,
        check=False,
        text=True,
    )
    return done, [json.loads(line) for line in said.read_text().splitlines()]


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """CIFAR-10 and CIFAR-100, generated: 5 images a class."""
    root = tmp_path_factory.mktemp("stand_in") / "cifar"
    with pytest.MonkeyPatch.context() as patch:
        words = ("--data", "cifar10", "cifar100", "--n", 5)
        run_script("stand_in.py", root, *words, monkeypatch=patch)
    return root


def test_all_published_runs_end_in_one_table(tmp_path, monkeypatch, capsys):
    small = ("--stand-in", "--smoke", "--threads", "1", "--device", "cpu")
    done, commands = commands_of(tmp_path, *small)
    assert done.returncode == 0, done.stderr
    for command in commands:
        if command[0] == "-m":
            assert main(command[2:]) == 0
        else:
            name = Path(command[0]).name
            run_script(name, *command[1:], monkeypatch=monkeypatch)
    table = capsys.readouterr().out.rpartition("| recipe |")[2].splitlines()[2:]
    names = ("ar1_star_core50", "bdr_cifar100", "ewc_fr_replay_cifar", "lucir_cifar100")
    assert [line.split("`")[1] for line in table] == list(names)
    for line, name in zip(table, names, strict=True):
        [path] = tmp_path.rglob(f"{name}/0/run.json")
        record = json.loads(path.read_text())
        assert record["note"] == "stand-in images" and "stand-in images" in line
        assert 0 < record["train_seconds"] < 60 * record["minutes"] + 0.1
        assert record["finished"] and record["peak_memory_bytes"]["ram"] > 0


def test_runs_on_real_data_have_no_note_and_the_protocol_as_it_is(tmp_path):
    words = ("--cifar-root", "C", "--core50-root", "D", "--stand-in")
    done, commands = commands_of(tmp_path, *words, "--precision", "bf16")
    assert done.returncode == 0, done.stderr
    runs = [command for command in commands if command[0] == "-m"]
    assert len(runs) == 4 and len(commands) == 5  # and the table, but no stand-ins
    for command in runs:
        assert "--note" not in command and "--weights" not in command
        options = {word for word in command if word.startswith("--")}
        free = {"--dataset-root", "--seed", "--resume", "--out", "--eval-every"}
        assert options <= free | {"--precision"}


def test_unknown_run_is_named_before_any_work(tmp_path):
    done, commands = commands_of(tmp_path, RUNS="bdr naive")
    assert done.returncode == 2 and not commands
    wanted = "RUNS names naive; wanted some of bdr, lucir, ewc_fr_replay, ar1_star"
    assert done.stderr.strip() == wanted


@pytest.mark.parametrize("words", [[], [""], ["--stand-in"]])
def test_folder_left_out_is_named_before_any_work(words, tmp_path):
    done, commands = commands_of(tmp_path, "--cifar-root", *words)
    assert done.returncode == 2 and not commands
    seen = "".join(words) or "nothing"
    assert done.stderr == f"--cifar-root is followed by {seen}; wanted a folder\n"


def test_help_is_the_comment_of_the_script(tmp_path):
    done, commands = commands_of(tmp_path, "--smoke", "--help")
    assert (done.returncode, done.stderr, commands) == (0, "", [])
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("Whole published runs") and last.endswith("at the end.")
    assert "    bash scripts/published_runs.sh --stand-in" in done.stdout


def test_table_of_no_runs_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run_script("published_runs.py", tmp_path / "no", monkeypatch=monkeypatch)
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"published_runs.py: error: no folder {tmp_path / 'no'}")


def test_generated_images_are_read_as_the_real_ones(cifar):
    benchmark = make_stream("split_cifar10_100", dataset_root=cifar)
    sizes = [len(experience.dataset) for experience in benchmark.train_stream]
    assert sizes == [50, *[50] * 5]
    stream = make_stream("split_cifar100", dataset_root=cifar).test_stream
    assert sum(len(experience.dataset) for experience in stream) == 500


def test_classes_of_both_generated_sets_differ(cifar):
    ten = pickle.loads((cifar / "cifar-10-batches-py/test_batch").read_bytes())
    hundred = pickle.loads((cifar / "cifar-100-python/test").read_bytes())
    assert not {row.tobytes() for row in ten["data"]} & {
        row.tobytes() for row in hundred["data"]
    }


def test_images_of_a_class_are_nearer_to_its_mean_than_to_others():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 200)
    images = class_images(labels.tolist(), 32, rng).reshape(len(labels), -1) / 255
    means = np.stack([images[labels == c].mean(0) for c in range(5)])
    nearest = ((images[:, None] - means) ** 2).sum(2).argmin(1)
    assert 0.4 < (nearest == labels).mean() < 1  # neither chance nor given away


def test_run_on_generated_images_has_to_say_so(cifar, tmp_path, capsys):
    command = ["run", "naive", "--stream", "split_cifar100", "--network", "mlp"]
    places = ["--dataset-root", str(cifar), "--out", str(tmp_path)]
    assert main([*command, *places]) == 2
    assert "note is empty; wanted one, such as --note" in capsys.readouterr().err
    assert not any(tmp_path.rglob("run.json"))


def test_files_that_are_no_stand_ins_are_still_checked(cifar, tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for path in (cifar / "cifar-100-python").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(FileNotFoundError, match="damaged or missing|cannot be read"):
        make_stream("split_cifar100", dataset_root=tmp_path)


def test_stand_ins_never_replace_other_files(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine").mkdir()
    with pytest.raises(SystemExit):
        run_script("stand_in.py", tmp_path / "mine", monkeypatch=monkeypatch)
    assert "wanted a new folder" in capsys.readouterr().err


@pytest.mark.parametrize("left", [(), ("STAND_IN.txt", "cut", "cifar-10/cut")])
def test_what_a_kill_left_of_stand_ins_is_made_anew(left, tmp_path, monkeypatch):
    partial, root = tmp_path / "images.partial", tmp_path / "images"
    partial.mkdir()
    for name in left:
        (partial / name).parent.mkdir(exist_ok=True)
        (partial / name).touch()
    words = ("--data", "cifar100", "--n", 1)
    run_script("stand_in.py", root, *words, monkeypatch=monkeypatch)
    assert not partial.exists()
    assert {path.name for path in root.iterdir()} == {
        "STAND_IN.txt",
        "cifar-100-python",
    }
    assert "1 a class" in (root / "STAND_IN.txt").read_text()


def test_files_of_others_where_stand_ins_are_made_stay(tmp_path, monkeypatch, capsys):
    mine = tmp_path / "images.partial" / "mine"
    mine.parent.mkdir()
    mine.touch()
    with pytest.raises(SystemExit):
        run_script("stand_in.py", tmp_path / "images", monkeypatch=monkeypatch)
    assert "holds something else; wanted a new" in capsys.readouterr().err
    assert [*tmp_path.rglob("*")] == [mine.parent, mine]


@pytest.mark.parametrize("name", ["train", "meta"])
@pytest.mark.parametrize("download", [False, True])
def test_stand_ins_that_lack_a_file_are_to_be_deleted(cifar, tmp_path, name, download):
    root = shutil.copytree(cifar, tmp_path / "images")
    (root / "cifar-100-python" / name).unlink()
    with pytest.raises(FileNotFoundError, match="generated; delete that f") as error:
        make_stream("split_cifar100", dataset_root=root, download=download)
    assert str(root) in str(error.value) and "--download" not in str(error.value)


def test_finished_stand_ins_stay_as_they_are(cifar, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in cifar.rglob("*")}
    words = ("--data", "cifar10", "cifar100", "--n", 5)
    run_script("stand_in.py", cifar, *words, monkeypatch=monkeypatch)
    assert {path: path.stat().st_mtime_ns for path in cifar.rglob("*")} == before
