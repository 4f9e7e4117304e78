"""Stopping after any experience and going on in a new strategy changes no bit."""

from __future__ import annotations

import copy
import io
import random
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import (
    accuracy_metrics,
    confusion_matrix_metrics,
)
from avalanche.logging import TextLogger
from avalanche.training.plugins import (
    EvaluationPlugin,
)
from avalanche.training.supervised import Naive
from cases import N_CLASSES, N_EXPERIENCES, SIDE, toy_benchmark
from checkpoint_subjects import CASES, SUBJECTS, Plain, grows, make
from contract import assert_equal, weights
from torch import nn, optim

from avalanche_ext.checkpoint import Resumable, load_checkpoint, save_checkpoint


def seed(number: int) -> None:
    """All global generators."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def go_on(strategy: Any, benchmark: Any, start: int, path: Any = None) -> Any:
    """The rest of the stream; each evaluation covers all classes."""
    results = []
    for n, experience in enumerate(benchmark.train_stream):
        if n >= start:
            strategy.train(experience)
            results.append(dict(strategy.eval(benchmark.test_stream)))
            if path:
                file = path / f"{n + 1}.pt"
                save_checkpoint(file, strategy, benchmark.train_stream, extra={"n": n})
    return results


def new(api: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """A benchmark and a strategy; the same at every call, in every process."""
    seed(0)
    return toy_benchmark(api), make(**options)


def curves(strategy: Any) -> dict[str, Any]:
    """All metrics of a run, flat."""
    return {
        f"{name} {i}": value
        for name, (steps, values) in strategy.evaluator.get_all_metrics().items()
        for i, value in enumerate([*steps, *values])
    }


@pytest.mark.parametrize(("name", "api"), CASES)
def test_resuming_after_any_experience_equals_never_stopping(name, api, tmp_path):
    options, log = SUBJECTS[name], io.StringIO()
    benchmark, wanted = new(api, {**options, "log": log})
    seed(1)
    results = go_on(wanted, benchmark, 0, tmp_path)
    draws = (random.random(), np.random.rand(), torch.rand(()))

    for stop in range(1, N_EXPERIENCES):
        rest = io.StringIO()
        benchmark, strategy = new(api, {**options, "log": rest})
        seed(999)
        path = tmp_path / f"{stop}.pt"
        checkpoint = load_checkpoint(path, strategy, benchmark.train_stream)
        assert (checkpoint.n_experiences, checkpoint.extra["n"]) == (stop, stop - 1)
        last = go_on(strategy, benchmark, stop)[-1]
        assert (random.random(), np.random.rand(), torch.rand(())) == draws
        assert_equal(weights(strategy), weights(wanted))
        assert_equal(last, results[-1])
        assert_equal(curves(strategy), curves(wanted))
        assert rest.getvalue() and log.getvalue().endswith(rest.getvalue())


def test_saving_changes_nothing(tmp_path):
    runs = []
    for path in (None, tmp_path):
        benchmark, strategy = new("old", SUBJECTS["class-balanced replay, EWC"])
        seed(1)
        runs.append((go_on(strategy, benchmark, 0, path), strategy))
    (results, strategy), (others, other) = runs
    assert_equal(weights(other), weights(strategy))
    assert_equal(others[-1], results[-1])


def test_checkpoint_opens_as_plain_data_and_holds_no_images(tmp_path):
    benchmark, strategy = new("old", SUBJECTS["class-balanced replay, EWC"])
    go_on(strategy, benchmark, 0, tmp_path)
    content = torch.load(tmp_path / "3.pt", weights_only=True)
    tensors = [node[1] for node in content["table"] if node[0] == "tensor"]
    assert tensors and not any(t.shape[-3:] == (1, SIDE, SIDE) for t in tensors)


def test_resumed_strategy_keeps_its_parameters_and_trains_them(tmp_path):
    benchmark, strategy = new("old", {"model": grows})
    go_on(strategy, benchmark, 0, tmp_path)
    benchmark, strategy = new("old", {"model": grows})
    parameters = list(strategy.model.parameters())
    load_checkpoint(tmp_path / "1.pt", strategy, benchmark.train_stream)
    pairs = zip(strategy.model.parameters(), parameters, strict=True)
    assert all(ours is theirs for ours, theirs in pairs)
    assert strategy.model.head.classifier.out_features == N_CLASSES
    strategy.train(benchmark.train_stream[1])
    optimized = [p for g in strategy.optimizer.param_groups for p in g["params"]]
    assert all(
        any(p is q for q in optimized) for p in strategy.model.parameters()
    ) and len(optimized) == len(list(strategy.model.parameters()))


class Teacher(SupervisedPlugin):
    """Begins with the model itself and goes on with copies."""

    def __init__(self, model) -> None:
        super().__init__()
        self.teacher = model
        self.classes, self.two_of_many = {56}, torch.zeros(10**6)[:2]

    def after_training_exp(self, strategy, **kwargs):
        self.teacher = copy.deepcopy(strategy.model)
        self.classes.update([66, 33, 7, 103, 70])


def with_teacher() -> dict[str, Any]:
    return {"plugins": lambda model, optimizer: [Teacher(model)]}


def test_objects_that_were_one_and_became_two_stay_two(tmp_path):
    benchmark, strategy = new("old", with_teacher())
    strategy.train(benchmark.train_stream[0])
    wanted = copy.deepcopy(strategy.plugins[0].teacher.state_dict())
    nn.init.zeros_(strategy.model.head.weight)
    save_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    benchmark, strategy = new("old", with_teacher())
    load_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    assert not strategy.model.head.weight.any()
    assert_equal(dict(strategy.plugins[0].teacher.state_dict()), dict(wanted))


def test_order_of_a_set_and_size_of_a_slice_are_kept(tmp_path):
    benchmark, strategy = new("old", with_teacher())
    strategy.train(benchmark.train_stream[0])
    wanted = list(strategy.plugins[0].classes)
    assert list(set(wanted)) != wanted  # else the test shows nothing
    save_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    assert (tmp_path / "c.pt").stat().st_size < 100_000
    benchmark, strategy = new("old", with_teacher())
    load_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    assert list(strategy.plugins[0].classes) == wanted


def test_frozen_parts_and_modes_are_as_they_were(tmp_path):
    benchmark, strategy = new("old", {})
    strategy.train(benchmark.train_stream[0])
    strategy.model.body[1].requires_grad_(False)
    strategy.model.body[2].eval()
    save_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    benchmark, strategy = new("old", {})
    load_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    frozen = [n for n, p in strategy.model.named_parameters() if not p.requires_grad]
    resting = [n for n, m in strategy.model.named_modules() if not m.training]
    assert frozen == ["body.1.weight", "body.1.bias"] and resting == ["body.2"]


def test_resumable_plugin_is_given_the_experiences_trained_so_far(tmp_path):
    options = SUBJECTS["states of its own"]
    benchmark, strategy = new("old", options)
    go_on(strategy, benchmark, 0, tmp_path)
    assert isinstance(strategy.plugins[0], Resumable)
    benchmark, strategy = new("old", options)
    load_checkpoint(tmp_path / "2.pt", strategy, benchmark.train_stream)
    given = strategy.plugins[0].given
    assert [e.current_experience for e in given] == [0, 1]


class Extra(Plain):
    """Takes care itself of what is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.unsavable = 0, iter(())

    def forward(self, x):
        self.calls += 1
        return super().forward(x)

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]


