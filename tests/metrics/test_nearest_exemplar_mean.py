"""Accuracy of the nearest mean of exemplars."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from cases import APIS, N_CLASSES, naive_with, toy_benchmark, toy_model

from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint
from avalanche_ext.metrics import NearestExemplarMeanAccuracy
from avalanche_ext.plugins import ExemplarReplayPlugin, NearestExemplarMeanPlugin


class Guess(SupervisedPlugin):
    """Draws scores; keeps every batch for a slow count."""

    gives_nearest_mean = True

    def __init__(self):
        super().__init__()
        self.seen = []

    def after_eval_forward(self, strategy, **kwargs):
        n = len(strategy.mb_y)
        strategy.nearest_mean = torch.randn(n, N_CLASSES)
        exp = strategy.experience.current_experience
        self.seen.append((exp, strategy.mb_y, strategy.nearest_mean))

    def after_eval(self, strategy, **kwargs):
        strategy.nearest_mean = None


def evaluator():
    return EvaluationPlugin(NearestExemplarMeanAccuracy(), loggers=[BaseLogger()])


def with_plugins(*plugins, **options):
    return naive_with(
        *plugins,
        evaluator=evaluator(),
        **{"eval_mb_size": 7, "train_epochs": 1, **options},
    )


def slow_share(batches):
    """Sample by sample."""
    pairs = [p for _, y, scores in batches for p in zip(y.tolist(), scores)]
    return sum(int(s.argmax()) == y for y, s in pairs) / len(pairs)


@pytest.mark.parametrize("api", APIS)
def test_shares_agree_with_a_count_sample_by_sample(api):
    guess, benchmark = Guess(), toy_benchmark(api)
    strategy = with_plugins(guess)
    strategy.train(benchmark.train_stream[:2])
    guess.seen = []
    results = strategy.eval(benchmark.test_stream)
    results = {k: v for k, v in results.items() if k.startswith("NearestMean_Acc")}
    seen = [(e, y[y < 4], s[y < 4]) for e, y, s in guess.seen]
    stream = "NearestMean_Acc_Stream/eval_phase/test_stream"
    assert results.pop(stream) == pytest.approx(slow_share(seen))
    assert len(results) == 3
    for k in range(3):
        own = slow_share([b for b in guess.seen if b[0] == k])
        [value] = [v for name, v in results.items() if name.endswith(f"/Exp00{k}")]
        assert value == pytest.approx(own) and own > 0


def test_each_evaluation_counts_anew():
    guess, benchmark = Guess(), toy_benchmark()
    strategy = with_plugins(guess)
    strategy.train(benchmark.train_stream)
    strategy.eval(benchmark.test_stream)
    guess.seen = []
    strategy.eval(benchmark.test_stream[:1])
    [value] = strategy.evaluator.metrics[0].result().values()
    assert value == pytest.approx(slow_share(guess.seen))


def test_it_measures_the_plugin_as_other_metrics_do_when_it_predicts():
    from avalanche.evaluation.metrics import accuracy_metrics

    buffer, benchmark = HerdingBuffer(per_class=4), toy_benchmark("new")
    nearest = NearestExemplarMeanPlugin(buffer, predict=True)
    metrics = NearestExemplarMeanAccuracy(), accuracy_metrics(experience=True)
    strategy = naive_with(
        ExemplarReplayPlugin(buffer),
        nearest,
        evaluator=EvaluationPlugin(*metrics, loggers=[BaseLogger()]),
    )
    strategy.train(benchmark.train_stream[:2])
    results = strategy.eval(benchmark.test_stream)
    shares = {
        k.split("/")[-1]: v for k, v in results.items() if "NearestMean_Acc_E" in k
    }
    wanted = {k.split("/")[-1]: v for k, v in results.items() if "Top1_Acc_Exp" in k}
    assert shares == pytest.approx(wanted) and shares["Exp000"] > 0
    assert shares["Exp002"] == 0  # not trained


def test_nothing_is_published_while_there_are_no_exemplars():
    nearest = NearestExemplarMeanPlugin(HerdingBuffer())
    strategy = with_plugins(nearest, model=toy_model(cosine=False))
    assert strategy.eval(toy_benchmark().test_stream) == {}


@pytest.mark.parametrize("call", ["train", "eval"])
def test_a_strategy_without_the_plugin_is_refused(call):
    strategy = with_plugins(model=toy_model(cosine=False))
    stream = getattr(toy_benchmark(), f"{call.replace('eval', 'test')}_stream")
    with pytest.raises(
        ValueError, match="Naive has no class means .* wanted a Nearest"
    ):
        getattr(strategy, call)(stream)


def test_counts_survive_a_checkpoint(tmp_path):
    def make():
        buffer = HerdingBuffer(per_class=4)
        nearest = NearestExemplarMeanPlugin(buffer)
        return with_plugins(ExemplarReplayPlugin(buffer), nearest)

    strategy, benchmark = make(), toy_benchmark()
    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream)
    save_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    again = make()
    load_checkpoint(tmp_path / "c.pt", again, benchmark.train_stream)
    metrics = [s.evaluator.metrics[0] for s in (strategy, again)]
    assert metrics[0].result() == metrics[1].result() != {}
    assert metrics[0].seen_classes == metrics[1].seen_classes == [0, 1]
