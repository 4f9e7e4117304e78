"""Distillation of old classes' scores, on a batch and through experiences."""

from __future__ import annotations

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier
from cases import (
    Images,
    naive_with,
    task_model,
    toy_benchmark,
    toy_extractor,
    toy_model,
)
from contract import assert_equal
from torch import nn, optim
from torch.nn.functional import kl_div, log_softmax
from torch.testing import assert_close

from avalanche_ext.models import CosineClassifier, FeatureClassifier
from avalanche_ext.models.feature_classifier import evaluating
from avalanche_ext.plugins import LUCIRPlugin, ScoreDistillationPlugin


class Terms(SupervisedPlugin):
    """Stands last: notes what was added to each batch's cross-entropy."""

    def __init__(self):
        super().__init__()
        self.added, self.batches, self.exp = [], [], []

    def before_backward(self, strategy, **kwargs):
        self.added.append((strategy.loss - strategy.criterion()).detach().squeeze())
        self.batches.append((strategy.mb_x, strategy.mb_output.detach()))
        self.exp.append(strategy.clock.train_exp_counter)


def distilled(n, *, stream=None, plugin=None, optimizer=None, **options):
    """Strategy, plugin and terms after n experiences."""
    plugin, terms = plugin or ScoreDistillationPlugin(), Terms()
    model = options.pop("model", None) or toy_model()
    if optimizer:
        options["optimizer"] = optimizer(model.parameters())
    strategy = naive_with(plugin, terms, model=model, **options)
    for experience in (stream or toy_benchmark().train_stream)[:n]:
        strategy.train(experience)
    return strategy, plugin, terms


def shuffled_stream():
    """Class ids that do not come in order."""
    order = [4, 1, 0, 5, 3, 2]
    data = Images(24, seed=1), Images(10, seed=2)
    return nc_benchmark(
        *data, n_experiences=3, task_labels=False, fixed_class_order=order
    ).train_stream


MODELS = {
    "cosine": toy_model,
    "fixed width": lambda: toy_model(cosine=False),
    "growing": lambda: nn.Sequential(toy_extractor(), IncrementalClassifier(8)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_term_is_the_divergence_of_old_classes_from_the_last_model(kind):
    plugin = ScoreDistillationPlugin(
        temperature=3.0, weight=0.7, freeze_old_prototypes=kind == "cosine"
    )
    _, plugin, terms = distilled(
        3, stream=shuffled_stream(), plugin=plugin, model=MODELS[kind]()
    )
    old = [4, 1, 0, 5]
    first, last = (torch.tensor(terms.exp) == e for e in (0, 2))
    added = torch.stack(terms.added)
    assert (added[first] == 0).all() and last.any()
    for (x, z), ours, is_last in zip(terms.batches, added, last):
        if is_last:
            z, r = z[:, old] / 3, plugin.reference(x)[:, old] / 3
            p, q = log_softmax(z, 1), log_softmax(r, 1)
            wanted = 0.7 * (q.exp() * (q - p)).sum(1).mean()
            assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    assert added[last].max() > 0.001


def test_the_reference_is_the_model_of_the_end_of_the_last_experience(rng):
    strategy, plugin, _ = distilled(2)
    x = torch.randn(9, 1, 6, 6, generator=rng)
    with evaluating(strategy.model):
        wanted = strategy.model(x)
    strategy.train(toy_benchmark().train_stream[2])
    assert_close(plugin.reference(x)[:, :4], wanted)
    assert not any(m.training for m in plugin.reference.model.modules())
    assert not any(p.requires_grad for p in plugin.reference.model.parameters())
    with evaluating(strategy.model):
        assert (strategy.model(x)[:, :4] - wanted).abs().max() > 0.01


def test_distillation_keeps_old_probabilities_nearer_to_what_they_were():
    (x, y), moved = Images(10, seed=2).tensors, []
    x = x[y < 4]
    for weight in (0.0, 3.0):
        torch.manual_seed(0)
        plugin = ScoreDistillationPlugin(weight=weight, freeze_old_prototypes=False)
        # without normalisation, whose statistics move anyhow
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 6)
        )
        strategy, _, _ = distilled(1, plugin=plugin, model=model)
        with evaluating(strategy.model):
            before = log_softmax(strategy.model(x)[:, :2], 1)
        strategy.train(toy_benchmark().train_stream[1])
        with evaluating(strategy.model):
            after = log_softmax(strategy.model(x)[:, :2], 1)
        each = kl_div(after, before, reduction="batchmean", log_target=True)
        moved.append(float(each))
    print(moved)
    assert moved[1] < 0.5 * moved[0]


