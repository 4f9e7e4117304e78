"""Switches for speed: one place, every recipe of this package, off by default."""

from __future__ import annotations

from dataclasses import fields
from functools import wraps

import pytest
import torch

from avalanche_ext.strategies._template import ResidentTemplate
from benchmarks.recipes import RECIPES
from benchmarks.recipes.frame import Frame
from benchmarks.recipes.resident_frame import ResidentFrame
from benchmarks.runs.parser import parse
from benchmarks.tables.targets import FREE_OPTIONS, Target, mark

OFF = {
    "precision": "fp32",
    "channels_last": False,
    "compile": False,
    "optimizer_implementation": None,
    "inference_mode": False,
}
ON = {
    "precision": "bf16",
    "channels_last": True,
    "compile": True,
    "optimizer_implementation": "foreach",
    "inference_mode": True,
}
DIGITS = [name for name in RECIPES if name.endswith("_digits")]
KINDS = (
    "lucir",
    "bdr",
    "cwd",
    "ewc_fr",
    "ar1_star",
    "cwr_star",
    "mnemonics",
    "rerelrp",
)


class _Given(Exception):
    """Carries what the template was given."""


def test_switches_are_those_of_one_place():
    assert OFF.keys() == {f.name for f in fields(ResidentFrame)} - {
        f.name for f in fields(Frame)
    }


def test_recipes_of_this_package_have_all_switches_off_and_baselines_have_none():
    bases = {recipe.base: recipe for recipe in RECIPES.values() if not recipe.is_row}
    for name, recipe in bases.items():
        options = parse(recipe, []).options
        own = {key: options[key] for key in OFF.keys() & options.keys()}
        published = {
            key: recipe.defaults[key] for key in OFF.keys() & recipe.defaults.keys()
        }
        assert own == ({**OFF, **published} if name.startswith(KINDS) else {})


@pytest.mark.parametrize("name", DIGITS)
def test_switches_reach_the_template(name, monkeypatch):
    @wraps(ResidentTemplate.__init__)  # Avalanche looks at the names of arguments
    def given(self, **arguments):
        raise _Given(arguments)

    words = [f"--{key}={value}" for key, value in ON.items()]
    run = parse(RECIPES[name], [*words, "--smoke"])
    setup = run.recipe.function(**run.options)
    monkeypatch.setattr(ResidentTemplate, "__init__", given)
    with pytest.raises(_Given) as found:
        setup.make_strategy(evaluator=None, device=torch.device("cpu"))
    [arguments] = found.value.args
    assert {key: arguments[key] for key in ON} == ON


def test_words_of_the_command_line_may_have_hyphens():
    words = (
        "--channels-last true --optimizer-implementation fused --inference-mode true"
    )
    options = parse(RECIPES["rerelrp_digits"], words.split()).options
    assert options["channels_last"] and options["inference_mode"]
    assert options["optimizer_implementation"] == "fused"


@pytest.mark.parametrize("name", OFF)
def test_switches_leave_the_protocol_as_it_is_but_for_the_precision(name):
    target = Target(
        recipe="x",
        metric="final_accuracy",
        value=60.0,
        source="",
        certainty="paper's table",
    )
    run = {
        "finished": True,
        "smoke": False,
        "changed": [name],
        "options": {name: ON[name]},
    }
    free = name != "precision"
    assert (name in FREE_OPTIONS) == free
    wanted = "reproduced" if free else "other options: precision=bf16"
    assert mark(run, target, 60.0) == wanted
