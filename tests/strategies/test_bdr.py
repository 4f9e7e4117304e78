"""The BDR strategy as a whole."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import APIS, build, toy_benchmark
from contract import assert_equal, run, weights
from torch import nn
from whole_experiences import assert_whole_experiences_agree

from avalanche_ext.plugins import BDRPlugin, CwDPlugin, LUCIRPlugin
from avalanche_ext.strategies import BDR, LUCIR

BOTH = (False, True)


@pytest.mark.golden("bdr_cwd", "e2e_cwd_bdr*.npz")
def test_whole_experiences_agree_with_the_authors(golden):
    assert_whole_experiences_agree(
        BDR,
        golden,
        cwd_coef=golden["aux_coef"],
        m1=golden["m1"],
        m2=golden["m2"],
        dispersion_weights="last_class",
    )


@pytest.mark.golden("bdr_cwd", "e2e_lucir_only*.npz")
def test_with_both_parts_off_the_authors_lucir_is_left(golden):
    assert_whole_experiences_agree(BDR, golden, cwd=False, bdr=False)


def after(strategy, api="old", **options):
    options = {"exemplars_per_class": 5, "evaluations": 0, **options}
    return weights(run(lambda **o: build(strategy, **o), api, **options)[0])


@pytest.mark.parametrize("api", APIS)
def test_with_both_parts_off_it_is_lucir_bit_for_bit(api):
    assert_equal(after(BDR, api, cwd=False, bdr=False), after(LUCIR, api))


@pytest.mark.parametrize(
    ("off", "plugins"),
    [
        ({"bdr": False}, lambda: [CwDPlugin(0.5)]),
        ({"cwd": False}, lambda: [BDRPlugin()]),
        ({}, lambda: [CwDPlugin(0.5), BDRPlugin()]),
        ({"cwd_coef": 0.0}, lambda: [BDRPlugin()]),
    ],
)
def test_the_strategy_is_lucir_with_the_plugins(off, plugins):
    def lucir(**options):
        return LUCIR(plugins=plugins(), **options)

    assert_equal(after(BDR, **off), after(lucir))


def test_each_part_makes_a_difference():
    runs = [after(BDR, cwd=cwd, bdr=bdr) for cwd in BOTH for bdr in BOTH]
    first = [r["feature_extractor.1.weight"] for r in runs]
    for i in range(4):
        assert not any(torch.equal(first[i], first[j]) for j in range(i))


def test_the_parts_act_in_their_own_experiences():
    active = []

    class Watcher(SupervisedPlugin):
        def after_training_exp(self, strategy, **kwargs):
            adjusts = any(
                getattr(p, "adjustment", None) is not None for p in strategy.plugins
            )
            active.append((strategy.clock.train_exp_counter, adjusts))

    strategy = build(BDR, plugins=[Watcher()])
    strategy.train(toy_benchmark().train_stream)
    assert active == [(0, False), (1, True), (2, True)]


def test_fine_tuning_on_exemplars_is_not_adjusted():
    seen = []

    class Criterion(nn.CrossEntropyLoss):
        def forward(self, logits, targets):
            seen.append(logits.detach())
            return super().forward(logits, targets)

    tuned = {"balanced_finetuning_epochs": 1, "train_epochs": 1}
    strategy = build(BDR, criterion=Criterion(), **tuned)
    strategy.train(toy_benchmark().train_stream[:2])
    # cosine logits lie within the scale; offsets do not
    scale = strategy.model.train_classifier.scale.abs().max() + 0.2
    within = [bool(z.abs().max() <= scale) for z in seen]
    assert within[:3] == [True] * 3  # 48 images in batches of 16
    assert within[3:9] == [False] * 6  # 48 and 40 exemplars
    assert within[9:] == [True]  # 80 exemplars in a batch of 128


def test_one_new_class_an_experience_has_fewer_rivals_than_asked_for():
    # Q13: K' = min(K, classes that are new)
    from avalanche.benchmarks import nc_benchmark
    from cases import N_CLASSES, Images

    benchmark = nc_benchmark(
        Images(12, seed=1),
        Images(4, seed=2),
        n_experiences=5,
        task_labels=False,
        per_exp_classes={0: 2},
        fixed_class_order=list(range(N_CLASSES)),
    )
    strategy = build(BDR, n_negatives=3, exemplars_per_class=5)
    strategy.train(benchmark.train_stream)
    assert all(p.isfinite().all() for p in strategy.model.parameters())


def test_experiences_without_new_classes_go_on():
    stream = toy_benchmark().train_stream
    strategy = build(BDR, without_new_classes="keep")
    strategy.train([stream[0], stream[1], stream[0]])
    assert all(p.isfinite().all() for p in strategy.model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cwd": "yes"}, "cwd is 'yes'; wanted one of True, False"),
        ({"bdr": 1}, "bdr is 1; wanted one of True, False"),
        ({"cwd_coef": -1.0}, "coef is -1.0"),
        ({"cwd_normalization": "x"}, "wanted one of 'code', 'paper'"),
        ({"m1": 2.0}, "m1 is 2.0; wanted a number from 0 to 1"),
        ({"dispersion_weights": "x"}, "'per_class', 'last_class'"),
        ({"plugins": [BDRPlugin()]}, "'BDRPlugin'.*, which BDR brings itself"),
        ({"plugins": [CwDPlugin()]}, "'CwDPlugin'.*, which BDR brings itself"),
        ({"plugins": [LUCIRPlugin()]}, "'LUCIRPlugin'.*, which LUCIR brings itself"),
        ({"criterion": nn.BCEWithLogitsLoss()}, "BCEWithLogitsLoss; wanted"),
        ({"exemplars_per_class": 0}, "exemplars_per_class is 0"),
    ],
)
def test_bad_arguments_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        build(BDR, **options)


def test_parts_switched_off_leave_room_for_the_user_s_own():
    strategy = build(BDR, bdr=False, plugins=[BDRPlugin(m1=1.0, m2=1.0)])
    strategy.train(toy_benchmark().train_stream)
