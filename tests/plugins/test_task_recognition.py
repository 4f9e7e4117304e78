"""Recognition by relevance, on Avalanche's own strategies and any submodels."""

from __future__ import annotations

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from cases import build
from rerelrp_hosts import (
    SHAPE,
    evaluator,
    mlp,
    rerelrp,
    sgd,
    shares,
    stream_of,
    trained,
)
from torch import nn

from avalanche_ext.attribution import LRP
from avalanche_ext.buffers import ReferenceSamples
from avalanche_ext.metrics import TaskRecognitionAccuracy
from avalanche_ext.models import ExperienceDetectors, Submodel
from avalanche_ext.plugins import RelevanceFreezingPlugin, TaskRecognitionPlugin


def frozen(model):
    return RelevanceFreezingPlugin(
        model,
        input_shape=SHAPE,
        acc_drop=0,
        validation_fraction=0.3,
        reference=ReferenceSamples(12),
    )


def recognising(freezing, *, stacked=False, **options):
    own = freezing.submodels
    make = own.stack if stacked else own.all_of
    return TaskRecognitionPlugin(
        lambda s: make(s.model),
        reference=freezing.reference,
        detectors=ExperienceDetectors(6, num_trees=10),
        **options,
    )


def hosted(model, *plugins, **options):
    return build(
        Naive,
        model=model,
        optimizer=sgd(model),
        plugins=list(plugins),
        evaluator=EvaluationPlugin(TaskRecognitionAccuracy(), loggers=[]),
        train_epochs=6,
        **options,
    )


@pytest.mark.parametrize("stacked", [True, False])
def test_experiences_are_recognised_better_than_by_chance(stacked):
    model, stream = mlp(), stream_of()
    freezing = frozen(model)
    strategy = hosted(model, freezing, recognising(freezing, stacked=stacked))
    found = shares(trained(strategy, stream).eval(stream.test_stream))
    assert found["TaskRecognition_Acc"] > 1 / 3 + 0.15
    assert found["TaskAgnostic_Acc"] <= found["TaskRecognition_Acc"]
    assert found["TaskAware_Acc"] >= found["TaskAgnostic_Acc"]


def whole_networks(strategy, known):
    """Submodels of another method: a copy of the network after each experience."""
    model, n = strategy.model, len(known)
    if strategy.is_training and n <= strategy.clock.train_exp_counter:
        classes = (2 * n, 2 * n + 1)
        sites = {name: name for name in ("feature_extractor.1", "feature_extractor.4")}
        sites["train_classifier"] = "train_classifier"
        known.append(Submodel(model, {}, classes, head="train_classifier", sites=sites))
    return known


def test_submodels_of_any_method_are_told_apart():
    known = []
    plugin = TaskRecognitionPlugin(
        lambda strategy: whole_networks(strategy, known),
        reference=ReferenceSamples(12),
        detectors=ExperienceDetectors(6, num_trees=10),
        lrp=LRP(start="one"),
    )
    stream = stream_of()
    strategy = trained(hosted(mlp(), plugin), stream)
    found = shares(strategy.eval(stream.test_stream))
    assert len(known) == len(plugin.detectors) == 3
    assert found["TaskRecognition_Acc"] > 1 / 3 + 0.15
    # of the owners, though the strategy's own answers are not task-aware
    assert found["TaskAware_Acc"] > 0.8


def test_task_aware_may_be_what_the_strategy_answers():
    found = {}
    for task_aware in ("strategy", "submodels"):
        torch.manual_seed(0)
        known, stream = [], stream_of()
        plugin = TaskRecognitionPlugin(
            lambda strategy, known=known: whole_networks(strategy, known),
            reference=ReferenceSamples(12),
            detectors=ExperienceDetectors(6, num_trees=10),
            task_aware=task_aware,
        )
        strategy = trained(hosted(mlp(), plugin), stream)
        found[task_aware] = shares(strategy.eval(stream.test_stream))
    assert found["strategy"]["TaskAware_Acc"] < 0.5  # Naive forgets
    assert found["submodels"]["TaskAware_Acc"] > 0.8
    for kind in ("TaskAgnostic_Acc", "TaskRecognition_Acc"):
        assert found["strategy"][kind] == found["submodels"][kind]


def test_listed_before_what_makes_submodels_it_says_so():
    model = mlp()
    freezing = frozen(model)
    strategy = hosted(model, recognising(freezing), freezing)
    with pytest.raises(
        ValueError, match=r"no submodel has the classes \[0, 1\] just le"
    ):
        strategy.train(stream_of().train_stream[0])


