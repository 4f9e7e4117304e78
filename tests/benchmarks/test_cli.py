"""The command line, as a person types it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.recipes import RECIPES
from benchmarks.recipes.find import find_recipes
from benchmarks.streams import STREAMS

CLONE = Path(__file__).parents[2]
LIGHT = """
import sys
from benchmarks.__main__ import main
for arguments in {commands}:
    try:
        main(arguments)
    except SystemExit:
        pass
    heavy = {{"torch", "torchvision", "avalanche", "numpy", "sklearn", "scipy"}}
    print(arguments, sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


def test_nothing_heavy_is_imported_before_options_are_checked():
    commands = [
        *(["run", r.name, "--help"] for r in RECIPES.values() if not r.is_row),
        ["run", "lucir_cifar100", "--smoke", "--print_config"],
        ["run", "naive", "--lr", "-1"],
        ["run", "naive", "--stream", "nowhere"],
        ["run", "--help"],
        ["list"],
        ["table", "nowhere"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(commands=commands)],
        cwd=CLONE,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert lines == [f"{command} []" for command in commands]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "unknown command rnu; did you mean run?"),
        (
            ["run", "lucir_mnits"],
            "unknown recipe lucir_mnits; did you mean lucir_mnist?",
        ),
        (["run", "naive", "--lrr", "1"], "unknown option --lrr; did you mean --lr?"),
        (["run", "naive", "--stream", "split_digit"], "did you mean split_digits?"),
        (["run", "naive", "--loggers", "txt"], "did you mean text?"),
        (["run", "naive", "--lr", "0"], "--lr is 0; wanted"),
        (["list", "all"], "unknown recipe all; wanted one of"),
        (["table", "--all"], "table does not know --all"),
        (["table", "nowhere"], "no folder nowhere"),
    ],
)
def test_wrong_command_is_one_line_before_any_work(
    arguments, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--help"], ["run", "-h"], ["table", "--help"]])
def test_help_is_no_error(arguments, capsys):
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("usage: python -m benchmarks")


@pytest.mark.parametrize("arguments", [[], ["run"]])
def test_command_that_says_too_little_shows_how_to_go_on(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().out.startswith("usage: python -m benchmarks")


def test_list_takes_patterns_and_names_of_rows_as_a_sweep_does(capsys):
    rows = [r for r in RECIPES.values() if r.is_row]
    for name in (rows[0].name, f"{rows[0].base}/*", "*"):
        assert main(["list", name]) == 0
        told = re.findall(r"^ +(\w+)  ", capsys.readouterr().out, re.MULTILINE)
        shown = [r.name for r in find_recipes([name])]
        assert [word for word in told if word in RECIPES] == shown


def test_list_shows_all_there_is_and_what_it_needs(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in [*(r.base for r in RECIPES.values()), *STREAMS]:
        assert f" {name} " in out
    line = next(line for line in out.splitlines() if " split_cifar100 " in line)
    assert "169 MB, --download" in out and "CIFAR-100" in line
