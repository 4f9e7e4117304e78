"""Published rows of LUCIR, CwD, BDR, Mnemonics and AR1*: other options, one function."""

from __future__ import annotations

import json

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from benchmarks.__main__ import main
from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.runs.parser import parse
from benchmarks.streams import STREAMS, make_stream

HALF_FIRST = [
    recipe
    for recipe in RECIPES.values()
    if recipe.defaults.get("class_order") == "icarl"
    and recipe.defaults.get("first_experience_classes") in (50, 500)
]
CORE50 = [  # the other streams have the same images
    recipe
    for recipe in RECIPES.values()
    if recipe.base == "ar1_star_core50"
    and recipe.defaults["stream"] == "core50_nicv2_391"
]


def made(name, *arguments):
    """The strategy of a recipe."""
    setup = RECIPES[name].setup(**parse(RECIPES[name], [*arguments]).options)
    return setup.make_strategy(evaluator=EvaluationPlugin(), device=torch.device("cpu"))


@pytest.mark.parametrize("recipe", HALF_FIRST, ids=lambda recipe: recipe.name)
def test_increments_are_those_of_the_name_and_use_up_the_classes(recipe):
    options = recipe.defaults
    n_classes = STREAMS[options["stream"]].n_classes
    first, later = options["first_experience_classes"], options["n_experiences"] - 1
    increments = f"{later}x{(n_classes - first) // later}"
    assert first == n_classes // 2 == (n_classes - first) // later * later
    assert recipe.name.endswith(increments) or later == 5
    assert recipe.is_row <= recipe.summary.endswith(f"classes, then {increments}.")


def test_each_method_has_the_three_streams_of_each_data_set():
    ends = {
        "cifar100": ["", "_10x5", "_25x2"],
        "imagenet_subset": ["", "_10x5", "_25x2"],
        "imagenet": ["", "_10x50", "_25x20"],
    }
    methods = dict.fromkeys(["lucir", "lucir18", "cwd", "lucir_bdr", "bdr"], ends)
    kinds = ("mnemonics", "mnemonics_lwf", "mnemonics_icarl")
    methods |= dict.fromkeys(kinds, ends)
    for kind in kinds[1:]:
        for code in ("baseline", "released"):  # of the authors' README
            methods[f"{kind}_{code}"] = {"cifar100": ends["cifar100"]}
    assert {recipe.name for recipe in HALF_FIRST} == {
        f"{method}_{data}{end}"
        for method, streams in methods.items()
        for data, its_ends in streams.items()
        for end in its_ends
    }


def test_rows_of_one_stream_differ_in_the_method_only():
    def frame(name):
        method = {"cwd", "bdr"}
        options = parse(RECIPES[name], []).options
        return {k: v for k, v in options.items() if k not in method}, options

    for end in ("cifar100", "cifar100_10x5", "imagenet_25x20"):
        (bdr, _), *others = (
            frame(f"{m}_{end}") for m in ("bdr", "lucir_bdr", "cwd", "lucir18")
        )
        assert all(other == bdr for other, _ in others)
        switches = [(o["cwd"], o["bdr"]) for _, o in others]
        assert switches == [(False, True), (True, False), (False, False)]
    # the higher rate of the first experience belongs to CwD
    rates = {
        m: frame(f"{m}_imagenet_subset")[0]["first_lr"] for m in ("cwd", "lucir18")
    }
    assert rates == {"cwd": 0.2, "lucir18": None}


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("lucir_imagenet", 10.0),
        ("cwd_imagenet_subset_10x5", 10.0),
        ("mnemonics_imagenet_subset", 10.0),
        ("mnemonics_icarl_imagenet_25x20", 1.0),
    ],
)
def test_imagenet_is_trained_as_in_lucirs_script(name, weight):
    strategy = made(name)
    extractor = strategy.model.feature_extractor
    assert extractor.feature_size == 512 and extractor.conv1.kernel_size == (7, 7)
    [group] = strategy.optimizer.param_groups
    assert (group["weight_decay"], group["momentum"]) == (1e-4, 0.9)
    assert (strategy.train_epochs, strategy.train_mb_size) == (90, 128)
    of_losses = {
        "LUCIRPlugin": "distillation_weight",
        "ScoreDistillationPlugin": "weight",
    }
    weights = [
        getattr(plugin, of_losses[type(plugin).__name__])
        for plugin in strategy.plugins
        if type(plugin).__name__ in of_losses
    ]
    assert max(weights) == weight


def test_exemplars_are_cut_as_the_images_are_where_these_are_cut_out_of_larger_ones():
    def size_of(name):
        transform = made(name).buffer.buffer_transform
        return None if transform == "auto" else transform(torch.rand(3, 224, 224)).shape

    assert size_of("mnemonics_imagenet_subset") == (3, 224, 224)
    assert size_of("mnemonics_cifar100_10x5") is None  # that of the data fits


class _Rates(SupervisedPlugin):
    """Rates of learning at the start of each epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def before_training_epoch(self, strategy, **kwargs):
        self.seen.append(round(strategy.optimizer.param_groups[0]["lr"], 6))


def test_first_experience_has_its_own_rate_and_the_same_milestones():
    options = ["--smoke", "--first_lr", "0.02", "--lr", "0.01", "--milestones", "[1]"]
    options += ["--train_epochs", "2", "--exemplars_per_class", "4"]
    strategy = made("cwd_imagenet_subset", *options)
    rates = _Rates()
    strategy.plugins.append(rates)
    stream = make_stream("split_digits", images_per_class=8).train_stream
    for experience in stream[:3]:
        strategy.train(experience)
    assert rates.seen == [0.02, 0.002, 0.01, 0.001, 0.01, 0.001]


def test_own_rate_without_milestones_is_refused():
    with pytest.raises(UsageError, match="first_lr is 0.2 without milestones"):
        made("bdr_cifar100", "--first_lr", "0.2", "--milestones", "[]")


@pytest.mark.parametrize("recipe", CORE50, ids=lambda recipe: recipe.name)
def test_each_row_of_core50_cuts_the_papers_network(recipe):
    strategy = made(recipe.name, "--weights", "null")
    layer = recipe.defaults["latent_layer"]
    wanted = layer if layer == "images" else f"feature_extractor.{layer}"
    assert strategy.latent_layer == wanted
    assert strategy.buffer.max_size == recipe.defaults["memory_size"]
    assert recipe.defaults["weights"] == "pytorchcv"


@pytest.mark.parametrize(
    ("name", "options", "memory", "n_bytes"),
    [
        ("images", ["--latent_layer", "images"], "100 images", 100 * 8 * 8 * 4),
        ("no_replay", ["--latent_layer", "conv1", "--memory_size", "0"], "no", 0),
    ],
)
def test_native_rehearsal_and_none_run_from_start_to_end(
    name, options, memory, n_bytes, tmp_path
):
    name = f"ar1_star_core50_{name}"
    run = ["run", name, "--smoke", *options, "--device", "cpu", "--threads", "1"]
    assert main([*run, "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / name / "0" / "run.json").read_text())
    assert record["finished"] and record["memory"].startswith(memory)
    kept = record["memory_bytes"].get("latents", 0)
    assert n_bytes <= kept <= 1.2 * n_bytes
