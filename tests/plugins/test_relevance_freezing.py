"""Freezing by relevance, on Avalanche's own strategies."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EWCPlugin, ReplayPlugin
from avalanche.training.supervised import Naive
from cases import N_CLASSES, SIDE, build, toy_extractor
from rerelrp_hosts import SHAPE, images, mlp, sgd, stream_of
from torch import nn

from avalanche_ext.buffers import HerdingBuffer, ReferenceSamples
from avalanche_ext.models import FeatureClassifier
from avalanche_ext.models.submodel import Submodel
from avalanche_ext.plugins import ExemplarReplayPlugin, RelevanceFreezingPlugin


def freezing(model, **options):
    fixed = {"acc_drop": 15, "validation_fraction": 0.3}
    reference = ReferenceSamples(12)
    return RelevanceFreezingPlugin(
        model, input_shape=SHAPE, reference=reference, **{**fixed, **options}
    )


class Answers(SupervisedPlugin):
    def __init__(self):
        super().__init__()
        self.seen = []

    def after_eval_forward(self, strategy, **kwargs):
        self.seen.append((strategy.mb_x, strategy.mb_y, strategy.mb_output))

    def whole(self):
        found = [torch.cat(part) for part in zip(*self.seen)]
        self.seen.clear()
        return found


def hosted(*others, before=(), model=None, **options):
    """Avalanche's Naive with the plugin among others, and the plugin."""
    model = model or mlp()
    plugin, answers = freezing(model, **options), Answers()
    strategy = build(
        Naive,
        model=model,
        optimizer=sgd(model),
        plugins=[*before, plugin, *others, answers],
        train_epochs=6,
    )
    strategy.answers = answers
    return strategy, plugin


def test_each_class_is_answered_by_its_own_submodel():
    strategy, plugin = hosted()
    strategy.train(stream_of().train_stream[:2])
    strategy.eval(stream_of().test_stream)
    x, y, output = strategy.answers.whole()
    for k, classes in enumerate(([0, 1], [2, 3])):
        own = plugin.submodels.of(strategy.model, k)
        mine = torch.isin(y, torch.tensor(classes))
        assert torch.equal(output[mine][:, classes], own(x[mine]))
        others = [c for c in range(N_CLASSES) if c not in classes]
        assert (output[mine][:, others] == -1000).all()
    strategy.model.eval()
    with torch.no_grad():  # of classes nobody knows, by the network as it is
        assert torch.equal(output[y > 3], strategy.model(x[y > 3]))


def test_an_evaluation_copies_the_network_once(monkeypatch):
    strategy, plugin = hosted()
    stream = stream_of()
    strategy.train(stream.train_stream)
    made, init = [], Submodel.__init__

    def counted(self, *args, **options):
        made.append(self)
        init(self, *args, **options)

    monkeypatch.setattr(Submodel, "__init__", counted)
    strategy.eval(stream.test_stream)
    assert len(plugin.submodels) > 1 and len(made) == 1


def test_evaluation_before_training_is_answered_by_the_network():
    strategy, _ = hosted()
    strategy.eval(stream_of().test_stream)
    x, _, output = strategy.answers.whole()
    with torch.no_grad():
        torch.testing.assert_close(output, strategy.model.eval()(x))


def test_held_back_samples_are_not_trained_and_as_many_of_each_class():
    trained = []

    class Seen(SupervisedPlugin):
        def after_train_dataset_adaptation(self, strategy, **kwargs):
            trained.append(sorted(int(y) for y in strategy.adapted_dataset.targets))

    strategy, plugin = hosted(Seen())
    strategy.train(stream_of().train_stream[0])
    assert trained == [[0] * 17 + [1] * 17]  # of 24, three tenths are 7
    assert plugin._valid is None


def test_a_validation_stream_leaves_all_data_to_training():
    seen = []

    class Seen(SupervisedPlugin):
        def after_train_dataset_adaptation(self, strategy, **kwargs):
            seen.append(len(strategy.adapted_dataset))

    strategy, _ = hosted(Seen(), valid_stream=stream_of().test_stream)
    strategy.train(stream_of().train_stream)
    assert seen == [48, 48, 48]


@pytest.mark.parametrize(
    "others",
    [
        lambda: [ReplayPlugin(12)],
        lambda: [ExemplarReplayPlugin(HerdingBuffer(per_class=4))],
        lambda: [EWCPlugin(1.0)],
    ],
)
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.filterwarnings("ignore:no unit is free")
def test_submodels_never_change_beside_other_plugins(others, place):
    plugins = others()
    strategy, plugin = hosted(before=plugins) if place == "before" else hosted(*plugins)
    outputs = []
    for experience in stream_of().train_stream:
        strategy.train(experience)
        outputs.append(plugin.submodels.of(strategy.model, 0)(images()))
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


