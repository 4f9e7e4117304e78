"""Damaged files of a run: one line that names the file; the other runs are shown."""

from __future__ import annotations

import json

import pytest
from report_runs import lay_run

from benchmarks.__main__ import main
from benchmarks.names import UsageError
from benchmarks.runs.results import read_runs

HEAD = "trained_experience,test_0,test_1,test_2\n"
ROW = "0,0.5,0.5,0.5\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 rows; wanted 3 as run.json says"),
        (HEAD + 2 * ROW, "has 2 rows; wanted 3"),
        (HEAD + 3 * "0,high,,\n", "could not convert .*'high'; wanted a matrix"),
        (b"\xff\xfe\x00", "can't decode byte"),
        (HEAD + 2 * ROW + "2,1\n", "row 2 has 1 accuracies; wanted 3"),
        (HEAD + 3 * "0,nan,7,0\n", "row 0 has nan; wanted 0 to 1"),
        (HEAD + 2 * ROW + "2,,,\n", "has no value, wanted one"),
        (None, "Is a directory"),
    ],
)
def test_damaged_matrix_is_named_in_one_line(tmp_path, content, message):
    path = lay_run(tmp_path) / "accuracy.csv"
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=f"accuracy.csv.*{message}") as error:
        list(read_runs([tmp_path]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": None}, "metrics is None; wanted a valid dictionary"),
        ({"options": None}, "options is None"),
        ({"minutes": None}, "minutes is None; wanted a valid number"),
        ({"metrics": {"final_accuracy": "high"}}, "metrics.final_accuracy is 'high'"),
        ({"metrics": {"forgetting": float("nan")}}, "metrics.forgetting is nan; want"),
        ({"memory_bytes": {"exemplars": "1"}}, "memory_bytes.exemplars is '1'"),
        ({"test_images": [1, 0]}, "test_images.1 is 0; wanted greater than 0"),
    ],
)
def test_field_of_another_type_is_named_in_one_line(tmp_path, changes, message):
    lay_run(tmp_path, **changes)
    with pytest.raises(UsageError, match=f"run.json: {message}") as error:
        list(read_runs([tmp_path]))
    assert "\n" not in str(error.value)


def test_missing_field_and_a_folder_as_record_are_named(tmp_path):
    path = lay_run(tmp_path) / "run.json"
    record = json.loads(path.read_text())
    del record["setting"]
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match="run.json has no setting; wanted all of a"):
        list(read_runs([tmp_path]))
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match="run.json is not JSON .*Is a directory"):
        list(read_runs([tmp_path]))


@pytest.mark.parametrize("command", ["table", "report"])
def test_one_damaged_run_does_not_hide_the_others(tmp_path, command, capsys):
    lay_run(tmp_path)
    bad = lay_run(tmp_path, seed=1)
    (bad / "accuracy.csv").write_text("")
    assert main([command, str(tmp_path)]) == 0
    err = capsys.readouterr().err
    line = "accuracy.csv has 0 rows; wanted 3 as run.json says\n"
    assert err == f"left out: {bad / line}"