def test_a_classifier_that_knows_classes_distils_from_the_start():
    model = FeatureClassifier(toy_extractor(), CosineClassifier(8, n_classes=2))
    stream = toy_benchmark().train_stream[1:]
    _, plugin, terms = distilled(1, stream=stream, model=model)
    assert plugin.reference is not None and torch.stack(terms.added).max() > 0.001


def test_an_experience_without_new_classes_holds_all():
    benchmark, (strategy, plugin, terms) = toy_benchmark(), distilled(2)
    before = [p.detach().clone() for p in strategy.model.train_classifier.prototypes]
    strategy.train(benchmark.train_stream[0])
    assert plugin.reference is not None and terms.added[-1] > 0
    for ours, wanted in zip(strategy.model.train_classifier.prototypes, before):
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize("optimizer", [None, optim.AdamW, optim.RMSprop])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_old_prototypes_rest_and_become_trainable_again(optimizer, weight):
    plugin = ScoreDistillationPlugin(weight=weight)
    strategy, _, _ = distilled(1, plugin=plugin, optimizer=optimizer)
    prototypes = strategy.model.train_classifier.prototypes
    before = prototypes[0].detach().clone()
    strategy.train(toy_benchmark().train_stream[1])
    assert torch.equal(prototypes[0], before)
    assert all(p.requires_grad for p in prototypes)
    free = ScoreDistillationPlugin(weight=weight, freeze_old_prototypes=False)
    strategy, _, _ = distilled(2, plugin=free, optimizer=optimizer)
    assert not torch.equal(strategy.model.train_classifier.prototypes[0], before)


def test_prototypes_the_user_froze_stay_frozen():
    strategy, _, _ = distilled(1)
    rows = strategy.model.train_classifier.prototypes[0].requires_grad_(False)
    strategy.train(toy_benchmark().train_stream[1])
    assert not rows.requires_grad
    assert strategy.model.train_classifier.prototypes[1].requires_grad


@pytest.mark.parametrize("first", [LUCIRPlugin, ScoreDistillationPlugin])
def test_it_goes_along_with_lucirs_terms(first):
    plugins = [LUCIRPlugin(), ScoreDistillationPlugin()]
    plugins.sort(key=lambda p: type(p) is not first)
    strategy = naive_with(*plugins, model=toy_model())
    for experience in toy_benchmark().train_stream:
        strategy.train(experience)
    assert all(p.requires_grad for p in strategy.model.parameters())


def test_bytes_of_the_reference_are_told():
    strategy, plugin, _ = distilled(1)
    assert plugin.memory_bytes() == {"frozen_copies": 0}
    strategy.train(toy_benchmark().train_stream[1])
    state = strategy.model.state_dict().values()
    assert plugin.memory_bytes() == {"frozen_copies": sum(t.nbytes for t in state)}


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="temperature is 0; wanted a number above 0"):
        ScoreDistillationPlugin(temperature=0)
    with pytest.raises(ValueError, match="weight is -1; wanted a number, at least 0"):
        ScoreDistillationPlugin(weight=-1)
    with pytest.raises(ValueError, match="freeze_old_prototypes is 1; wanted one of"):
        ScoreDistillationPlugin(freeze_old_prototypes=1)


def test_models_that_do_not_fit_are_refused_before_any_work():
    for model, plugin, message in (
        (toy_model(cosine=False), ScoreDistillationPlugin(), "is a Linear; wanted a"),
        (
            task_model(),
            ScoreDistillationPlugin(freeze_old_prototypes=False),
            "TaskIncrementalClassifier has a head for each task label",
        ),
    ):
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            distilled(1, plugin=plugin, model=model)
        assert_equal(dict(model.state_dict()), before)
