"""Options of the recipes of Mnemonics, as the strategy gets them."""

from __future__ import annotations

import json

import pytest
from avalanche.training.plugins import EvaluationPlugin

from benchmarks.__main__ import main
from benchmarks.recipes import RECIPES
from benchmarks.runs.parser import parse

DIGITS, CIFAR = "mnemonics_digits", "mnemonics_cifar100"


def made(recipe, *arguments):
    """The strategy, and what is recorded of its memory."""
    setup = RECIPES[recipe].function(**parse(RECIPES[recipe], [*arguments]).options)
    return setup.make_strategy(evaluator=EvaluationPlugin(), device="cpu"), setup


def test_the_papers_protocol_is_the_papers_setting():
    strategy, setup = made(CIFAR)
    setting = strategy.buffer.optimizer
    assert (setting.optimizer, setting.lr, setting.inner_lr) == ("sgd", 0.01, 0.01)
    assert (setting.epochs, setting.decay_epochs, setting.inner_epochs) == (50, 10, 50)
    assert setting.steps is setting.inner_steps is None
    assert strategy.buffer.per_class == 20 and strategy.train_epochs == 160
    assert "20 a class, random, optimised, float32" in setup.memory


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--outer_steps", "7"], {"steps": 7, "epochs": None, "inner_epochs": 50}),
        (["--inner_steps", "3"], {"inner_steps": 3, "inner_epochs": None}),
        (["--outer_lr", "0.5"], {"lr": 0.5, "inner_lr": 0.01}),
        (["--inner_lr", "0.5"], {"lr": 0.01, "inner_lr": 0.5}),
        (["--objective", "ncm"], {"objective": "ncm", "epochs": 50}),
        (["--adjust_old", "false"], {"adjust_old": None}),
        (["--adjust_old", "true"], {"adjust_old": "sequential"}),
        (["--optimization", "fast"], {"optimizer": "adam", "steps": 200}),
        (["--optimization", "released"], {"objective": "ncm", "weight_decay": 5e-4}),
    ],
)
def test_options_change_the_setting_and_leave_the_rest_of_it(arguments, wanted):
    setting = made(CIFAR, *arguments)[0].buffer.optimizer
    assert {name: getattr(setting, name) for name in wanted} == wanted


def test_options_reach_the_strategy():
    strategy, setup = made(
        DIGITS,
        *["--optimization", "null", "--memory_size", "90", "--selection", "herding"],
        *["--storage_dtype", "uint8", "--distillation", "icarl", "--imprint", "false"],
        *["--weight_transfer", "false", "--finetuning_epochs", "0"],
        *["--predict", "nearest_mean"],
    )
    buffer = strategy.buffer
    assert (buffer.optimizer, buffer.per_class, buffer.max_size) == (None, None, 90)
    assert (buffer.selection.kind, buffer.storage_dtype) == ("herding", "uint8")
    names = {type(plugin).__name__ for plugin in strategy.plugins}
    assert "ScoreDistillationPlugin" in names
    absent = {"WeightTransferPlugin", "ImprintingPlugin", "BalancedFinetuningPlugin"}
    assert not absent & names
    [nearest] = [p for p in strategy.plugins if hasattr(p, "second_view")]
    assert nearest.predict
    assert "90 in all, herding, uint8" in setup.memory


def test_both_classifiers_are_in_the_record_of_one_run(tmp_path, capsys):
    options = ["--smoke", "--metrics", "nearest_exemplar_mean", "--device", "cpu"]
    assert main(["run", DIGITS, *options, "--out", str(tmp_path)]) == 0
    assert not capsys.readouterr().err
    record = json.loads((tmp_path / DIGITS / "0" / "run.json").read_text())
    assert record["memory_bytes"]["exemplars"] == 10 * 5 * 8 * 8 * 4
    last = record["further_metrics"][-1]
    assert 0.3 < last["NearestMean_Acc_Stream/eval_phase/test_stream"] <= 1
    assert record["metrics"]["final_accuracy"] > 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--decay_to_one true --weight_transfer false", "wanted both, or neither"),
        (
            "--optimization null --objective ncm --adjust_old false",
            "objective, adjust_old given with optimization null",
        ),
    ],
)
def test_options_that_do_not_fit_are_told_in_one_line(
    options, message, tmp_path, capsys
):
    run = ["run", DIGITS, "--smoke", *options.split(), "--out", str(tmp_path)]
    assert main(run) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
