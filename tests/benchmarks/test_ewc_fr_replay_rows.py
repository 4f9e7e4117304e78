"""Published rows of EWC+FR+Replay: each one command, with the authors' settings."""

from __future__ import annotations

from functools import cache
from statistics import mean, stdev

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from torch import nn

from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.runs.parser import parse
from benchmarks.streams import make_stream
from benchmarks.tables.targets import read_targets
from benchmarks.training.norm_groups import without_norm_decay

BASES = ["ewc_fr_replay_cifar", "ewc_fr_replay_tiny_imagenet", "ewc_fr_replay_imagenet"]
ROWS = [name for name, recipe in RECIPES.items() if recipe.base in BASES]
#: Recipes that are themselves what the name says.
THEMSELVES = {
    "ewc_fr_replay_cifar_200": "ewc_fr_replay_cifar",
    "ewc_fr_replay_imagenet_10000": "ewc_fr_replay_imagenet",
}
#: No recipe of ours is this experiment: single-task networks, joint training on
#: ImageNet; the stored EWC runs on CIFAR trained on the outputs of all tasks.
LEFT_OUT = {"separate_cifar", "separate_tiny_imagenet", "separate_imagenet"}
LEFT_OUT |= {"joint_imagenet", "ewc_cifar"}


@cache
def base_options(name):
    return parse(RECIPES[name], []).options


def options(name, *arguments):
    """Options of a row; without arguments a parser for its base is enough."""
    if arguments:
        return parse(RECIPES[name], [*arguments]).options
    recipe = RECIPES[name]
    return {**base_options(recipe.base), **recipe.defaults}


def made(name, *arguments):
    setup = RECIPES[name].setup(**options(name, *arguments))
    return setup.make_strategy(evaluator=EvaluationPlugin(), device=torch.device("cpu"))


def name_of(data, method):
    """Our name of a result of the authors."""
    data = data.replace("tinyimagenet", "tiny_imagenet")
    kind, _, size = method.rpartition("_")
    kind = (kind or method).replace("batch-", "").replace("+", "_")
    name = "_".join([kind, data, size] if "_" in method else [kind, data])
    return THEMSELVES.get(name, name)


@pytest.mark.golden("ewc_fr_replay", "reported_accuracy.json")
def test_each_stored_result_is_a_row_and_its_target(golden):
    targets = {t.recipe: t for t in read_targets() if t.recipe in ROWS}
    wanted = {}
    for data, results in golden.items():
        if data in ("cifar", "tinyimagenet", "imagenet"):
            for method, result in results.items():
                runs = result["per_seed_final_task_accuracies"].values()
                wanted[name_of(data, method)] = [100 * mean(run) for run in runs]
    assert set(targets) == set(wanted) - LEFT_OUT and set(wanted) >= LEFT_OUT
    for name, target in targets.items():
        values = wanted[name]
        assert target.metric == "mean_experience_accuracy"
        assert target.value == pytest.approx(mean(values), abs=0.006)
        assert target.seeds == len(values)
        if len(values) > 1:
            assert target.spread == pytest.approx(stdev(values), abs=0.006)
        else:
            assert target.spread is None
    untold = set(ROWS) - set(targets)
    assert untold == {"ewc_cifar", "ewc_fr_replay_tiny_imagenet"}


@pytest.mark.parametrize("name", ROWS)
def test_each_row_has_the_settings_of_its_name(name):
    o = options(name)
    size = name.rpartition("_")[2]
    if size.isdigit():
        assert o["memory_size"] == int(size)
    with_ewc = name.startswith("ewc")
    joint = name.startswith("joint")
    assert any(o["strength"]) == with_ewc
    replays = "_replay_" in f"{name}_" or joint
    assert (o["replay_fraction"] > 0 and o["memory_size"] > 0) == replays
    assert o["fresh_weights"] == joint
    assert o["mirror_test"] and o["task_labels"] and o["fisher_outputs"] == "all"


@pytest.mark.parametrize(
    ("name", "strength", "tau", "tau2"),
    [
        ("ewc_fr_replay_cifar", [2.0], 0.25, None),
        ("ewc_fr_cifar_5000", [2.0], 0.25, None),
        ("fr_cifar_100", [0.0], 0.1, 1.0),
        ("fr_replay_cifar_2000", [0.0], 0.1, 1.0),
        ("ewc_cifar", [10.0], 0.25, None),
        ("fr_tiny_imagenet_500", [0.0], 2.0, None),
        ("fr_tiny_imagenet_4000", [0.0], 12.0, None),
        ("ewc_fr_tiny_imagenet_500", [330, 85, 45, 30, 20, 15, 15, 10, 10], 32.0, None),
        ("fr_imagenet_5000", [0.0], 0.16, None),
        ("fr_imagenet_10000", [0.0], 2.0, None),
        ("fr_replay_imagenet_200", [0.0], 0.12, None),
        ("ewc_fr_imagenet_500", [1.1], 0.0, None),
        ("ewc_fr_imagenet_1000", [0.5], 0.16, None),
        ("ewc_fr_replay_imagenet_500", [1.2], 0.0, None),
        ("ewc_fr_replay_imagenet", [0.5], 0.16, None),
        ("ewc_imagenet", [1.0], 0.16, None),
    ],
)
def test_lambda_and_tau_are_the_published_ones(name, strength, tau, tau2):
    o = options(name)
    assert (list(o["strength"]), o["tau"], o["tau2"]) == (strength, tau, tau2)


