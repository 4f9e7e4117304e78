"""Files of a run."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import lay_run

from benchmarks.names import UsageError
from benchmarks.runs.results import (
    RunFolder,
    matrix_to_csv,
    read_matrix,
    read_runs,
    write_atomically,
)

CELLS = st.lists(st.none() | st.floats(0, 1), min_size=3, max_size=3)


@given(st.lists(CELLS, min_size=1, max_size=4))
def test_matrix_comes_back_to_the_last_digit(tmp_path_factory, matrix):
    path = tmp_path_factory.mktemp("matrix") / "accuracy.csv"
    path.write_text(matrix_to_csv(matrix))
    assert read_matrix(path) == matrix


def test_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_atomically(path, "old")

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_folder_holds_results_only_when_an_experience_is_finished(tmp_path):
    folder = RunFolder(out=tmp_path, recipe="naive", seed=0)
    assert not folder.holds_results
    folder.prepare("seed: 0\n")
    assert not folder.holds_results and not folder.is_finished
    folder.write([[1.0]], {"recipe": "naive", "finished": False})
    assert folder.holds_results and not folder.is_finished
    folder.write([[1.0], [0.5]], {"recipe": "naive", "finished": True})
    assert folder.is_finished
    folder.drawing.touch()
    assert folder.is_finished  # there is nothing to make pictures of
    folder.checkpoint.touch()
    assert not folder.is_finished


def test_runs_are_read_once_each_from_any_folder_above(tmp_path):
    for seed in (0, 1):
        folder = lay_run(tmp_path, seed=seed)
    found = read_runs([tmp_path, folder.parent, folder])
    assert [run["seed"] for run in found] == [0, 1]


@pytest.mark.parametrize("text", ["{", json.dumps([1]), json.dumps({"seed": 1})])
def test_foreign_files_are_refused_by_name(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match="run.json .*wanted a run.json"):
        list(read_runs([tmp_path]))


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no folder .*nowhere"):
        list(read_runs([tmp_path / "nowhere"]))