def test_submodels_that_came_two_at_once_are_refused():
    model = mlp()
    freezing = frozen(model)
    strategy = hosted(model, freezing)
    strategy.train(stream_of().train_stream[:1])
    strategy.plugins.insert(1, recognising(freezing))
    with pytest.raises(
        ValueError, match="2 submodels after 0 known ones; wanted one mo"
    ):
        strategy.train(stream_of().train_stream[1])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"submodels": 3}, "submodels is 3; wanted a function"),
        ({"detectors": 3}, "detectors is 3; wanted a ExperienceDetectors"),
        ({"layers": "fc"}, "layers is 'fc'; wanted names"),
        ({"layers": ()}, r"layers is \(\); wanted names"),
        ({"lrp": "epsilon"}, "lrp is 'epsilon'; wanted a LRP"),
        ({"reference": 12}, "reference is 12; wanted a ReferenceSamples"),
        ({"eval_mode": "both"}, "eval_mode is 'both'"),
        ({"task_aware": True}, "task_aware is True"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TaskRecognitionPlugin(**{"submodels": lambda strategy: [], **options})


def test_only_the_layers_named_count():
    model = mlp()
    freezing = frozen(model)
    plugin = recognising(freezing, layers=["feature_extractor.4"])
    strategy = trained(hosted(model, freezing, plugin), n=2)
    assert plugin.detectors.selected[0].max() < 8
    strategy.eval(stream_of().test_stream)


def test_a_layer_that_is_not_there_is_told():
    model = mlp()
    freezing = frozen(model)
    strategy = hosted(model, freezing, recognising(freezing, layers=["fc"]))
    with pytest.raises(ValueError, match="layers have 'fc'; wanted names of conv"):
        trained(strategy, n=1)


def test_both_passes_recognise_the_same():
    found = []
    for recognition_pass in ("stacked", "each"):
        torch.manual_seed(0)
        strategy = rerelrp(recognition_pass=recognition_pass, evaluator=evaluator())
        stream = stream_of()
        found.append(shares(trained(strategy, stream).eval(stream.test_stream)))
    for kind, share in found[0].items():
        assert share == pytest.approx(found[1][kind], abs=0.04)  # they round


def test_what_is_found_is_gone_after_the_evaluation_and_nothing_hooked():
    stream, strategy = stream_of(), rerelrp(eval_every=1)
    for experience in stream.train_stream[:2]:
        strategy.train(experience, eval_streams=[stream.test_stream])
        strategy.eval(stream.test_stream)
        assert not hasattr(strategy, "recognition")
        assert not any(m._forward_hooks for m in strategy.model.modules())
        assert all(p.grad is None or p.is_leaf for p in strategy.model.parameters())


@pytest.mark.parametrize("first", [True, False])
def test_detectors_learn_from_the_pruned_network_also_where_it_does_not_answer(first):
    torch.manual_seed(0)
    strategy = rerelrp(
        evaluate_unpruned_first=first, evaluator=evaluator(), acc_drop=15
    )
    trained(strategy, n=1)
    [[rows]], [selected] = strategy._detectors.rows, strategy._detectors.selected
    keep = strategy._freezing.submodels.keeps[0]
    kept = torch.cat([keep[name] for name in sorted(keep)])
    assert not kept.all()
    assert not rows[:, ~kept[selected]].any()  # no relevance of pruned units
    torch.testing.assert_close(rows, _rows_of(strategy)[:, selected])
    strategy.eval(stream_of().test_stream)


def _rows_of(strategy):
    """Relevances of the reference samples in the pruned submodel, layers sorted."""
    own = strategy.submodel(0).network
    x = [item[0] for item in stream_of().train_stream[0].dataset.eval()]
    units = LRP()(own, torch.stack(x)).units
    whole = torch.cat([units[name] for name in sorted(units)], 1)
    chosen = strategy._detectors
    # which samples they were is not kept: found again by their features
    own = whole[:, chosen.selected[0]]
    near = torch.cdist(
        chosen.rows[0][0], own, compute_mode="donot_use_mm_for_euclid_dist"
    )
    return whole[near.argmin(1)]


def test_the_model_may_be_on_its_own():
    """Submodels need not be of the strategy's model."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 6))
    known = [Submodel(model, {}, (0, 1), head="1", sites={"1": "1"})]
    plugin = TaskRecognitionPlugin(
        lambda strategy: known,
        reference=ReferenceSamples(6),
        detectors=ExperienceDetectors(2, num_trees=2),
    )
    strategy = trained(hosted(mlp(), plugin), n=1)
    found = shares(strategy.eval(stream_of().test_stream[0]))
    assert found["TaskRecognition_Acc"] == 1
