"""Training on all data seen so far, from the last weights or the first."""

from __future__ import annotations

import pytest
import torch

from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.streams import make_stream


def trained(n_experiences, **options):
    """The strategy of the recipe after some experiences, and its test accuracies."""
    setup = RECIPES["joint"].setup(train_epochs=3, lr=0.05, **options)
    benchmark = make_stream(setup.stream, **setup.stream_options)
    torch.manual_seed(0)
    strategy = setup.make_strategy(evaluator=None, device=torch.device("cpu"))
    seen = []
    strategy.plugins.insert(0, Watch(seen))
    for experience in benchmark.train_stream[:n_experiences]:
        strategy.train(experience)
    return strategy, benchmark, seen


class Watch:
    """Notes the labels of each experience's data, and its first parameters."""

    def __init__(self, seen):
        self.seen = seen

    def before_training_epoch(self, strategy, **kwargs):
        labels = sorted({int(y) for y in strategy.adapted_dataset.targets})
        weights = [p.detach().clone() for p in strategy.model.parameters()]
        entry = (labels, weights, len(strategy.optimizer.state))
        if strategy.clock.train_exp_epochs == 0:
            self.seen.append(entry)


def accuracy(strategy, experiences):
    strategy.model.eval()
    with torch.no_grad():
        hits = [
            strategy.model(torch.stack([x for x, *_ in e.dataset])).argmax(1)
            == torch.tensor(list(e.dataset.targets))
            for e in experiences
        ]
    return torch.cat(hits).float().mean().item()


@pytest.mark.parametrize("fresh", [False, True])
def test_each_experience_is_trained_on_all_data_so_far(fresh):
    strategy, benchmark, seen = trained(3, fresh_weights=fresh)
    assert [labels for labels, *_ in seen] == [[*range(2)], [*range(4)], [*range(6)]]
    assert accuracy(strategy, benchmark.test_stream[:3]) > 0.85


def test_fresh_weights_are_the_first_with_another_head():
    _, _, ((_, first, _), (_, second, state), (_, third, _)) = trained(
        3, fresh_weights=True
    )
    assert len(first) > 2 and state == 0
    for weights in (second, third):
        assert all(map(torch.equal, weights[:-2], first[:-2]))
    head = second[-2]
    assert head.shape[0] == 4 and not torch.equal(head[:2], first[-2])
    assert 0 < head.abs().max() <= head.shape[1] ** -0.5


def test_without_fresh_weights_the_last_go_on():
    _, _, ((_, first, _), (_, second, state)) = trained(2)
    assert state > 0 and not torch.equal(first[0], second[0])


def test_fresh_weights_reset_running_statistics():
    strategy, *_ = trained(1, fresh_weights=True, network="resnet8")
    plugin = next(p for p in strategy.plugins if hasattr(p, "initial"))
    norms = [m for m in strategy.model.modules() if hasattr(m, "running_mean")]
    moved = any(bool(norm.running_mean.any()) for norm in norms)
    plugin.before_training_exp(strategy)
    assert moved and not any(bool(norm.running_mean.any()) for norm in norms)


@pytest.mark.parametrize("fresh", [False, True])
def test_with_task_labels_all_heads_are_trained(fresh):
    _, _, seen = trained(2, task_labels=True, fresh_weights=fresh)
    assert [labels for labels, *_ in seen] == [[0, 1], [0, 1, 2, 3]]


def test_a_mini_batch_smaller_than_the_number_of_tasks_is_refused():
    with pytest.raises(UsageError, match="train_mb_size is 4; wanted at least 5"):
        RECIPES["joint"].setup(task_labels=True, train_mb_size=4)
