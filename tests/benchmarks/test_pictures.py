"""Pictures of a finished run."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest
from avalanche.training.supervised import Naive
from matplotlib.figure import Figure

from benchmarks.__main__ import main
from benchmarks.runs.pictures import write_pictures

NAIVE = ["run", "naive", "--smoke", "--device", "cpu"]
PNG = b"\x89PNG\r\n\x1a\n"


class Drawing:
    """Offers empty figures by these names, and notes the streams it was given."""

    def __init__(self, *names):
        self.names = names
        self.streams = []

    def figures(self, test_stream):
        self.streams.append(test_stream)
        return {name: Figure(figsize=(1, 1)) for name in self.names}


class Failing:
    """Offers a figure, then breaks."""

    def figures(self, test_stream):
        raise RuntimeError("no relevance")


def drawing(*plugins, names=("one",)):
    strategy = Drawing(*names)
    strategy.plugins = list(plugins)
    return strategy


def test_pictures_of_strategy_and_plugins_are_written(tmp_path, capsys):
    strategy = drawing(Drawing("two", "three"), SimpleNamespace(), names=("one",))
    write_pictures(strategy, "stream", tmp_path / "pictures")
    found = {p.name: p.read_bytes() for p in (tmp_path / "pictures").iterdir()}
    assert set(found) == {"one.png", "two.png", "three.png"}
    assert all(content.startswith(PNG) for content in found.values())
    assert strategy.streams == strategy.plugins[0].streams == ["stream"]
    assert capsys.readouterr() == ("", "")


def test_who_has_nothing_to_show_leaves_no_folder(tmp_path):
    write_pictures(drawing(SimpleNamespace(figures=3), names=()), "s", tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_failing_picture_is_told_and_the_others_are_written(tmp_path, capsys):
    strategy = drawing(Failing(), Drawing("../up"), Drawing("last"))
    write_pictures(strategy, "stream", tmp_path / "pictures")
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png")}
    assert names == {"pictures/one.png", "pictures/last.png"}
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "no pictures of Failing: RuntimeError: no relevance" in told[0]
    assert "'../up'" in told[1]


def test_half_written_picture_is_removed(tmp_path, monkeypatch, capsys):
    def full(file):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", full)
    write_pictures(drawing(), "stream", tmp_path)
    assert not list(tmp_path.iterdir()) and "no space" in capsys.readouterr().err


@pytest.mark.parametrize("fails", [False, True])
def test_run_draws_once_at_its_end_and_fails_by_no_picture(
    fails, tmp_path, monkeypatch, capsys
):
    calls = []

    def figures(strategy, test_stream):
        calls.append([len(e.dataset) for e in test_stream])
        if fails:
            raise RuntimeError("no relevance")
        return {"capacity": Figure(figsize=(1, 1))}

    monkeypatch.setattr(Naive, "figures", figures, raising=False)
    assert main([*NAIVE, "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "results in" in out and ("no relevance" in err) == fails
    pictures = [p.name for p in tmp_path.rglob("*.png")]
    assert pictures == ([] if fails else ["capacity.png"])
    assert main(["run", "naive", "--resume", "--out", str(tmp_path)]) == 0
    assert len(calls) == 1 and sum(calls[0]) == 355


def test_pictures_that_a_kill_prevented_are_written_on_resume(tmp_path, monkeypatch):
    def figures(strategy, test_stream):
        return {"capacity": Figure(figsize=(1, 1))}

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    monkeypatch.setattr(Naive, "figures", figures, raising=False)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("benchmarks.runs.run.write_pictures", kill)
        main([*NAIVE, "--out", str(tmp_path)])
    folder = tmp_path / "naive" / "0"
    matrix = (folder / "accuracy.csv").read_bytes()
    assert json.loads((folder / "run.json").read_text())["finished"]
    assert main(["run", "naive", "--resume", "--out", str(tmp_path)]) == 0
    assert (folder / "accuracy.csv").read_bytes() == matrix
    names = {"run.json", "accuracy.csv", "checkpoint.pt", "config.yaml", "log.txt"}
    assert {path.name for path in folder.iterdir()} == names | {"pictures"}
    assert [path.name for path in folder.rglob("*.png")] == ["capacity.png"]
