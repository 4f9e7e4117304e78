"""Every argument of AR1* does what it says."""

from __future__ import annotations

import copy

import pytest
import torch
from ar1_hosts import SHAPE, Notes, ar1, network, rates, sgd, the, train, trained
from avalanche.core import SupervisedPlugin
from cases import toy_benchmark, toy_model
from contract import weights
from torch import nn

from avalanche_ext.metrics.memory import memory_bytes
from avalanche_ext.models import BatchRenorm2d, batch_renorms_of, suggest_latent_layer
from avalanche_ext.plugins import (
    CWRStarPlugin,
    LatentReplayPlugin,
    SynapticIntelligencePlugin,
)

PHASE = ("momentum", "r_max", "d_max", "growth")


def phase(layer):
    return [float(getattr(layer, name)) for name in PHASE]


def differ(ours, wanted):
    """Names of weights that are not the same."""
    return {
        n for n, w in weights(wanted).items() if not torch.equal(weights(ours)[n], w)
    }


@pytest.mark.parametrize("below", ["frozen", "adapt"])
def test_limits_widen_in_the_first_experience_and_stand_still_afterwards(below):
    strategy = ar1(
        momentum=(0.1, 0.02), r_max=1.5, d_max=0.3, growth=0.001, below=below
    )
    layers = list(batch_renorms_of(strategy.model))
    first = pytest.approx([0.1, 1, 0, 0.001])
    assert [phase(layer) for layer in layers] == [first] * 4
    train(strategy, visits=[0])
    # two epochs of 48 samples
    grown = pytest.approx([0.1, 1.096, 0.096, 0.001], abs=1e-5)
    frozen = below == "frozen"
    assert [phase(layer) for layer in layers[2:]] == [grown] * 2
    assert [phase(layer) for layer in layers[:2]] == [first if frozen else grown] * 2
    train(strategy, visits=[1, 2])
    later = pytest.approx([0.02, 1.5, 0.3, 0])
    assert [phase(layer) for layer in layers[2:]] == [later] * 2
    assert [phase(layer) for layer in layers[:2]] == [first if frozen else later] * 2


def test_without_freezing_first_limits_below_widen_and_then_rest():
    strategy = ar1(freeze_first=False, growth=0.001)
    below = list(batch_renorms_of(strategy.model))[:2]
    train(strategy, visits=[0])
    after = [copy.deepcopy(layer.state_dict()) for layer in below]
    assert all(float(layer.r_max) == pytest.approx(1.096) for layer in below)
    train(strategy, visits=[1, 2])
    for layer, state in zip(below, after):
        assert all(torch.equal(layer.state_dict()[k], v) for k, v in state.items())


def test_options_of_the_normalisation_reach_every_layer():
    model, plain = network(), None
    plain = copy.deepcopy(model)
    ar1(model, limits="overshoot", std="legacy", r_max=2.0, d_max=3.0, growth=0.5)
    for name in "abcd":
        ours, theirs = model.get_submodule(name).norm, plain.get_submodule(name).norm
        assert isinstance(ours, BatchRenorm2d) and ours.limits == "overshoot"
        assert torch.equal(ours.running_std, theirs.running_var.sqrt())
        maxima = float(ours.max_r_max), float(ours.max_d_max), float(ours.growth)
        assert maxima == (2, 3, 0.5)


def test_evaluation_of_the_model_given_stays():
    model = network().eval()
    x = torch.randn(4, *SHAPE)
    wanted = model(x)
    ar1(model)
    torch.testing.assert_close(model(x), wanted)


