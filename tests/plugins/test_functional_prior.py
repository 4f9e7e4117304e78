"""The losses and gradients of functional regulariser, replay and EWC together."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import APIS, task_model, toy_benchmark
from contract import run
from prior_hosts import ByHand, ours

apis = pytest.mark.parametrize("api", APIS)
METHODS = {
    "EWC": {"memory_size": 0},
    "FR": {"strength": 0, "replay_fraction": 0},
    "Replay": {"strength": 0, "replay_fraction": 1},
    "FR+Replay": {"strength": 0},
    "EWC+FR": {"replay_fraction": 0},
    "K-prior": {"replay_fraction": 0, "fisher": "none", "prior_precision": 0.3},
    "EWC+FR+Replay": {},
    "scaled": {"scale_tau": True},
    "smoothed": {"label_smoothing": 0.2},
}


@apis
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_the_sum_of_those_of_data_function_replay_and_weights(
    method, api
):
    options = METHODS[method]
    by_hand = ByHand(options.get("label_smoothing", 0.0), options.get("scale_tau"))
    run(lambda **o: ours(plugins=[by_hand], **options, **o), api, evaluations=0)
    present = {name for name, size in by_hand.norms.items() if size > 1e-3}
    whole = {"function", "replay", "ewc"}
    wanted = {
        "EWC": {"ewc"},
        "FR": {"function"},
        "Replay": {"replay"},
        "FR+Replay": {"function", "replay"},
        "EWC+FR": {"function", "ewc"},
        "K-prior": {"function", "ewc"},
    }.get(method, whole)
    assert present == {"new", *wanted}


def at_the_third(change=None, *watchers, loosen=0.0, n_batch=16, **options):
    """Losses of the third experience at fixed weights away from the last ones."""
    torch.manual_seed(0)
    losses = Losses()
    model = task_model()
    del model.feature_extractor[2]  # its batches would not be apart
    strategy = ours(plugins=[losses, *watchers], model=model, **options)
    stream = toy_benchmark("old_task_labels").train_stream
    strategy.train(stream[:2])
    if change:
        change(*strategy.plugins[1:3])
    strategy.optimizer.param_groups[0]["lr"] = 0.0
    strategy.train_mb_size = n_batch
    noise = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data += loosen * torch.randn(p.shape, generator=noise)
    torch.manual_seed(1)
    losses.found.clear()
    strategy.train(stream[2])
    return losses.found, strategy


class Losses(SupervisedPlugin):
    def __init__(self):
        super().__init__()
        self.found = []

    def after_training_iteration(self, strategy, **kwargs):
        self.found.append((strategy.loss.item(), len(strategy.mb_y)))


def set_tau(value):
    def change(prior, ewc):
        prior.tau = prior.tau2 = value

    return change


def set_strength(value):
    def change(prior, ewc):
        ewc.strengths = [value]

    return change


@pytest.mark.parametrize(
    ("change", "values"), [(set_tau, (1.0, 2.0, 3.0)), (set_strength, (0.0, 9.0, 18.0))]
)
def test_the_loss_is_affine_in_the_weights_of_memory_and_of_ewc(change, values):
    runs = [at_the_third(change(v), loosen=0.3)[0] for v in values]
    low, middle, high = ([loss for loss, _ in each] for each in runs)
    for a, b, c in zip(low, middle, high):
        assert b - a == pytest.approx(c - b, rel=1e-3) and abs(b - a) > 1e-3


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_epochs_sum_is_the_objective_in_any_partition_into_batches(smoothing):
    sums, epochs = [], 2
    for n_batch in (3, 5, 16, 1000):
        found, _ = at_the_third(
            None,
            ByHand(smoothing),
            loosen=0.3,
            n_batch=n_batch,
            label_smoothing=smoothing,
        )
        sums.append(sum(loss * size for loss, size in found) / epochs)
        assert sum(size for _, size in found) == epochs * (48 + 2 * 10)
    assert sums == pytest.approx(sums[-1:] * len(sums), rel=1e-5)
    # n_batch 1000: one batch is the objective, and its gradient was compared by hand
    assert len(found) == epochs and sums[-1] > 1


class HeadGradients(SupervisedPlugin):
    def __init__(self):
        super().__init__()
        self.absent, self.n = {}, 0

    def after_backward(self, strategy, **kwargs):
        head = strategy.model.train_classifier
        for task in set(range(len(head.weights))) - set(strategy.mb_task_id.tolist()):
            self.n += 1
            for p in (head.weights[task], head.biases[task]):
                assert p.grad is None or (p.grad == 0).all()


@pytest.mark.parametrize("api", ["old_task_labels", "new_task_labels"])
def test_gradients_of_absent_heads_are_exactly_zero_without_ewc(api):
    heads = HeadGradients()
    run(
        lambda **o: ours(plugins=[heads], strength=0, train_mb_size=5, **o),
        api,
        evaluations=0,
    )
    assert heads.n > 10
