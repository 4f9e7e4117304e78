"""CWR* in training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier
from avalanche.training.plugins import CWRStarPlugin as AvalanchesCWRStar
from avalanche.training.plugins import ReplayPlugin
from cases import APIS, N_CLASSES, naive_with, toy_benchmark, toy_extractor
from contract import assert_equal, weights
from torch import nn
from torch.optim import SGD, Adam
from torch.testing import assert_close

from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint
from avalanche_ext.functional.cwr import consolidated_rows, reset_rows
from avalanche_ext.models import FeatureClassifier
from avalanche_ext.plugins import CWRStarPlugin, ExemplarReplayPlugin

VISITS = [0, 1, 0, 2, 1]  # of the three experiences; 48 samples of two classes each


def a_model(bias=True, n_outputs=N_CLASSES):
    return FeatureClassifier(toy_extractor(), nn.Linear(8, n_outputs, bias=bias))


def growing_model():
    return FeatureClassifier(toy_extractor(), IncrementalClassifier(8, 2))


class Heads(SupervisedPlugin):
    """Notes the head at the start of experiences and at their end."""

    def __init__(self):
        super().__init__()
        self.start, self.end = [], []

    def before_training_exp(self, strategy, **kwargs):
        self.start.append(strategy.model.train_classifier.weight.detach().clone())

    def after_training_exp(self, strategy, **kwargs):
        self.end.append(strategy.model.train_classifier.weight.detach().clone())


def trained(*plugins, api="old", visits=VISITS, **options):
    options.setdefault("model", a_model())
    strategy, benchmark = naive_with(*plugins, **options), toy_benchmark(api)
    for k in visits:
        strategy.train(benchmark.train_stream[k])
    return strategy


@pytest.mark.parametrize("repeat", ["once", "per_pattern"])
@pytest.mark.parametrize("api", APIS)
def test_rows_are_reset_trained_and_merged_in_turn(api, repeat):
    before, after, cwr = Heads(), Heads(), CWRStarPlugin(repeat=repeat)
    trained(before, cwr, after, api=api)
    saved = torch.zeros(N_CLASSES, 8)
    past = torch.zeros(N_CLASSES, dtype=torch.long)
    for i, k in enumerate(VISITS):
        current = torch.zeros_like(past)
        current[2 * k : 2 * k + 2] = 24
        assert torch.equal(after.start[i], reset_rows(saved, past, current))
        # without a memory each class is consolidated once either way
        once = (current > 0).long()
        saved = consolidated_rows(before.end[i], saved, past, current, once)
        past = past + current
        seen = (past > 0)[:, None]
        assert_close(after.end[i], torch.where(seen, saved, before.end[i]))
        assert not torch.equal(before.end[i], after.start[i])
    assert torch.equal(cwr.past, past) and torch.equal(cwr.saved, after.end[-1])


def test_heads_are_those_of_avalanches_plugin():
    def run(make):
        torch.manual_seed(0)
        model = a_model(bias=False)
        return trained(make(model), model=model).model.state_dict()

    wanted = run(
        lambda m: AvalanchesCWRStar(m, "train_classifier", freeze_remaining_model=False)
    )
    ours = run(lambda m: CWRStarPlugin())
    for name, value in wanted.items():
        assert_close(ours[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_bias_stays_0_and_its_flag_is_put_back(optimizer):
    class Watch(SupervisedPlugin):
        def after_training_iteration(self, strategy, **kwargs):
            bias = strategy.model.train_classifier.bias
            assert not bias.any() and not bias.requires_grad and bias.grad is None

    for flag in (True, False):
        model = a_model()
        model.train_classifier.bias.requires_grad_(flag)
        rule = optimizer(model.parameters(), lr=0.01, weight_decay=0.1)
        trained(CWRStarPlugin(), Watch(), model=model, optimizer=rule, visits=[0, 1])
        assert not model.train_classifier.bias.any()
        assert model.train_classifier.bias.requires_grad is flag


class Counts(SupervisedPlugin):
    """Notes what each experience added to the counts."""

    def __init__(self, cwr):
        super().__init__()
        self.cwr, self.added = cwr, []
        self.last = torch.zeros(N_CLASSES, dtype=torch.long)

    def after_training_exp(self, strategy, **kwargs):
        self.added.append((self.cwr.past - self.last).tolist())
        self.last = self.cwr.past


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("kind", ["dataset", "loader", "labels"])
def test_counts_are_of_the_data_and_the_whole_memory(kind, api):
    herding = HerdingBuffer(per_class=5)
    latent = SimpleNamespace(labels=torch.tensor([], dtype=torch.long))

    class Fill(SupervisedPlugin):
        def after_training_exp(self, strategy, **kwargs):
            seen = 2 * strategy.clock.train_exp_counter + 2
            latent.labels = torch.arange(seen).repeat(5)

    if kind == "dataset":
        cwr = CWRStarPlugin()
        plugins = [ExemplarReplayPlugin(herding), cwr]
    elif kind == "loader":
        policy = HerdingBuffer(max_size=12)
        cwr = CWRStarPlugin(buffer=policy)
        plugins = [cwr, ReplayPlugin(12, storage_policy=policy)]
    else:
        cwr = CWRStarPlugin(buffer=latent)
        plugins = [cwr, Fill()]
    counts = Counts(cwr)
    trained(*plugins, counts, api=api, visits=[0, 1, 2])
    # of the loader's memory of 12: two classes, then four
    first, second = (6, 3) if kind == "loader" else (5, 5)
    assert counts.added == [
        [24, 24, 0, 0, 0, 0],
        [first, first, 24, 24, 0, 0],
        [second, second, second, second, 24, 24],
    ]


def test_per_pattern_consolidates_once_more_for_every_exemplar():
    before, after = Heads(), Heads()
    cwr = CWRStarPlugin(repeat="per_pattern")
    replay = ExemplarReplayPlugin(HerdingBuffer(per_class=5))
    trained(replay, before, cwr, after, visits=[0, 1])
    past = torch.tensor([24, 24, 0, 0, 0, 0])
    current = torch.tensor([5, 5, 24, 24, 0, 0])
    k = torch.tensor([5, 5, 1, 1, 0, 0])
    wanted = consolidated_rows(before.end[1], after.end[0], past, current, k)
    assert_close(cwr.saved[:4], wanted[:4])
    once = consolidated_rows(before.end[1], after.end[0], past, current, (k > 0).long())
    assert not torch.allclose(once[:4], wanted[:4], atol=1e-3)


@pytest.mark.parametrize("api", ["old", "old_task_labels", "new"])
def test_a_head_that_is_replaced_by_a_larger_one_keeps_its_rows(api):
    cwr, shapes = CWRStarPlugin(), []

    class Watch(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            layer = strategy.model.train_classifier.classifier
            shapes.append(len(layer.weight))
            own = [c for c in range(len(layer.weight)) if layer.weight[c].any()]
            assert not own and not layer.bias.any()

        def after_training_exp(self, strategy, **kwargs):
            layer = strategy.model.train_classifier.classifier
            n = 2 * strategy.clock.train_exp_counter
            assert torch.equal(layer.weight, cwr.saved) and not layer.bias.any()
            if n:
                assert torch.equal(layer.weight[:n], self.kept)
            self.kept = cwr.saved.clone()

    trained(cwr, Watch(), api=api, model=growing_model(), visits=[0, 1, 2])
    assert shapes == [2, 4, 6] and cwr.past.tolist() == [24] * 6


def test_a_head_that_grew_is_resumed_bit_for_bit(tmp_path):
    def start():
        torch.manual_seed(0)
        cwr = CWRStarPlugin(mask_unseen=True)
        return cwr, naive_with(cwr, model=growing_model()), toy_benchmark()

    def go_on(strategy, stream):
        for experience in stream:
            strategy.train(experience)

    wanted_cwr, wanted, benchmark = start()
    torch.manual_seed(1)
    go_on(wanted, benchmark.train_stream)
    _, first, benchmark = start()
    torch.manual_seed(1)
    go_on(first, benchmark.train_stream[:2])
    save_checkpoint(tmp_path / "c.pt", first, benchmark.train_stream)
    cwr, second, benchmark = start()
    load_checkpoint(tmp_path / "c.pt", second, benchmark.train_stream)
    assert cwr.past.tolist() == [24] * 4
    go_on(second, benchmark.train_stream[2:])
    assert_equal(weights(second), weights(wanted))
    assert torch.equal(cwr.saved, wanted_cwr.saved)
    assert torch.equal(cwr.past, wanted_cwr.past)


class Outputs(SupervisedPlugin):
    """Notes the logits of evaluations, by whether within an experience."""

    def __init__(self):
        super().__init__()
        self.within, self.between, self.training = [], [], False

    def before_training_exp(self, strategy, **kwargs):
        self.training = True

    def after_training_exp(self, strategy, **kwargs):
        self.training = False

    def after_eval_iteration(self, strategy, **kwargs):
        (self.within if self.training else self.between).append(strategy.mb_output)


@pytest.mark.parametrize("mask_unseen", [False, True])
def test_evaluation_sees_the_head_as_it_is_and_masks_what_is_unseen(mask_unseen):
    outputs, benchmark = Outputs(), toy_benchmark()
    cwr = CWRStarPlugin(mask_unseen=mask_unseen)
    strategy = naive_with(cwr, outputs, model=a_model(), eval_every=1)
    masked = {0: [2, 3, 4, 5], 1: [4, 5]}
    strategy.eval(benchmark.test_stream)
    assert (torch.cat(outputs.between) != -1000).all()  # nothing is known yet
    for k in (0, 1):
        outputs.within.clear()
        strategy.train(benchmark.train_stream[k], [benchmark.test_stream])
        within = torch.cat(outputs.within)
        outputs.between.clear()
        strategy.eval(benchmark.test_stream)
        between = torch.cat(outputs.between)
        columns = (between == -1000).all(0).nonzero()[:, 0].tolist()
        assert columns == (masked[k] if mask_unseen else [])
        assert ((within == -1000).all(0) == (between == -1000).all(0)).all()
        if k:  # old classes begin at 0, and come back only at the end
            assert within[:, :2].abs().mean() < 0.7 * between[:, :2].abs().mean()