def test_batch_normalisation_stays_if_wanted():
    strategy = trained(batch_renorm=False)
    assert not list(batch_renorms_of(strategy.model))
    norms = [m for m in strategy.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [int(n.num_batches_tracked > 1) for n in norms] == [0, 0, 1, 1]


def test_momenta_are_dropped_once_before_the_second_experience():
    trained(plugins=[notes := Notes()])
    assert notes.momenta[:2] == [0, 0] and notes.momenta[2] > 0


@pytest.mark.parametrize("first, wanted", [(None, [2, 2, 2]), (5, [5, 2, 2])])
def test_first_experience_has_epochs_of_its_own(first, wanted):
    trained(first_epochs=first, plugins=[notes := Notes()])
    assert notes.epochs == wanted


@pytest.mark.parametrize("si", ["none", "penalty", "learning_rate"])
@pytest.mark.parametrize("rests", [False, True])
def test_depthwise_convolutions_above_rest_from_the_second_experience_on(rests, si):
    model, notes = network(), Notes()
    start = model.state_dict()["d.conv.weight"].clone()
    options = {"si": si, "si_strength": 0.5, "later_lr": 0.05, "plugins": [notes]}
    train(ar1(model, freeze_depthwise=rests, **options))
    depthwise, pointwise = (
        [state[f"{name}.conv.weight"] for state in notes.states] for name in "dc"
    )
    assert not torch.equal(depthwise[0], start)
    same = [torch.equal(depthwise[0], w) for w in depthwise]
    assert same == [True, rests, rests]
    assert not torch.equal(pointwise[0], pointwise[1])


@pytest.mark.parametrize("si", ["penalty", "learning_rate"])
def test_synaptic_intelligence_acts_from_the_second_experience_on(si):
    options = {"later_lr": 0.05, "si_strength": 1.0 if si[0] == "l" else 1e4}
    plain, ours = Notes(), Notes()
    with_it = trained(si=si, plugins=[ours], **options)
    without = trained(plugins=[plain], **options)
    same = [
        torch.equal(a["c.conv.weight"], b["c.conv.weight"])
        for a, b in zip(ours.states, plain.states)
    ]
    assert same == [True, False, False]
    tracked = the(SynapticIntelligencePlugin, with_it).importance
    assert set(tracked) == {"c.conv.weight", "d.conv.weight"}
    kinds = {type(p) for p in without.plugins}
    assert SynapticIntelligencePlugin not in kinds


def test_arguments_reach_the_plugins():
    generator = torch.Generator()
    strategy = ar1(
        memory_size=7,
        latent_dtype="float16",
        freeze_first=False,
        cache_current=True,
        order="published",
        replacement="published",
        head="head",
        cwr_repeat="per_pattern",
        mask_unseen=True,
        si="penalty",
        si_strength=3.0,
        si_trajectory="update",
        si_min_importance=None,
        generator=generator,
        memory_resident=False,
    )
    replay, cwr, si = (
        vars(the(kind, strategy))
        for kind in (LatentReplayPlugin, CWRStarPlugin, SynapticIntelligencePlugin)
    )
    buffer = strategy.buffer
    assert buffer is replay["buffer"] is cwr["buffer"]
    assert (buffer.max_size, buffer.dtype, buffer.generator) == (
        7,
        "float16",
        generator,
    )
    assert (replay["freeze_first"], replay["cache_current"]) == (False, True)
    assert (replay["order"], replay["replacement"]) == ("published", "published")
    assert (replay["generator"], replay["memory_resident"]) == (generator, False)
    assert (cwr["head"], cwr["repeat"], cwr["mask_unseen"]) == (
        "head",
        "per_pattern",
        True,
    )
    assert (si["mode"], si["strength"], si["trajectory"]) == ("penalty", 3.0, "update")
    assert si["min_importance"] is None and si["exclude"] == ("head",)


def test_generator_governs_all_that_is_drawn():
    def run(seed):
        torch.manual_seed(0)
        strategy = ar1(generator=torch.Generator().manual_seed(3))
        torch.manual_seed(seed)
        return train(strategy)

    assert not differ(run(1), run(2))


class Outputs(SupervisedPlugin):
    def __init__(self):
        super().__init__()
        self.seen = []

    def after_eval_forward(self, strategy, **kwargs):
        self.seen.append(strategy.mb_output)


@pytest.mark.parametrize("mask", [False, True])
def test_classes_without_a_past_are_predicted_unless_masked(mask):
    strategy = ar1(mask_unseen=mask, plugins=[outputs := Outputs()])
    train(strategy, visits=[0])
    strategy.eval(toy_benchmark().test_stream)
    masked = (torch.cat(outputs.seen) == -1000).all(0)
    assert masked.tolist() == [False] * 2 + [mask] * 4


def test_repeated_consolidation_makes_other_heads():
    once, often = (
        trained(later_lr=0.05),
        trained(later_lr=0.05, cwr_repeat="per_pattern"),
    )
    assert "head.weight" in differ(often, once)


@pytest.mark.parametrize("make", [network, lambda: toy_model(cosine=False)])
def test_without_a_name_the_cut_is_the_suggested_one(make):
    model = make()
    wanted = suggest_latent_layer(copy.deepcopy(model), SHAPE)
    strategy = ar1(model, latent_layer=None)
    assert strategy.latent_layer == wanted
    assert the(LatentReplayPlugin, strategy).cut.is_current()


def test_a_normalisation_can_be_the_cut():
    strategy = trained(latent_layer="b.norm", batch_renorm=True)
    latents = the(LatentReplayPlugin, strategy).cut.latents(torch.randn(3, *SHAPE))
    assert latents.shape[1:] == strategy.buffer.latents(slice(None)).shape[1:]
    assert (
        len(ar1(latent_layer="b.norm")._replay.cut.latents(torch.zeros(2, *SHAPE))) == 2
    )


def test_optimizer_may_have_any_learning_rate_first():
    model = network()
    strategy = train(ar1(model, optimizer=sgd(model, lr=0.3)), visits=[0])
    assert set(rates(strategy).values()) == {0.3}


def test_the_memory_counts_once_although_two_plugins_know_it():
    strategy = trained()
    rows = the(CWRStarPlugin, strategy)
    kept = memory_bytes(strategy)
    assert kept["latents"] == strategy.buffer.nbytes > 0
    assert kept["tensors"] == rows.saved.nbytes + rows.past.nbytes > 0
