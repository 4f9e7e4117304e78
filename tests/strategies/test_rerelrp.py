"""ReReLRP: submodels that never change, and nothing else that is kept."""

from __future__ import annotations

from contextlib import nullcontext
from types import FunctionType, MethodType

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from cases import APIS, N_CLASSES, build, toy_benchmark
from rerelrp_hosts import (
    NETWORKS,
    SHAPE,
    evaluator,
    growing,
    images,
    mlp,
    rerelrp,
    sgd,
    shares,
    stream_of,
    trained,
)
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avalanche_ext.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from avalanche_ext.metrics import UnitCapacity


def outputs(strategy):
    n = len(strategy._freezing.submodels)
    return [strategy.submodel(k)(images()) for k in range(n)]


def share_of_experience(metrics, prefix, i):
    [value] = [
        v for k, v in metrics.items() if f"{prefix}_Exp" in k and f"Exp00{i}" in k
    ]
    return value


@pytest.mark.parametrize("api", APIS)
def test_task_aware_accuracy_of_an_experience_never_changes(api):
    strategy, stream = rerelrp(evaluator=evaluator()), toy_benchmark(api)
    seen = []
    for i, experience in enumerate(stream.train_stream):
        strategy.train(experience)
        metrics = strategy.eval(stream.test_stream)
        now = [share_of_experience(metrics, "TaskAware_Acc", k) for k in range(i + 1)]
        assert now[:i] == seen
        seen = now
    assert sum(seen) / 3 > 0.8


@pytest.mark.parametrize("name", ["mlp", "growing", "cnn"])
def test_submodels_survive_a_checkpoint_bit_for_bit(name, tmp_path):
    stream = stream_of().train_stream
    strategy = trained(rerelrp(NETWORKS[name](), acc_drop=15), n=2)
    save_checkpoint(tmp_path / "c.pt", strategy, stream)
    fresh = rerelrp(NETWORKS[name](), acc_drop=15)
    load_checkpoint(tmp_path / "c.pt", fresh, stream)
    assert fresh.capacity() == strategy.capacity()
    for ours, wanted in zip(outputs(fresh), outputs(strategy), strict=True):
        assert torch.equal(ours, wanted)
    for each in (strategy, fresh):
        torch.manual_seed(4)
        each.train(stream[2])
    for ours, wanted in zip(outputs(fresh), outputs(strategy), strict=True):
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize(
    "other",
    [
        {"acc_drop": 3},
        {"validation_fraction": 0.2},
        {"reference_per_class": 11},
        {"reference_selection": "random"},
        {"composite": "zplus"},
        {"start": "one"},
        {"prune_head": True},
        {"min_units": 2},
        {"prune_step": 2},
        {"freeze_dropout": True},
        {"evaluate_unpruned_first": True},
        {"on_repeat": "ignore"},
        {"features": 5},
        {"num_trees": 5},
        {"table": "code"},
        {"seed": 1},
        {"eval_mode": "task_aware"},
    ],
)
def test_a_checkpoint_of_other_arguments_is_refused(other, tmp_path):
    stream = stream_of().train_stream
    save_checkpoint(tmp_path / "c.pt", trained(rerelrp(train_epochs=4), n=1), stream)
    [name] = other
    with pytest.raises(CheckpointError, match=f"{name} = "):
        load_checkpoint(tmp_path / "c.pt", rerelrp(train_epochs=4, **other), stream)


def test_every_unit_is_frozen_first_by_one_experience_or_free():
    strategy, sizes = rerelrp(acc_drop=15), {}
    for experience in stream_of().train_stream:
        strategy.train(experience)
        for name, layer in strategy.capacity().items():
            n = strategy.model.get_submodule(name).weight.shape[0]
            assert sum(layer.first_frozen) + layer.free == n
            before = sizes.get(name, [])
            assert layer.first_frozen[:-1] == before  # what is kept stays kept
            sizes[name] = layer.first_frozen
    keeps = strategy._freezing.submodels.keeps
    for name, layer in strategy.capacity().items():
        kept = [a + b for a, b in zip(layer.first_frozen, layer.shared)]
        assert kept == [int(keep[name].sum()) for keep in keeps] and min(kept) > 0


def accuracy_of(submodel, experience):
    x, y = zip(*[(x, y) for x, y, *_ in experience.dataset])
    found = torch.tensor(submodel.classes)[submodel(torch.stack(x)).argmax(1)]
    return 100 * float((found == torch.tensor(y)).float().mean())


@pytest.mark.parametrize("acc_drop", [0, 5, 12.5, 30])
def test_a_submodel_is_as_accurate_as_was_asked(acc_drop):
    stream = stream_of()
    strategy = rerelrp(acc_drop=acc_drop, valid_stream=stream.test_stream)
    experiences = zip(stream.train_stream, stream.test_stream)
    with (
        pytest.warns(match="no sample may be lost") if acc_drop == 5 else nullcontext()
    ):
        for k, (train, valid) in enumerate(experiences):
            strategy.train(train)
            accuracies = strategy._freezing.accuracies
            found = accuracy_of(strategy.submodel(k), valid)
            lost = accuracies[0] - found
            assert lost < acc_drop or lost <= 1e-5
            assert any(abs(found - each) < 1e-4 for each in accuracies)
            last = accuracies[0] - accuracies[-1]  # what the step undone would cost
            everything = all(
                int(keep.sum()) == 1
                for name, keep in strategy._freezing.submodels.keeps[k].items()
                if name != "train_classifier"
            )
            assert everything or (last >= acc_drop and last > 0)


