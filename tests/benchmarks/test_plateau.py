"""The schedule by the loss on held-back data."""

from __future__ import annotations

import contract
import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import APIS, naive_with, task_model, toy_benchmark, toy_model
from rerelrp_subjects import rerelrp_subject
from torch import nn
from torch.nn.functional import cross_entropy

from avalanche_ext.buffers.held_back import HeldBack
from avalanche_ext.plugins import RelevanceFreezingPlugin
from benchmarks.recipes import rerelrp
from benchmarks.training import plateau
from benchmarks.training.plateau import PlateauPlugin


class Notes(SupervisedPlugin):
    """Rate of each epoch, and weights after it; before the plugin acts."""

    def __init__(self):
        super().__init__()
        self.rates, self.weights = [], []

    def after_training_epoch(self, strategy, **kwargs):
        self.rates.append(strategy.optimizer.param_groups[0]["lr"])
        self.weights.append(state(strategy.model))


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def scripted(monkeypatch, losses):
    """Losses by script, an epoch each."""
    script = iter(losses)
    monkeypatch.setattr(plateau, "validation_loss", lambda *_: next(script))


def steered(epochs, **options):
    """Naive at rate 1/2 with the plugin; 4 held-back samples of each class."""
    fixed = {"factor": 0.5, "patience": 2, **options}
    plugin, notes = PlateauPlugin(HeldBack(1 / 6), **fixed), Notes()
    model = toy_model(cosine=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    strategy = naive_with(
        notes, plugin, model=model, optimizer=optimizer, train_epochs=epochs
    )
    return strategy, plugin, notes


@pytest.mark.parametrize(
    ("options", "losses", "rates"),
    [
        # equal is not lower, and the count starts again when the rate falls
        ({}, [3, 2, 2, 3, 4, 2, 1], [4, 4, 4, 4, 2, 2, 1]),
        ({"patience": 1}, [1, 2, 0, 0], [4, 4, 2, 2]),
        ({"min_lr": 0.2}, [1, 1, 1, 1, 1, 1, 1], [4, 4, 4, 2, 2]),
        ({"stop_patience": 3}, [1, 1, 0, 1, 1, 1, 1], [4, 4, 4, 4, 4, 2]),
        ({"patience": 1, "start_epoch": 3}, [1, 2], [4, 4, 4, 4, 4]),
        ({"stop_patience": 1, "start_epoch": 2}, [1, 1], [4, 4, 4, 4]),
        ({}, [float("nan")] * 4, [4, 4, 2, 2]),
    ],
)
def test_rate_falls_and_training_ends_by_the_loss(options, losses, rates, monkeypatch):
    epochs = options.get("start_epoch", 0) + len(losses)
    strategy, _, notes = steered(epochs, **options)
    for experience in toy_benchmark().train_stream[:2]:  # each starts anew
        scripted(monkeypatch, losses)
        notes.rates.clear()
        strategy.train(experience)
        assert notes.rates == [rate / 8 for rate in rates]
        assert strategy.optimizer.param_groups[0]["lr"] == 0.5
        strategy._stop_training = False  # Avalanche's would end the next one, too


@pytest.mark.parametrize("back_to_best", [False, True])
def test_experience_ends_with_its_best_weights(back_to_best, monkeypatch):
    losses = [0, 3, 1, 2, 2, 4]  # the first is not looked at
    strategy, plugin, notes = steered(6, start_epoch=1, back_to_best=back_to_best)
    scripted(monkeypatch, losses[1:])
    strategy.train(toy_benchmark().train_stream[0])
    contract.assert_equal(state(strategy.model), notes.weights[2])
    assert plugin.losses == losses[1:]


@pytest.mark.parametrize("back_to_best", [False, True])
def test_best_weights_are_gone_on_from_only_if_asked(back_to_best, monkeypatch):
    starts = []

    class Starts(SupervisedPlugin):
        def before_training_epoch(self, strategy, **kwargs):
            starts.append(state(strategy.model))

    strategy, _, notes = steered(4, back_to_best=back_to_best)
    strategy.plugins.append(Starts())
    scripted(monkeypatch, [1, 2, 2, 2])  # the rate falls after the third
    strategy.train(toy_benchmark().train_stream[0])
    contract.assert_equal(starts[1], notes.weights[0])
    contract.assert_equal(starts[2], notes.weights[1])
    contract.assert_equal(starts[3], notes.weights[0 if back_to_best else 2])


def test_falling_losses_change_nothing_but_that_data_are_held_back(monkeypatch):
    class Takes(SupervisedPlugin):
        def after_train_dataset_adaptation(self, strategy, **kwargs):
            HeldBack(1 / 6).take(strategy)

    def wanted(**options):
        model = toy_model(cosine=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        return naive_with(Takes(), model=model, optimizer=optimizer, **options)

    def ours(**options):
        return steered(2, patience=100)[0]

    scripts = iter([3, 2] * 3)
    real = plateau.validation_loss

    def measured(*arguments):  # in earnest, which must not be seen
        real(*arguments)
        return next(scripts)

    monkeypatch.setattr(plateau, "validation_loss", measured)
    contract.assert_equals_naive(ours, wanted, "old")


@pytest.mark.parametrize("api", APIS)
def test_loss_is_the_mean_over_the_data_in_evaluation_mode(api):
    found = []

    class Measures(SupervisedPlugin):
        def after_training_epoch(self, strategy, **kwargs):
            net, data = strategy.model, strategy.adapted_dataset
            net.get_submodule("0" if plain else "feature_extractor.2").eval()
            modes = {name: m.training for name, m in net.named_modules()}
            loader = list(torch.utils.data.DataLoader(data, batch_size=7))
            batch, random = strategy.mbatch, torch.get_rng_state()
            ours = plateau.validation_loss(strategy, loader)
            assert strategy.mbatch is batch
            assert torch.equal(torch.get_rng_state(), random)
            assert {name: m.training for name, m in net.named_modules()} == modes
            net.eval()
            x, y, *t = (torch.cat(part) for part in zip(*loader))
            with torch.no_grad():
                logits = net(x) if plain else net(x, *t)
            net.train()
            found.append((ours, float(cross_entropy(logits, y))))

    plain = not api.endswith("task_labels")
    model = (
        nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(36, 6))
        if plain
        else task_model()
    )
    strategy = naive_with(Measures(), model=model)
    strategy.train(toy_benchmark(api).train_stream)
    assert len(found) == 6
    for ours, wanted in found:
        assert ours == pytest.approx(wanted, rel=1e-5)


def test_held_back_data_are_not_kept_nor_trained():
    strategy, plugin, _ = steered(2)
    trained = []

    class Counts(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            trained.append((len(strategy.adapted_dataset), len(plugin._data)))

    strategy.plugins.append(Counts())
    strategy.train(toy_benchmark().train_stream)
    assert trained == [(40, 8)] * 3
    assert plugin._data is plugin._experience is plugin.held_back._taken is None
    assert plugin.memory_bytes() == {}


def naive_subject(**options):
    generator = torch.Generator().manual_seed(4)
    held_back = HeldBack(1 / 6, generator=generator)
    plugin = PlateauPlugin(
        held_back, factor=0.1, patience=1, stop_patience=3, back_to_best=True
    )
    return naive_with(plugin, **{"train_epochs": 8, **options})


def relevance_subject(**options):
    strategy = rerelrp_subject(**{"train_epochs": 8, **options})
    rerelrp._follow_validation(strategy, 1)
    return strategy


SUBJECTS = [naive_subject, relevance_subject]


@pytest.mark.filterwarnings("ignore:no unit is free")
@pytest.mark.parametrize("make", SUBJECTS)
def test_stop_and_resume_equals_never_stopping(make, tmp_path):
    contract.assert_resume_equals_never_stopping(make, "old", tmp_path)


@pytest.mark.filterwarnings("ignore:no unit is free")
@pytest.mark.parametrize("make", SUBJECTS)
def test_model_is_left_as_found(make):
    contract.assert_model_left_as_found(make, "old")


@pytest.mark.filterwarnings("ignore:no unit is free")
def test_pruning_and_schedule_look_at_the_same_data_and_submodels_never_change(
    monkeypatch,
):
    strategy = relevance_subject()
    plugin = strategy.plugins[0]
    [freezing] = (p for p in strategy.plugins if isinstance(p, RelevanceFreezingPlugin))
    same, weights, outputs = [], [], []

    class Looks(SupervisedPlugin):
        def after_training_epoch(self, strategy, **kwargs):
            same.append(plugin._data is freezing._valid)
            weights.append(state(strategy.model))

        def after_training_exp(self, strategy, **kwargs):
            contract.assert_equal(state(strategy.model), weights[1])

    strategy.plugins.append(Looks())  # behind pruning
    benchmark = toy_benchmark()
    x = torch.stack([image for image, *_ in benchmark.test_stream[0].dataset])
    for experience in benchmark.train_stream:
        weights.clear()
        scripted(monkeypatch, [2, 1, 3, 3, 3, 3, 3, 3])  # 0.02 / 3**5 is too low
        strategy.train(experience)
        assert len(weights) == 7
        outputs.append(strategy.submodel(0)(x))
    assert same and all(same)
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_back": 0.1}, "held_back is 0.1; wanted"),
        ({"factor": 1.0}, "factor is 1.0; wanted less than 1"),
        ({"factor": 0}, "factor is 0; wanted"),
        ({"patience": 0}, "patience is 0; wanted"),
        ({"min_lr": -1}, "min_lr is -1; wanted"),
        ({"stop_patience": 0}, "stop_patience is 0; wanted"),
        ({"start_epoch": -1}, "start_epoch is -1; wanted"),
    ],
)
def test_wrong_options_are_refused(options, message):
    fixed = {"held_back": HeldBack(), "factor": 0.5, "patience": 1}
    with pytest.raises(ValueError, match=message):
        PlateauPlugin(**{**fixed, **options})
