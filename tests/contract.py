"""What every plugin, buffer and strategy owes its user, as functions.

`test_contract.py` applies them to all of `subjects.SUBJECTS`; `kill_and_resume.py` adds
the one that needs processes of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cases import N_EXPERIENCES, toy_benchmark
from torch import Tensor

from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint

Subject = Callable[..., Any]


def run(
    make: Subject, api: str = "old", *, evaluations: int = 1, **options: Any
) -> tuple[Any, list[dict[str, Any]]]:
    """Train the toy stream; returns the strategy and the metrics by experience."""
    torch.manual_seed(0)
    benchmark, strategy, metrics = toy_benchmark(api), make(**options), []
    torch.manual_seed(1)
    for experience in benchmark.train_stream:
        strategy.train(experience)
        for _ in range(evaluations):
            metrics.append(dict(strategy.eval(benchmark.test_stream)))
    return strategy, metrics


def weights(strategy: Any) -> dict[str, Tensor]:
    """Parameters and buffers of the model, and the optimizer's momenta by name."""
    state = {k: v.clone() for k, v in strategy.model.state_dict().items()}
    for name, parameter in strategy.model.named_parameters():
        for key, value in strategy.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                state[f"optimizer.{key}.{name}"] = value.clone()
    return state


def assert_equal(ours: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Same keys, same bits."""
    assert ours.keys() == wanted.keys()
    for key, value in wanted.items():
        if isinstance(value, Tensor):
            assert torch.equal(ours[key], value), f"{key} differs"
        else:
            assert ours[key] == value, f"{key}: {ours[key]}, wanted {value}"


def assert_equals_naive(make: Subject, naive: Subject, api: str) -> None:
    """With weight 0 a plugin is not there.

    Without evaluation, because Naive's own draws random numbers.
    """
    ours, wanted = (run(each, api, evaluations=0)[0] for each in (make, naive))
    assert_equal(weights(ours), weights(wanted))


def assert_seed_fixes_the_result(make: Subject, api: str) -> None:
    """The same seed gives the same bits."""
    (first, metrics), (second, again) = run(make, api), run(make, api)
    assert_equal(weights(second), weights(first))
    for ours, wanted in zip(again, metrics):
        assert_equal(ours, wanted)


def assert_model_left_as_found(make: Subject, api: str) -> None:
    """No hook, flag or mode stays changed behind an experience."""
    strategy, _ = run(make, api)
    for name, module in strategy.model.named_modules():
        assert module.training, f"{name} is not in train mode"
        assert not module._forward_hooks and not module._forward_pre_hooks, name
        assert not module._backward_hooks and not module._backward_pre_hooks, name
    for name, parameter in strategy.model.named_parameters():
        assert parameter.requires_grad, f"{name} is frozen"


def assert_evaluation_changes_nothing(make: Subject, api: str) -> None:
    """Weights do not depend on how often one evaluates, nor do the metrics."""
    never, _ = run(make, api, evaluations=0)
    twice, metrics = run(make, api, evaluations=2)
    within, _ = run(make, api, eval_every=1)
    assert_equal(weights(twice), weights(never))
    assert_equal(weights(within), weights(never))
    for first, second in zip(metrics[::2], metrics[1::2]):
        assert_equal(second, first)


def assert_resume_equals_never_stopping(make: Subject, api: str, folder: Path) -> None:
    """A fresh strategy goes on from a checkpoint of any experience, bit for bit."""
    wanted, metrics = run(make, api)
    for stop in range(1, N_EXPERIENCES):
        torch.manual_seed(0)
        benchmark, strategy = toy_benchmark(api), make()
        torch.manual_seed(1)
        for experience in benchmark.train_stream[:stop]:
            strategy.train(experience)
            strategy.eval(benchmark.test_stream)
        save_checkpoint(folder / "checkpoint.pt", strategy, benchmark.train_stream)

        benchmark, strategy = toy_benchmark(api), make()
        torch.manual_seed(999)
        checkpoint = load_checkpoint(
            folder / "checkpoint.pt", strategy, benchmark.train_stream
        )
        assert checkpoint.n_experiences == stop
        for experience in benchmark.train_stream[stop:]:
            strategy.train(experience)
            last = strategy.eval(benchmark.test_stream)
        assert_equal(weights(strategy), weights(wanted))
        assert_equal(dict(last), metrics[-1])