def test_the_more_accuracy_may_be_lost_the_fewer_units_are_kept():
    free = []
    for acc_drop in (0, 60):
        torch.manual_seed(0)
        strategy = trained(rerelrp(acc_drop=acc_drop), n=1)
        free.append(sum(layer.free for layer in strategy.capacity().values()))
    assert free == [free[0], 22] and free[0] < 22  # of 24, one a layer stays


def reachable(thing):
    """Everything below attributes, containers and closures."""
    met, todo = set(), [thing]
    while todo:
        each = todo.pop()
        if id(each) in met or isinstance(each, (type, str, bytes)):
            continue
        met.add(id(each))
        yield each
        if isinstance(each, dict):
            todo += [*each.keys(), *each.values()]
        elif isinstance(each, (list, tuple, set, frozenset)):
            todo += each
        elif isinstance(each, FunctionType):
            todo += [cell.cell_contents for cell in each.__closure__ or ()]
        elif isinstance(each, MethodType):
            todo += [each.__self__]
        elif type(each).__module__ != "builtins":
            todo += getattr(each, "__dict__", {}).values()


@pytest.mark.parametrize("recognition_pass", ["stacked", "each"])
def test_no_image_is_kept(recognition_pass):
    stream = stream_of()
    strategy = rerelrp(recognition_pass=recognition_pass, eval_every=1)
    for experience in stream.train_stream:
        strategy.train(experience, eval_streams=[stream.test_stream])
        for _ in range(2):
            found = list(reachable(strategy))
            tensors = [thing for thing in found if isinstance(thing, Tensor)]
            assert any(
                thing is strategy.model.train_classifier.weight for thing in found
            )
            assert any(
                rows is strategy._detectors.rows[0][0] for rows in tensors
            )  # looked deep
            assert not any(t.shape[-3:] == SHAPE for t in tensors)
            assert not any(isinstance(t, (Dataset, DataLoader)) for t in found)
            strategy.eval(stream.test_stream)


def test_memory_is_that_of_masks_and_of_a_few_relevances_a_sample():
    strategy = trained(rerelrp(features=6, reference_per_class=12))
    found = {}
    for plugin in strategy.plugins:
        if hasattr(plugin, "memory_bytes"):
            found |= plugin.memory_bytes()
    pairs = 3 + 2 + 1  # of submodel and experience, the latter not earlier
    assert found["relevance_rows"] == pairs * (2 * 12) * 4 * 6
    assert found["masks"] == 3 * (16 + 8 + 2)


def test_capacity_is_measured():
    metric = UnitCapacity()
    strategy = rerelrp(evaluator=EvaluationPlugin(metric, loggers=[]))
    trained(strategy, n=1)
    layer = strategy.capacity()["feature_extractor.1"]
    free = metric.result()["Free/feature_extractor.1"]
    assert free == pytest.approx(100 * layer.free / 16)


def test_rerelrp_beats_naive_by_a_quarter_without_any_old_image():
    stream, found = stream_of(), []
    for make in (rerelrp, lambda **o: build(Naive, train_epochs=6, **o)):
        torch.manual_seed(0)
        model = mlp()
        options = {"model": model, "optimizer": sgd(model), "evaluator": evaluator()}
        strategy = trained(make(**options), stream)
        found.append(shares(strategy.eval(stream.test_stream)))
    ours, naive = found
    assert ours["TaskAgnostic_Acc"] >= naive["TaskAgnostic_Acc"] + 0.25
    assert ours["TaskAware_Acc"] > 0.9


def test_figures_show_capacity_and_an_image_of_each_submodel():
    strategy = trained(rerelrp(), n=2)
    before = {k: v.clone() for k, v in strategy.model.state_dict().items()}
    figures = strategy.figures(stream_of().test_stream)
    assert set(figures) == {"capacity", "heatmaps"}
    titles = [axes.get_title() for axes in figures["heatmaps"].axes]
    assert [t.split(":")[0] for t in titles if "experience" in t] == [
        "experience 0",
        "experience 1",
    ]
    for name, value in strategy.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_free_units_drawn_anew_live_again_and_no_submodel_sees_it():
    stream, model = stream_of().train_stream, mlp()
    strategy = rerelrp(model, reinitialize_free=True, acc_drop=15)
    strategy.train(stream[0])
    free = ~strategy._freezing.submodels.frozen_rows(model)["feature_extractor.1"]
    layer, norm = model.feature_extractor[1], model.feature_extractor[2]
    with torch.no_grad():
        layer.weight[free] = 0
        layer.bias[free] = -1e3  # dead behind the ReLU, for good
    before = outputs(strategy)
    strategy.train(stream[1])
    assert torch.equal(outputs(strategy)[0], before[0])
    with torch.no_grad():
        alive = norm.eval()(layer(images().flatten(1))).relu().any(0)
    assert alive[free].all()


def test_free_units_are_drawn_from_the_generator():
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(seed)
        strategy = rerelrp(reinitialize_free=True, generator=generator, acc_drop=15)
        trained(strategy, n=2)
        found.append(strategy.model.feature_extractor[1].weight.detach())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_a_head_that_grows_has_as_many_rows_as_classes_were_seen():
    strategy = rerelrp(growing())
    for i, experience in enumerate(stream_of().train_stream):
        strategy.train(experience)
        head = strategy.model.get_submodule(strategy._freezing.submodels.head)
        assert head.out_features == 2 * (i + 1) <= N_CLASSES