class Shuffle(SupervisedPlugin):
    def after_train_dataset_adaptation(self, strategy, **kwargs):
        data = strategy.adapted_dataset
        strategy.adapted_dataset = data.subset(list(range(len(data)))[::-1])


def test_a_plugin_before_it_that_reorders_data_is_told():
    strategy, _ = hosted(before=[Shuffle()])
    with pytest.raises(
        ValueError, match="wanted the plugin that holds data back listed before"
    ):
        strategy.train(stream_of().train_stream[0])


@pytest.mark.parametrize("first", [True, False])
def test_the_unpruned_network_may_answer_until_there_are_two(first):
    strategy, plugin = hosted(evaluate_unpruned_first=first)
    stream = stream_of()
    strategy.train(stream.train_stream[0])
    strategy.eval(stream.test_stream[0])
    x, _, output = strategy.answers.whole()
    with torch.no_grad():
        whole = strategy.model.eval()(x)[:, :2]
    own = plugin.submodels.of(strategy.model, 0)  # is the pruned one in any case
    assert not torch.equal(whole, own(x))
    torch.testing.assert_close(output[:, :2], whole if first else own(x))
    strategy.train(stream.train_stream[1])
    strategy.eval(stream.test_stream[0])
    assert torch.equal(strategy.answers.whole()[2][:, :2], own(x))


def test_a_constant_behind_normalisation_comes_through_if_asked():
    found = []
    for masked in (True, False):
        torch.manual_seed(0)
        strategy, plugin = hosted(mask_batchnorm=masked, min_units=1)
        strategy.train(stream_of().train_stream[0])
        own = plugin.submodels.of(strategy.model, 0).network.feature_extractor
        off = ~plugin.submodels.keeps[0]["feature_extractor.1"]
        assert off.any()
        with torch.no_grad():
            layer = own[1](images().flatten(1))
            found.append(own[2](layer)[:, off])
        assert not layer[:, off].any()
    assert not found[0].any() and found[1].any()
    assert torch.equal(found[1], found[1][:1].expand_as(found[1]))


def test_without_the_head_pruned_all_its_rows_stay():
    for pruned in (True, False):
        strategy, plugin = hosted(prune_head=pruned, acc_drop=60)
        strategy.train(stream_of().train_stream[0])
        keep = plugin.submodels.keeps[0]["train_classifier"]
        assert keep.tolist().count(True) == (1 if pruned else 2)


def test_after_an_error_the_next_experience_is_trained_as_ever():
    class Once(SupervisedPlugin):
        armed = False

        def after_backward(self, strategy, **kwargs):
            if self.armed:
                self.armed = False
                raise RuntimeError("stop")

    once, stream = Once(), stream_of().train_stream
    strategy, plugin = hosted(once)
    strategy.train(stream[0])
    own = plugin.submodels.of(strategy.model, 0)(images())
    once.armed = True
    with pytest.raises(RuntimeError, match="stop"):
        strategy.train(stream[1])
    strategy.train(stream[1:])
    assert torch.equal(plugin.submodels.of(strategy.model, 0)(images()), own)
    assert [list(c) for c in plugin.submodels.classes] == [[0, 1], [2, 3], [4, 5]]
    assert all(module.training for module in strategy.model.modules())


def test_the_optimizer_keeps_its_groups():
    model = mlp()
    strategy, _ = hosted(model=model)
    groups = strategy.optimizer.param_groups
    before = [id(p) for group in groups for p in group["params"]]
    strategy.train(stream_of().train_stream)
    assert [
        id(p) for g in strategy.optimizer.param_groups for p in g["params"]
    ] == before
    assert all(p.requires_grad for p in model.parameters())


def test_one_of_two_heads_is_named():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = toy_extractor()
            self.first, self.second = nn.Linear(8, N_CLASSES), nn.Linear(8, N_CLASSES)

        def forward(self, x):
            return self.first(self.body(x)) + 0 * self.second(self.body(x)).sum()

    with pytest.raises(ValueError, match="first"):
        freezing(TwoHeads())


def test_models_without_normalisation_work():
    body = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 16), nn.ReLU())
    model = FeatureClassifier(body, nn.Linear(16, N_CLASSES))
    strategy, plugin = hosted(model=model)
    outputs = []
    for experience in stream_of().train_stream:
        strategy.train(experience)
        outputs.append(plugin.submodels.of(model, 0)(images()))
    assert torch.equal(outputs[0], outputs[2])