def test_rows_whose_tau_is_zero_say_that_they_are_ewc():
    zero = {name for name in ROWS if options(name)["tau"] == 0}
    methods = ("ewc_fr", "ewc_fr_replay")
    assert zero == {f"{m}_imagenet_{n}" for m in methods for n in (200, 500)}
    said = {name for name in ROWS if "plain EWC" in RECIPES[name].summary}
    assert said == zero


def test_label_smoothing_is_that_of_the_fr_family_on_imagenet():
    smoothed = {name for name in ROWS if options(name)["label_smoothing"] == 0.1}
    imagenet = {n for n in ROWS if RECIPES[n].base == "ewc_fr_replay_imagenet"}
    assert smoothed == imagenet - {"ewc_imagenet"}


def test_imagenet_is_trained_as_published():
    strategy = made("ewc_fr_replay_imagenet")
    decayed, spared = strategy.optimizer.param_groups
    norms = [m for m in strategy.model.modules() if isinstance(m, nn.BatchNorm2d)]
    of_norms = {id(p) for m in norms for p in m.parameters()}
    assert {id(p) for p in spared["params"]} == of_norms
    every = {id(p) for p in strategy.model.parameters()}
    assert {id(p) for p in decayed["params"]} == every - of_norms
    assert (decayed["weight_decay"], spared["weight_decay"]) == (5e-5, 0.0)
    assert {g["lr"] for g in strategy.optimizer.param_groups} == {0.5}
    names = [type(plugin).__name__ for plugin in strategy.plugins]
    # the schedule counts the steps of the loader that the prior has made
    assert names.index("FunctionalPriorPlugin") < names.index("PeakLRPlugin")
    assert {"ResolutionPlugin", "MirrorTestPlugin"} <= set(names)
    setup = RECIPES["ewc_fr_replay_imagenet"].setup()
    assert setup.train_options == {"num_workers": 8, "drop_last": True}
    assert setup.eval_options == {"num_workers": 8}


class Batches(SupervisedPlugin):
    """Sizes of the batches of training."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes

    def before_forward(self, strategy, **kwargs):
        self.sizes.append(len(strategy.mb_y))


def test_dropping_the_last_batch_leaves_whole_ones_only():
    name, sizes = "ewc_fr_replay_imagenet", []
    arguments = ["--smoke", "--memory_size", "10", "--images_per_class", "25"]
    arguments += ["--memory_resident", "false"]
    setup = RECIPES[name].setup(**options(name, *arguments))
    strategy = setup.make_strategy(
        evaluator=EvaluationPlugin(), device=torch.device("cpu")
    )
    strategy.plugins.append(Batches(sizes))
    benchmark = make_stream(setup.stream, **setup.stream_options)
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience, **setup.train_options)
    assert sizes == [32, 32]  # of 50 images, and of 50 with 10 points


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--milestones", "[3]"], "early_stopping True.*one schedule at most"),
        (
            ["--early_stopping", "false", "--peak_epoch", "70"],
            "peak_epoch is 70; wanted less than train_epochs, which is 70",
        ),
        (["--resolutions", "[32]"], "two of each, the epochs ascending"),
        (
            ["--resolutions", "[32,64]", "--resolution_epochs", "[5,5]"],
            "two of each, the epochs ascending",
        ),
        (
            ["--decay_norms", "false", "--fisher_outputs", "head"],
            "decay_norms is False.*wanted fisher_outputs all",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, message):
    name = "ewc_fr_replay_tiny_imagenet"
    with pytest.raises(UsageError, match=message):
        RECIPES[name].setup(**options(name, *arguments))


def test_a_model_without_normalisations_has_one_group():
    [group] = without_norm_decay(nn.Linear(2, 3))
    assert len(group["params"]) == 2 and "weight_decay" not in group


@pytest.mark.usefixtures("fake_files")
@pytest.mark.golden("ewc_fr_replay", "tinyimagenet_class_order.json")
def test_the_class_order_of_tiny_imagenet_is_the_authors(golden, data):
    root = data("split_tiny_imagenet")
    benchmark = make_stream(
        "split_tiny_imagenet", class_order="ewc_fr_replay", dataset_root=root
    )
    folders = (root / "tiny-imagenet-200/wnids.txt").read_text().split()
    assert folders != sorted(folders)
    wanted = [sorted(folders)[place] for place in golden["order"]]
    assert [folders[i] for i in benchmark.classes_order_original_ids] == wanted
    with pytest.raises(UsageError, match="of Tiny-ImageNet; wanted natural or icarl"):
        make_stream("split_digits", class_order="ewc_fr_replay")
