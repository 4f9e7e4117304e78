"""What each part of Mnemonics changes, alone and with the others."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import N_EXPERIENCES, build, toy_benchmark
from contract import assert_equal, weights
from mnemonics_hosts import conv_model, mnemonics, pixel_stream, quick, trained
from torch.optim import SGD

from avalanche_ext.buffers import MnemonicsBuffer
from avalanche_ext.strategies import LUCIR

#: Without all that Mnemonics adds to LUCIR.
PLAIN = {
    "optimization": None,
    "weight_transfer": False,
    "finetuning_epochs": 0,
    "imprint": False,
}


class Notes(SupervisedPlugin):
    """The model's state as the first and last iteration of each experience meet it."""

    def __init__(self):
        super().__init__()
        self.begin, self.end = [], []

    def before_training_epoch(self, strategy, **kwargs):
        if strategy.clock.train_exp_epochs == 0:
            self.begin.append(snapshot(strategy.model))

    def after_training_epoch(self, strategy, **kwargs):
        if strategy.clock.train_exp_epochs == strategy.train_epochs - 1:
            self.end.append(snapshot(strategy.model))


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def noted(n=N_EXPERIENCES, **options):
    """The strategy after n experiences, and states at their begin, end, and behind."""
    torch.manual_seed(0)
    notes, behind = Notes(), []
    strategy = mnemonics(plugins=[notes], **options)
    torch.manual_seed(1)
    for experience in toy_benchmark().train_stream[:n]:
        strategy.train(experience)
        behind.append(snapshot(strategy.model))
    return strategy, list(zip(notes.begin, notes.end, behind, strict=True))


def moved(one, other):
    """Names of what differs."""
    return {name for name in one if not torch.equal(one[name], other[name])}


def test_without_its_parts_it_is_lucir_bit_for_bit():
    found = []
    for make in (
        partial(mnemonics, selection="herding", mean=None, std=None, **PLAIN),
        partial(build, LUCIR, exemplars_per_class=4),
        partial(
            build,
            LUCIR,
            buffer=MnemonicsBuffer("herding", per_class=4, optimizer=None),
        ),
    ):
        torch.manual_seed(0)
        model = conv_model()
        strategy = make(
            model=model, optimizer=SGD(model.parameters(), lr=0.05, momentum=0.9)
        )
        torch.manual_seed(1)
        strategy.train(pixel_stream().train_stream)
        found.append(weights(strategy))
    assert_equal(found[1], found[0])
    assert_equal(found[2], found[0])


@pytest.mark.parametrize(
    "part",
    [
        {"optimization": quick(lr=0.1)},
        {"weight_transfer": True},
        {"finetuning_epochs": 2},
        {"imprint": True},
        {"selection": "herding"},
    ],
)
def test_each_part_works_alone_and_changes_what_is_learned(part):
    """Not the first experience, apart from the exemplars it leaves behind."""
    _, plain = noted(**PLAIN)
    strategy, states = noted(**{**PLAIN, **part})
    assert not moved(states[0][1], plain[0][1])
    learned = [name for name in plain[-1][2] if name in states[-1][2]]
    assert any(
        not torch.equal(plain[-1][2][name], states[-1][2][name]) for name in learned
    )
    names = {type(plugin).__name__ for plugin in strategy.plugins}
    assert ("WeightTransferPlugin" in names) == ("weight_transfer" in part)
    assert ("BalancedFinetuningPlugin" in names) == ("finetuning_epochs" in part)
    assert ("ImprintingPlugin" in names) == ("imprint" in part)
    assert bool(strategy.buffer.history.entries) == ("optimization" in part)


def test_optimised_exemplars_are_those_that_are_replayed():
    seen = {}

    class Watch(SupervisedPlugin):
        def after_training_iteration(self, strategy, **kwargs):
            if strategy.clock.train_exp_counter == 1:
                old = strategy.mb_y < 2
                seen.setdefault("x", []).append(strategy.mb_x[old].clone())

        def before_training_exp(self, strategy, **kwargs):
            if strategy.clock.train_exp_counter == 1:
                seen["exemplars"] = strategy.buffer.exemplars.inputs(
                    [0, 1], strategy.device
                ).x

    strategy = mnemonics(
        plugins=[Watch()], train_epochs=1, optimization=quick(lr=0.2, steps=4)
    )
    trained(strategy, 2)
    replayed, kept = (x.flatten(1) for x in (torch.cat(seen["x"]), seen["exemplars"]))
    assert len(replayed) == len(kept) == 8
    assert float(torch.cdist(replayed, kept).amin(1).max()) < 1e-4
    data = torch.stack([item[0] for item in toy_benchmark().train_stream[0].dataset])
    assert float(torch.cdist(kept, data.flatten(1)).amin(1).min()) > 0.1


@pytest.mark.parametrize("decay_to_one", [False, True])
def test_from_the_second_experience_on_kernels_rest_and_scales_train(decay_to_one):
    _, states = noted(decay_to_one=decay_to_one)
    kernels = {f"feature_extractor.{i}.weight" for i in (0, 3)}
    kernels |= {"feature_extractor.3.bias"}
    scale = "mtl_deviation" if decay_to_one else "mtl_weight"
    scales = {f"feature_extractor.{i}.{scale}" for i in (0, 3)}
    scales |= {"feature_extractor.3.mtl_bias"}
    (first, first_end, first_behind), *later = states
    assert kernels <= moved(first, first_end) and not scales & first_behind.keys()
    before = first_behind
    for begin, end, behind in later:
        for state in (begin, end, behind):
            assert not kernels & moved({k: before[k] for k in kernels}, state)
        assert scales <= moved(begin, end) and scales <= moved(end, behind)
    for name in scales:  # never folded: the same ones go on
        assert torch.equal(later[1][0][name], later[0][2][name])


def test_without_tuning_old_prototypes_stay_bit_equal():
    _, states = noted(finetuning_epochs=0)
    for i, (_, _, behind) in enumerate(states[1:], start=1):
        for k in range(i):
            name = f"train_classifier.prototypes.{k}"
            assert torch.equal(behind[name], states[k][2][name])
        assert f"train_classifier.prototypes.{i}" in behind


def test_tuning_moves_all_that_is_trainable_but_no_statistics_and_not_at_first():
    strategy, states = noted()
    assert not moved(states[0][1], states[0][2])
    for i, (_, end, behind) in enumerate(states[1:], start=1):
        grown = [f"train_classifier.prototypes.{k}" for k in range(i + 1)]
        trainable = {n for n, _ in strategy.model.named_parameters() if n in behind}
        assert moved(end, behind) == trainable and set(grown) <= trainable
    assert all(p.requires_grad for p in strategy.model.parameters())


def test_what_a_user_froze_is_tuned_by_no_part():
    model = conv_model()
    model.feature_extractor[1].requires_grad_(False)
    frozen = [p.clone() for p in model.feature_extractor[1].parameters()]
    trained(mnemonics(model=model))
    for before, now in zip(frozen, model.feature_extractor[1].parameters()):
        assert torch.equal(before, now) and not now.requires_grad


def test_exemplars_are_optimised_for_the_model_before_it_is_tuned(monkeypatch):
    states, original = [], MnemonicsBuffer.post_adapt

    def spy(buffer, strategy, exp):
        before = snapshot(strategy.model)
        original(buffer, strategy, exp)
        assert not moved(before, snapshot(strategy.model))
        states.append(before)

    monkeypatch.setattr(MnemonicsBuffer, "post_adapt", spy)
    _, found = noted()
    for before, (_, end, _) in zip(states, found, strict=True):
        assert not moved(before, end)
