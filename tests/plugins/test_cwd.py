"""CwD as a plugin."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import naive_with, toy_benchmark, toy_model
from contract import run, weights
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from torch.testing import assert_close

from avalanche_ext.functional.decorrelation import decorrelation_loss
from avalanche_ext.models import FeatureClassifier
from avalanche_ext.plugins import CwDPlugin


class Excess(SupervisedPlugin):
    """Notes what the loss holds beyond cross-entropy, by experience."""

    def __init__(self):
        super().__init__()
        self.terms, self.wanted = {}, {}

    def before_backward(self, strategy, **kwargs):
        i = strategy.clock.train_exp_counter
        plain = cross_entropy(strategy.mb_output, strategy.mb_y)
        unit = normalize(strategy.model.features, dim=1)
        self.terms.setdefault(i, []).append((strategy.loss - plain).item())
        self.wanted.setdefault(i, []).append(
            decorrelation_loss(unit, strategy.mb_y).item()
        )


@pytest.mark.parametrize(
    ("experiences", "active"),
    [("first", {0}), ("all", {0, 1, 2}), ([1, 2], {1, 2}), ((), set())],
)
def test_term_is_added_in_the_experiences_asked_for(experiences, active):
    watcher = Excess()
    plugin = CwDPlugin(0.7, experiences=experiences)
    run(lambda **o: naive_with(plugin, watcher, **o), evaluations=0)
    for i in range(3):
        factor = 0.7 if i in active else 0.0
        wanted = [factor * value for value in watcher.wanted[i]]
        assert_close(watcher.terms[i], wanted, rtol=1e-4, atol=1e-6)


def test_features_become_less_correlated():
    def correlation(coef):
        strategy, _ = run(
            lambda **o: naive_with(CwDPlugin(coef), train_epochs=20, **o),
            evaluations=0,
        )
        data = toy_benchmark().train_stream[0].dataset
        x = torch.stack([data[i][0] for i in range(len(data))])
        with torch.no_grad():
            strategy.model(x)
        unit = normalize(strategy.model.features, dim=1)
        return decorrelation_loss(unit, torch.tensor(list(data.targets))).item()

    # all three experiences are trained, the term acts in the first only
    assert correlation(2.0) < correlation(0.0)


def test_paper_s_form_is_an_option():
    losses = []
    for normalization in ("code", "paper"):
        watcher = Excess()
        plugin = CwDPlugin(1.0, normalization=normalization)
        run(lambda p=plugin, w=watcher, **o: naive_with(p, w, **o), evaluations=0)
        losses.append(watcher.terms[0][0])
    assert abs(losses[0] - losses[1]) > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coef": -0.5}, "coef is -0.5; wanted a number, at least 0"),
        ({"coef": float("nan")}, "coef is nan"),
        ({"normalization": "papers"}, "'papers'; wanted one of 'code', 'paper'"),
        ({"reject_threshold": 0}, "reject_threshold is 0"),
        ({"eps": -1}, "eps is -1"),
        ({"eps": 0}, "eps is 0; wanted a number above 0"),
        ({"experiences": "last"}, "'last'; wanted one of 'first', 'all'"),
        ({"experiences": 0}, "experiences is 0; wanted one of 'first', 'all'"),
        ({"experiences": [0, -1]}, r"experiences\[1\] is -1"),
    ],
)
def test_bad_arguments_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        CwDPlugin(**options)


def test_a_model_without_features_is_refused_before_training():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 6))
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="does not expose its features"):
        run(lambda **o: naive_with(CwDPlugin(), model=model, **o))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))


def test_linear_classifiers_do_as_well_as_cosine_ones():
    model = toy_model(cosine=False)
    strategy, _ = run(lambda **o: naive_with(CwDPlugin(), model=model, **o))
    assert all(p.isfinite().all() for p in strategy.model.parameters())


def test_the_features_are_those_of_the_batch_whoever_runs_the_model_again():
    class Other(SupervisedPlugin):
        def before_backward(self, strategy, **kwargs):
            strategy.model(torch.zeros_like(strategy.mb_x))

    def weights_of(*plugins):
        return weights(run(lambda **o: naive_with(*plugins, **o), evaluations=0)[0])

    ours = weights_of(Other(), CwDPlugin(5.0))
    key = "feature_extractor.1.weight"
    assert_close(ours[key], weights_of(CwDPlugin(5.0), Other())[key])
    assert (ours[key] - weights_of(Other())[key]).abs().max() > 1e-4


def test_features_of_another_batch_are_refused():
    class Halved(FeatureClassifier):
        def forward(self, x):
            logits = super().forward(x)
            self.features = self.features[:3]
            return logits

    whole = toy_model()
    model = Halved(whole.feature_extractor, whole.train_classifier)
    with pytest.raises(ValueError, match=r"shape \(3, 8\) after a batch of 16"):
        run(lambda **o: naive_with(CwDPlugin(), model=model, **o))
