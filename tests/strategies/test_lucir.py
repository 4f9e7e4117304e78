"""The LUCIR strategy as a whole."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive
from cases import APIS, build, toy_benchmark, toy_model
from contract import assert_equal, run, weights
from torch import nn
from whole_experiences import assert_whole_experiences_agree

from avalanche_ext.plugins import LUCIRPlugin
from avalanche_ext.strategies import LUCIR


@pytest.mark.golden("bdr_cwd", "e2e_lucir_only*.npz")
def test_whole_experiences_agree_with_the_authors(golden):
    assert_whole_experiences_agree(LUCIR, golden)


@pytest.mark.parametrize("api", APIS)
def test_lucir_beats_naive_on_the_toy_stream(api):
    def accuracy(strategy, **options):
        _, metrics = run(
            lambda **o: build(strategy, train_epochs=8, **o), api, **options
        )
        name = "Top1_Acc_Stream/eval_phase/test_stream"
        values = [v for k, v in metrics[-1].items() if k.startswith(name)]
        return sum(values) / len(values)

    lucir = accuracy(lambda **o: LUCIR(exemplars_per_class=10, **o))
    assert lucir > accuracy(Naive) + 0.2


def test_every_sample_and_exemplar_is_seen_once_an_epoch():
    seen = []

    class Watcher(SupervisedPlugin):
        def before_forward(self, strategy, **kwargs):
            seen.append(strategy.mb_y.clone())

    strategy = build(LUCIR, exemplars_per_class=5, train_epochs=1, plugins=[Watcher()])
    for i, experience in enumerate(toy_benchmark().train_stream):
        seen.clear()
        strategy.train(experience)
        counts = torch.cat(seen).bincount(minlength=6).tolist()
        assert counts == [5] * 2 * i + [24] * 2 + [0] * (4 - 2 * i)


def test_momenta_do_not_outlive_an_experience():
    states = []

    class Watcher(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            states.append(len(strategy.optimizer.state))

    strategy = build(LUCIR, plugins=[Watcher()])
    for experience in toy_benchmark().train_stream:
        strategy.train(experience)
    assert states == [0, 0, 0] and len(strategy.optimizer.state) > 0


def test_caller_s_plugin_list_is_not_modified():
    mine = []
    build(LUCIR, plugins=mine)
    assert mine == []


def test_evaluating_future_classes_first_neither_grows_nor_disturbs():
    plain, _ = run(lambda **o: build(LUCIR, **o), evaluations=0)
    torch.manual_seed(0)
    benchmark, strategy = toy_benchmark(), build(LUCIR)
    torch.manual_seed(1)
    for experience in benchmark.train_stream:
        strategy.train(experience)
        known = strategy.model.train_classifier.n_classes
        strategy.eval(benchmark.test_stream)
        assert strategy.model.train_classifier.n_classes == known
    assert_equal(weights(strategy), weights(plain))


def test_training_the_stream_in_one_call_equals_one_call_an_experience():
    one, _ = run(lambda **o: build(LUCIR, **o), evaluations=0)
    torch.manual_seed(0)
    benchmark, strategy = toy_benchmark(), build(LUCIR)
    torch.manual_seed(1)
    strategy.train(benchmark.train_stream)
    assert_equal(weights(strategy), weights(one))


def test_stopping_an_experience_early_does_not_skip_the_next():
    iterations = [0, 0, 0]

    class Stopper(SupervisedPlugin):
        def after_training_iteration(self, strategy, **kwargs):
            iterations[strategy.clock.train_exp_counter] += 1
            strategy.stop_training()

    strategy = build(LUCIR, plugins=[Stopper()], train_epochs=1)
    strategy.train(toy_benchmark().train_stream)
    assert iterations == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": toy_model(cosine=False)}, "wanted a CosineClassifier"),
        ({"model": nn.Linear(4, 2)}, "does not expose its features"),
        ({"exemplars_per_class": 0}, "exemplars_per_class is 0"),
        ({"exemplars_per_class": 2.5}, "exemplars_per_class is 2.5; wanted a whole"),
        ({"exemplars_per_class": True}, "exemplars_per_class is True"),
        ({"memory_size": -5}, "memory_size is -5"),
        ({"herding": "best"}, "herding is 'best'; wanted one of 'without_replacement'"),
        ({"imprint": "x"}, "imprint is 'x'; wanted one of True, False"),
        ({"margin_ranking": 1}, "margin_ranking is 1; wanted one of True, False"),
        ({"optimizer": None}, "optimizer is None; wanted a Optimizer"),
        ({"train_mb_size": 1.5}, "train_mb_size is 1.5"),
        ({"balanced_finetuning": {"lr": 0.1}}, "wanted at least 1 epoch"),
        ({"plugins": [LUCIRPlugin()]}, "'LUCIRPlugin'.*, which LUCIR brings itself"),
        ({"exemplars_per_class": 5, "memory_size": 5}, "wanted one of the two"),
        ({"train_mb_size": 0}, "train_mb_size is 0"),
        ({"train_epochs": -1}, "train_epochs is -1"),
        ({"precision": "float8"}, "'float8'; wanted one of 'fp32', 'bf16'"),
        ({"balanced_finetuning_epochs": -1}, "balanced_finetuning_epochs is -1"),
    ],
)
def test_bad_arguments_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        build(LUCIR, **options)
