"""Accuracy of submodels, and of the recognition of the right one."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from cases import APIS, N_CLASSES, toy_benchmark, toy_model

from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint
from avalanche_ext.metrics.task_recognition import PREFIXES, TaskRecognitionAccuracy

Recognition = namedtuple("Recognition", "owner chosen task_aware task_agnostic")


class Guessing(Naive):
    """Draws what it recognises; keeps every batch for a slow count."""

    trained = 2  # experiences of two classes
    recognition = None

    def forward(self):
        logits = super().forward()
        if self.is_training:
            self.recognition = None
            return logits
        owner = self.mb_y // 2
        self.recognition = Recognition(
            owner.where(owner < self.trained, -1),
            torch.randint(self.trained, owner.shape),
            *torch.randn(2, len(owner), N_CLASSES),
        )
        exp = self.experience.current_experience
        self.seen.append((exp, self.mb_y, self.recognition))
        return logits


def guessing(metric=None):
    metric = metric or TaskRecognitionAccuracy()
    model = toy_model(cosine=False)
    strategy = Guessing(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        train_mb_size=24,
        eval_mb_size=7,
        evaluator=EvaluationPlugin(metric, loggers=[BaseLogger()]),
    )
    strategy.seen = []
    return strategy


def slow_shares(batches, *, only_owned):
    """Sample by sample."""
    right, total = [0, 0, 0], 0
    for _, labels, recognition in batches:
        for y, owner, chosen, aware, agnostic in zip(labels.tolist(), *recognition):
            if only_owned and owner == -1:
                continue
            total += 1
            right[0] += owner >= 0 and aware.argmax() == y
            right[1] += owner >= 0 and agnostic.argmax() == y
            right[2] += owner >= 0 and chosen == owner
    return [float(n) / total for n in right]


def published(results, level):
    """The three values of a stream or experience, in order."""
    found = {k: v for k, v in results.items() if level in k}
    assert [name.split("_Acc")[0] + "_Acc" for name in found] == list(PREFIXES)
    return list(found.values())


@pytest.mark.parametrize("api", APIS)
def test_shares_agree_with_a_count_sample_by_sample(api):
    strategy, benchmark = guessing(), toy_benchmark(api)
    results = strategy.eval(benchmark.test_stream)
    stream = slow_shares(strategy.seen, only_owned=True)
    assert published(results, "_Stream/eval_phase/test_stream") == pytest.approx(stream)
    for k in range(3):
        own = [batch for batch in strategy.seen if batch[0] == k]
        wanted = slow_shares(own, only_owned=False)
        assert published(results, f"/Exp00{k}") == pytest.approx(wanted)
        assert (sum(wanted) > 0) == (k < 2)
    tasks = any("/Task00" in name for name in results)
    assert tasks == (api != "new")


def test_each_evaluation_counts_anew():
    strategy, benchmark = guessing(), toy_benchmark()
    strategy.eval(benchmark.test_stream)
    strategy.seen = []
    results = strategy.eval(benchmark.test_stream[:1])
    wanted = slow_shares(strategy.seen, only_owned=True)
    assert published(results, "_Stream") == pytest.approx(wanted)
    assert list(strategy.evaluator.metrics[0].result().values()) == pytest.approx(
        wanted
    )


def test_stream_of_classes_never_trained_has_no_value_but_its_experiences_have():
    strategy = guessing()
    results = strategy.eval(toy_benchmark().test_stream[2:])
    assert published(results, "/Exp002") == [0.0, 0.0, 0.0]
    assert not [name for name in results if "_Stream" in name]


class LastTwo(Naive):
    """Answers class 0 or 1 where it is asked, and keeps what it answered."""

    def forward(self):
        logits = super().forward()
        if not self.is_training:
            self.seen.append((self.experience, self.mb_y, logits))
        return logits


def test_other_strategies_know_the_experience_by_its_classes():
    model, benchmark = toy_model(cosine=False), toy_benchmark()
    metric = TaskRecognitionAccuracy()
    strategy = LastTwo(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        train_mb_size=24,
        train_epochs=3,
        eval_mb_size=7,
        evaluator=EvaluationPlugin(metric, loggers=[BaseLogger()]),
    )
    strategy.train(benchmark.train_stream[:2])
    strategy.seen = []
    results = strategy.eval(benchmark.test_stream)
    assert not [name for name in results if "Recognition" in name]
    right = {"Aware": [], "Agnostic": []}
    for experience, labels, logits in strategy.seen:
        own = sorted(experience.classes_in_this_experience)
        for y, z in zip(labels.tolist(), logits):
            if y < 4:  # trained
                right["Aware"].append(max(own, key=lambda k: z[k]) == y)
                right["Agnostic"].append(int(z.argmax()) == y)
    for name, each in right.items():
        share = results[f"Task{name}_Acc_Stream/eval_phase/test_stream"]
        assert share == pytest.approx(sum(each) / len(each))
    assert sum(right["Aware"]) > sum(right["Agnostic"]) > 0
    assert results["TaskAware_Acc_Exp/eval_phase/test_stream/Task000/Exp002"] == 0


def test_counts_survive_a_checkpoint(tmp_path):
    strategy, benchmark = guessing(), toy_benchmark()
    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream)
    strategy.recognition, strategy.seen = None, []
    save_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    again = guessing()
    load_checkpoint(tmp_path / "c.pt", again, benchmark.train_stream)
    before, after = (s.evaluator.metrics[0].result() for s in (strategy, again))
    assert before == after and len(before) == 3
