"""Where the functional prior is not there, and where it does not pull."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive
from cases import APIS, build, naive_with, task_model, toy_benchmark, toy_model
from contract import assert_equal, run, weights
from prior_cases import flat
from prior_hosts import ours
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from avalanche_ext.buffers import MemorablePastBuffer
from avalanche_ext.metrics.probe import epoch_gradient
from avalanche_ext.models.past_data import summed_gradient
from avalanche_ext.plugins import FunctionalPriorPlugin, LeftOutEWCPlugin

apis = pytest.mark.parametrize("api", APIS)


@apis
def test_the_first_experience_has_no_prior(api):
    def first(strategy):
        torch.manual_seed(1)
        strategy.train(toy_benchmark(api).train_stream[0])
        return weights(strategy)

    torch.manual_seed(0)
    wanted = first(build(Naive, model=task_model()))
    torch.manual_seed(0)
    plugins = [FunctionalPriorPlugin(MemorablePastBuffer(6)), LeftOutEWCPlugin()]
    assert_equal(first(naive_with(*plugins, model=task_model())), wanted)


@apis
@pytest.mark.parametrize("off", [{"memory_size": 0}, {"tau": 0.0, "tau2": 0.0}])
def test_without_memory_or_its_weight_ewc_alone_is_left_bit_for_bit(off, api):
    def alone(**options):
        strategy = ours(**options)
        del strategy.plugins[1]
        strategy.plugins[1].buffer = None
        return strategy

    found, _ = run(lambda **o: ours(**off, **o), api, evaluations=0)
    assert_equal(weights(found), weights(run(alone, api, evaluations=0)[0]))


@apis
def test_without_strength_the_functional_prior_alone_is_left_bit_for_bit(api):
    def alone(**options):
        strategy = ours(**options)
        del strategy.plugins[2]
        return strategy

    found, _ = run(lambda **o: ours(strength=0, **o), api, evaluations=0)
    assert_equal(weights(found), weights(run(alone, api, evaluations=0)[0]))


def test_memory_of_the_first_experience_alone_may_have_no_weight():
    zero, one = (
        run(lambda v=v, **o: ours(tau=0.0, tau2=v, **o), evaluations=0)[0]
        for v in (0.0, 1.0)
    )
    assert not torch.equal(*(s.model.feature_extractor[1].weight for s in (zero, one)))
    assert [len(p) for p in one.buffer.positions] == [10] * 3
    assert zero.buffer.positions == []


class AtStart(SupervisedPlugin):
    """The gradient of the whole prior at w_t, in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.norms = []

    def before_training_epoch(self, strategy, **kwargs):
        clock = strategy.clock
        if clock.train_exp_counter and not clock.train_exp_epochs:
            data = strategy.experience.dataset.eval()
            x, y, *t = (
                torch.stack([torch.as_tensor(v) for v in f]) for f in zip(*data)
            )
            batch = [(x, y, t[0] if t else None)]
            new = summed_gradient(
                strategy.model,
                batch,
                lambda f, y, t: cross_entropy(f, y, reduction="sum"),
            )
            found = epoch_gradient(strategy).gradients
            self.norms.append((flat(found) - flat(new)).norm() / flat(new).norm())


@apis
def test_only_plain_replay_pulls_at_the_weights_it_starts_from(api):
    norms = {}
    for name, options in {
        "plain": {},
        "centred": {"replay_correction": "centred"},
        "FR": {"replay_fraction": 0},
        "EWC": {"memory_size": 0},
    }.items():
        start = AtStart()
        run(lambda o=options, s=start, **p: ours(plugins=[s], **o, **p), api)
        norms[name] = start.norms
    assert all(len(n) == 2 for n in norms.values())
    assert min(norms.pop("plain")) > 1e-2
    assert max(map(max, norms.values())) < 1e-5


def test_with_dropout_the_functional_regulariser_pulls_as_published():
    model = toy_model(cosine=False)
    model.feature_extractor.append(nn.Dropout(0.5))
    pulls = []

    class FirstStep(SupervisedPlugin):
        def after_backward(self, strategy, **kwargs):
            if strategy.clock.train_exp_counter and not pulls:
                memory = prior._rows.roles[strategy.mbatch[prior._rows.field]] > 0
                f = strategy.model(strategy.mb_x)[memory]
                soft = prior.logits.softmax(1)
                rows = strategy.mbatch[prior._rows.field][memory]
                pulls.append((f.softmax(1) - soft[rows]).abs().max().item())

    prior = FunctionalPriorPlugin(MemorablePastBuffer(20, replay_fraction=0))
    naive_with(prior, FirstStep(), model=model).train(toy_benchmark().train_stream[:2])
    assert pulls[0] > 1e-3


def test_label_smoothing_is_torchs_in_the_first_experience():
    class Compare(SupervisedPlugin):
        def after_training_iteration(self, strategy, **kwargs):
            f, y = strategy.mb_output, strategy.mb_y
            if not strategy.clock.train_exp_counter:
                wanted = cross_entropy(f[:, :2], y, label_smoothing=0.2)
                assert_close(strategy.loss[0], wanted)
            assert isinstance(strategy._criterion, nn.CrossEntropyLoss)

    for tau in (0.0, 1.0):
        prior = FunctionalPriorPlugin(
            MemorablePastBuffer(6), tau=tau, label_smoothing=0.2
        )
        strategy = naive_with(prior, Compare(), model=task_model(6))
        strategy.train(toy_benchmark().train_stream)
