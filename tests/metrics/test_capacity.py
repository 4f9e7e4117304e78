"""Percentages of units taken by the experiences."""

from __future__ import annotations

import pytest
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from cases import naive_with, toy_benchmark

from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint
from avalanche_ext.functional.relevance import Capacity
from avalanche_ext.metrics.capacity import UnitCapacity

# after each experience
HISTORY = [
    {"a.conv": Capacity([3], [0], 7), "free": Capacity([20], [0], 10)},
    {"a.conv": Capacity([3, 5], [0, 2], 2), "free": Capacity([20, 0], [0, 9], 10)},
    {
        "a.conv": Capacity([3, 5, 2], [0, 2, 8], 0),
        "free": Capacity([20, 0, 4], [0, 9, 1], 6),
    },
]


class Counting(SupervisedPlugin):
    """Has a count ready after each experience."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def after_training_exp(self, strategy, **kwargs):
        self.n += 1

    def capacity(self):
        return HISTORY[self.n - 1] if self.n else {}


def strategy_with(*plugins):
    evaluator = EvaluationPlugin(UnitCapacity(), loggers=[BaseLogger()])
    return naive_with(*plugins, evaluator=evaluator, train_epochs=1)


def test_percentages_are_published_by_layer_and_over_all_layers():
    strategy, stream = strategy_with(Counting()), toy_benchmark().train_stream
    strategy.train(stream[0])
    results = strategy.train(stream[1])
    tail = "train_phase/train_stream"
    assert results == pytest.approx(
        {
            f"Units_First_Frozen/{tail}": 100 * 5 / 40,
            f"Units_Shared/{tail}": 100 * 11 / 40,
            f"Units_Free/{tail}": 100 * 12 / 40,
            f"Units_First_Frozen/{tail}/a.conv": 50.0,
            f"Units_Shared/{tail}/a.conv": 20.0,
            f"Units_Free/{tail}/a.conv": 20.0,
            f"Units_First_Frozen/{tail}/free": 0.0,
            f"Units_Shared/{tail}/free": 30.0,
            f"Units_Free/{tail}/free": 100 / 3,
        }
    )


@pytest.mark.parametrize("place", ["", "/a.conv", "/free"])
def test_first_frozen_over_all_experiences_and_free_make_a_hundred(place):
    strategy = strategy_with(Counting())
    strategy.train(toy_benchmark().train_stream)
    values = strategy.evaluator.get_all_metrics()
    name = "train_phase/train_stream" + place
    frozen, free = (
        values[f"Units_{kind}/{name}"][1] for kind in ("First_Frozen", "Free")
    )
    assert len(frozen) == 3 and sum(frozen) + free[-1] == pytest.approx(100)


def test_nothing_is_published_without_counts():
    stream, empty = toy_benchmark().train_stream, Counting()
    empty.capacity = dict
    for plugins in ((), (empty,)):
        assert strategy_with(*plugins).train(stream[0]) == {}


def test_percentages_survive_a_checkpoint(tmp_path):
    strategy, stream = strategy_with(Counting()), toy_benchmark().train_stream
    strategy.train(stream[0])
    save_checkpoint(tmp_path / "c.pt", strategy, stream)
    again = strategy_with(Counting())
    load_checkpoint(tmp_path / "c.pt", again, stream)
    before, after = (s.evaluator.metrics[0].result() for s in (strategy, again))
    assert before == after and len(before) == 9