def test_extra_state_of_a_module_is_used(tmp_path):
    benchmark, strategy = new("old", {"model": Extra})
    go_on(strategy, benchmark, 0, tmp_path)
    calls = strategy.model.calls
    benchmark, strategy = new("old", {"model": Extra})
    load_checkpoint(tmp_path / "3.pt", strategy, benchmark.train_stream)
    assert strategy.model.calls == calls > 0


def test_figures_are_left_out_and_numbers_go_on(tmp_path):
    def with_figures():
        evaluator = EvaluationPlugin(
            accuracy_metrics(stream=True),
            confusion_matrix_metrics(stream=True, save_image=True),
            loggers=[TextLogger(io.StringIO())],
        )
        net = Plain()
        return Naive(
            model=net,
            optimizer=optim.SGD(net.parameters(), lr=0.1),
            train_mb_size=16,
            eval_mb_size=64,
            evaluator=evaluator,
        )

    benchmark, strategy = toy_benchmark(), with_figures()
    go_on(strategy, benchmark, 0, tmp_path)
    accuracies = strategy.evaluator.get_all_metrics()
    strategy = with_figures()
    load_checkpoint(tmp_path / "2.pt", strategy, benchmark.train_stream)
    go_on(strategy, benchmark, 2)
    name = "Top1_Acc_Stream/eval_phase/test_stream/Task000"
    assert strategy.evaluator.get_all_metrics()[name] == accuracies[name]
