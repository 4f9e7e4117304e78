"""The published rows of ReReLRP: streams, networks, schedule."""

from __future__ import annotations

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.models import IncrementalClassifier
from avalanche.training.plugins import EvaluationPlugin
from rerelrp_hosts import rerelrp, sgd
from torch import nn

from avalanche_ext.models import LeNet, vgg11
from avalanche_ext.plugins import RelevanceFreezingPlugin
from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.streams import STREAMS, make_stream
from benchmarks.streams.transforms import make_transforms
from benchmarks.tables.targets import read_targets
from benchmarks.training.plateau import PlateauPlugin

ROWS = [recipe for recipe in RECIPES.values() if recipe.base == "rerelrp_cifar10"]
AGNOSTIC = [recipe for recipe in ROWS if "eval_mode" not in recipe.defaults]


def made(recipe):
    setup = RECIPES[recipe].setup()
    return setup.make_strategy(evaluator=EvaluationPlugin(), device=torch.device("cpu"))


def test_each_row_has_the_two_figures_of_the_authors_and_a_task_aware_twin():
    targets = read_targets()
    for recipe in ROWS:
        mine = [target.metric for target in targets if target.recipe == recipe.name]
        assert sorted(mine) == ["forgetting", "mean_experience_accuracy"]
    assert len(AGNOSTIC) == len(ROWS) - len(AGNOSTIC) == 8
    for recipe in AGNOSTIC:
        twin = RECIPES[f"{recipe.name}_task_aware"].defaults
        assert twin == {**recipe.defaults, "eval_mode": "task_aware"}


@pytest.mark.usefixtures("fake_files")
@pytest.mark.parametrize("recipe", AGNOSTIC, ids=lambda recipe: recipe.name)
def test_rows_have_the_experiences_and_the_pixels_of_the_authors(recipe, data):
    setup = recipe.setup()
    root = data(setup.stream)
    benchmark = make_stream(setup.stream, dataset_root=root, **setup.stream_options)
    wanted = {
        "fmnist": [2] * 5,
        "emnist": [2] * 13,
        "svhn": [2] * 5,
        "cifar10": [2] * 5,
        "cifar100": [10] * 10,
        "tiny_imagenet": [40] * 5,
        "pathmnist": [3, 2, 2, 2],
        "bloodmnist": [2] * 4,
    }
    assert benchmark.n_classes_per_exp == wanted[recipe.name.removeprefix("rerelrp_")]
    order = list(range(STREAMS[setup.stream].n_classes))
    assert list(benchmark.classes_order_original_ids) == order
    train, test = benchmark.train_stream[0].dataset, benchmark.test_stream[0].dataset
    assert train[0][0].shape == test[0][0].shape == STREAMS[setup.stream].image_shape
    raw = 0 <= test[0][0].min() and test[0][0].max() <= 1
    assert raw == (recipe.defaults.get("normalize") is False)


@pytest.mark.parametrize("recipe", AGNOSTIC, ids=lambda recipe: recipe.name)
def test_crops_of_cifar_and_medmnist_are_resized_from_28_or_32_pixels_padded_by_4(
    recipe,
):
    setup = recipe.setup()
    info, augment = STREAMS[setup.stream], setup.stream_options["augment"]
    steps, _ = make_transforms(info, augment=augment, normalize=False)
    kinds = [type(step).__name__ for step in steps.transforms]
    data = recipe.name.removeprefix("rerelrp_")
    if data in ("cifar10", "cifar100", "pathmnist", "bloodmnist"):
        pad, crop, *_ = steps.transforms
        assert kinds[1:3] == ["RandomResizedCrop", "RandomHorizontalFlip"]
        pixels = 28 if data.endswith("mnist") else 32
        assert 32 + 2 * pad.padding == pixels + 2 * 4 and crop.size == (32, 32)
    else:
        assert kinds == ["RandomHorizontalFlip"] * (data == "tiny_imagenet") + [
            "ToTensor"
        ]


def test_settings_of_the_authors_reach_the_strategy():
    strategy = made("rerelrp_fmnist")
    plugin = strategy.plugins[0]
    [freezing] = (p for p in strategy.plugins if isinstance(p, RelevanceFreezingPlugin))
    assert isinstance(plugin, PlateauPlugin)
    assert plugin.held_back is freezing.validation
    assert (plugin.factor, plugin.patience, plugin.min_lr) == (1 / 3, 5, 1e-4)
    assert plugin.back_to_best and plugin.start_epoch == 0
    assert (strategy.train_epochs, strategy.train_mb_size) == (200, 512)
    [group] = strategy.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0, 0)
    assert freezing.acc_drop == 1 and freezing.evaluate_unpruned_first
    assert isinstance(strategy.model[0], LeNet)
    assert strategy.reference_per_class == 67
    assert RECIPES["rerelrp_pathmnist"].defaults["reference_per_class"] == 132


def test_schedules_exclude_each_other():
    with pytest.raises(UsageError, match=r"milestones are \(5,\) and plateau_patience"):
        RECIPES["rerelrp_cifar10"].setup(milestones=(5,))


def narrow_vgg11():
    """The convolutions of VGG11, with narrow linear layers."""
    with torch.device("meta"):  # its own are large
        net = vgg11()
    net.features.to_empty(device="cpu")
    for layer in net.features:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    net.classifier[0], net.classifier[3] = nn.Linear(25088, 12), nn.Linear(12, 12)
    return nn.Sequential(net, IncrementalClassifier(12))


@pytest.mark.filterwarnings("ignore:the accuracy on validation samples is 50")
@pytest.mark.parametrize(
    ("build", "shape", "n_units"),
    [
        (lambda: nn.Sequential(LeNet(), IncrementalClassifier(84)), (1, 28, 28), 226),
        (narrow_vgg11, (3, 32, 32), 2776),
    ],
)
def test_units_of_lenet_and_vgg11_are_pruned_by_relevance(build, shape, n_units):
    model, rng = build(), torch.Generator().manual_seed(3)
    y = torch.arange(24) % 2
    x = torch.randn(24, *shape, generator=rng) + y[:, None, None, None]
    strategy = rerelrp(
        model,
        optimizer=sgd(model),
        input_shape=shape,
        acc_drop=100,
        reference_per_class=8,
        prune_step=300,
        train_epochs=1,
    )
    data = torch.utils.data.TensorDataset(x, y)
    data.targets = y.tolist()
    strategy.train(nc_benchmark(data, data, 1, False).train_stream)
    capacity = strategy.capacity()
    assert sum(c.free + sum(c.first_frozen) for c in capacity.values()) == n_units
    assert all(c.first_frozen[0] >= 1 for c in capacity.values())
    assert any(c.free > 0 for c in capacity.values())
    logits = strategy.submodel(0)(x)
    assert logits.shape == (24, 2) and logits.isfinite().all()
