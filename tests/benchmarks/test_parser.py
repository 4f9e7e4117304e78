"""Options of a run: from the command line, from YAML, from a saved run."""

from __future__ import annotations

import sys

import pytest
import yaml

from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES, lucir, row
from benchmarks.runs.parser import make_parser, parse
from benchmarks.sweep.words import read_seeds

DIGITS, CIFAR = RECIPES["lucir_digits"], RECIPES["lucir_cifar100"]


def saved_run(tmp_path, *arguments):
    """A run that has written its options, as `execute` does before training."""
    run = parse(DIGITS, ["--out", str(tmp_path), *arguments])
    run.folder.prepare(run.to_yaml())
    return run


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_each_option_of_each_recipe_is_explained(recipe):
    parser = make_parser(recipe)
    assert [a.dest for a in parser._actions if not a.help] == []
    assert recipe.summary.endswith(".")


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_recipe_without_options_is_its_own_protocol(recipe):
    run = parse(recipe, [])
    assert run.changed == [] and not run.settings.smoke
    assert recipe.function(**run.options).setting == recipe.setup().setting


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_smoke_is_one_epoch_of_the_embedded_stream(recipe):
    run = parse(recipe, ["--smoke"])
    setup = recipe.function(**run.options)
    assert run.settings.smoke and setup.stream == "split_digits"
    assert run.options["train_epochs"] == 1


def test_row_is_its_recipe_with_other_defaults(monkeypatch):
    monkeypatch.setattr("benchmarks.recipes.recipe.RECIPES", dict(RECIPES))
    known = sys.modules["benchmarks.recipes.recipe"].RECIPES
    row(lucir.lucir_cifar100, "long", "Long.", n_experiences=11, lr=0.2)
    run = parse(known["long"], ["--lr", "0.3"])
    assert run.options["n_experiences"] == 11 and run.changed == ["lr"]
    assert run.folder.path.name == "0" and run.folder.path.parent.name == "long"
    assert known["long"].is_row and known["long"].base == "lucir_cifar100"
    assert "11 experiences" in known["long"].setup().setting
    with pytest.raises(ValueError, match="recipe long exists"):
        row(lucir.lucir_cifar100, "long", "Again.")


def test_explicit_option_wins_over_smoke_before_and_after_it():
    for arguments in (["--smoke", "--lr", "0.5"], ["--lr", "0.5", "--smoke"]):
        assert parse(CIFAR, arguments).options["lr"] == 0.5


def test_dash_and_underscore_are_the_same():
    dashes = parse(CIFAR, ["--train-epochs", "3", "--dataset-root=data"])
    assert dashes == parse(CIFAR, ["--train_epochs=3", "--dataset_root", "data"])


def test_saved_options_give_the_same_run(tmp_path):
    path = tmp_path / "config.yaml"
    run = parse(CIFAR, ["--smoke", "--seed", "3", "--milestones", "[4, 5]"])
    path.write_text(run.to_yaml())
    assert parse(CIFAR, ["--config", str(path)]) == run


def test_printed_options_are_those_of_the_run(capsys):
    with pytest.raises(SystemExit) as exit_:
        parse(CIFAR, ["--smoke", "--lr", "0.5", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    saved = yaml.safe_load(parse(CIFAR, ["--smoke", "--lr", "0.5"]).to_yaml())
    assert exit_.value.code == 0
    assert {**saved, "resume": False} == printed


def test_numbers_are_plain_after_their_check():
    options = parse(CIFAR, []).options
    kinds = {type(value) for value in [*options.values(), *options["milestones"]]}
    assert kinds <= {int, float, str, bool, tuple, type(None)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lrr", "1"], "unknown option --lrr; did you mean --lr?"),
        (["--train-epoch=1"], "did you mean --train_epochs?"),
        (["--lr", "0"], "--lr is 0; wanted a number > 0"),
        (
            ["--train_mb_size", "-1"],
            "--train_mb_size is -1; wanted a whole number >= 1",
        ),
        (["--exemplars_per_class", "2.5"], "--exemplars_per_class is 2.5; wanted"),
        (["--milestones", "[0]"], "--milestones is 0; wanted a whole"),
        (["--milestones", "80,120"], "is 80,120; wanted a list, e.g. .80,120.$"),
        (["--threads", "0"], "--threads is 0; wanted a whole number >= 1 or null$"),
        (["--memory_resident", "3"], "is 3; wanted one of auto or true or false$"),
        (["--out", ""], "--out is ''"),
        (["--network", "resnet"], "--network is resnet; wanted one of .*resnet32"),
        (["--seed", "-1"], "--seed is -1; wanted a whole number from 0 "),
        (["--stream", "split_mnits"], "unknown stream .*did you mean split_mnist?"),
        (["--loggers", "cvs"], "unknown logger cvs; did you mean csv?"),
        (["--metrics", "timin"], "unknown metric timin; did you mean timing?"),
        (["--config", "nowhere.yaml"], "--config: .*nowhere.yaml"),
        (["--lr"], "--lr: expected one argument"),
        (["more"], "more"),
    ],
)
def test_wrong_option_is_named_in_one_line(arguments, message):
    with pytest.raises(UsageError, match=message) as error:
        parse(DIGITS, arguments)
    assert "\n" not in str(error.value)


def test_wrong_option_in_yaml_is_named(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("trainepochs: 3\n")
    with pytest.raises(UsageError, match="did you mean --train_epochs?"):
        parse(DIGITS, ["--config", str(path)])


def test_resume_restores_all_options(tmp_path):
    run = saved_run(tmp_path, "--smoke", "--lr", "0.5", "--seed", "7")
    again = parse(DIGITS, ["--resume", "--out", str(tmp_path), "--seed", "7"])
    assert again.options == run.options and again.changed == run.changed
    assert again.settings.smoke and again.settings.resume


def test_resume_finds_a_folder_that_was_moved(tmp_path):
    saved_run(tmp_path / "old", "--lr", "0.5")
    (tmp_path / "old").rename(tmp_path / "new")
    run = parse(DIGITS, ["--resume", "--out", str(tmp_path / "new")])
    assert run.options["lr"] == 0.5 and run.settings.out == tmp_path / "new"


@pytest.mark.parametrize("change", [["--lr", "0.1"], ["--smoke"], ["--herding=lucir"]])
def test_resume_refuses_an_option_that_contradicts_the_run(tmp_path, change):
    saved_run(tmp_path, "--lr", "0.5")
    with pytest.raises(UsageError, match=f"{change[0][:4]}.*started with"):
        parse(DIGITS, ["--resume", "--out", str(tmp_path), *change])


def test_resume_may_go_on_elsewhere(tmp_path):
    saved_run(tmp_path)
    elsewhere = ["--device", "cpu", "--loggers", "csv", "--dataset-root", "data"]
    run = parse(DIGITS, ["--resume", "--out", str(tmp_path), *elsewhere])
    assert run.settings.device == "cpu" and run.settings.loggers == ["csv"]


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"lr: [1\n", b"", b"just text", b"- 1", b"\x00"]
)
def test_broken_file_of_options_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"mine\.yaml .*wanted options") as error:
        parse(DIGITS, ["--config", str(path)])
    assert "\n" not in str(error.value)
    folder = saved_run(tmp_path).folder
    folder.config.write_bytes(content)
    advice = r"config\.yaml .*delete it .*another --out"
    with pytest.raises(UsageError, match=advice) as error:
        parse(DIGITS, ["--resume", "--out", str(tmp_path)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["inf", ".inf", "1e999", "nan"])
def test_infinite_number_is_refused(value):
    with pytest.raises(UsageError, match="--lr .*wanted a"):
        parse(DIGITS, ["--lr", value])


def test_seed_is_at_most_what_numpy_takes():
    assert parse(DIGITS, ["--seed", str(2**32 - 1)]).settings.seed == 2**32 - 1
    with pytest.raises(UsageError, match="--seed .*4294967296"):
        parse(DIGITS, ["--seed", str(2**32)])
    with pytest.raises(UsageError, match="--seeds is 4294967296; wanted seeds up to"):
        read_seeds(str(2**32))
