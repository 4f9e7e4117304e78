"""The exemplar level of one experience."""

from __future__ import annotations

import copy

import pytest
import torch
from mnemonics_cases import (
    INFINITE,
    agent,
    experience,
    golden_exemplars,
    golden_network,
    quick,
    small_model,
)
from torch import nn
from torch.testing import assert_close

from avalanche_ext.buffers.exemplar_level import ExemplarLevel
from avalanche_ext.buffers.exemplar_log import ExemplarLog
from avalanche_ext.buffers.exemplar_steps import Exemplars

UNIT = (torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))


def level(setting=None, host=None, box=UNIT, log=None, seed=3):
    return ExemplarLevel(
        setting or quick(),
        host or agent(small_model()),
        box,
        log or ExemplarLog(False),
        experience=2,
        generator=None if seed is None else torch.Generator().manual_seed(seed),
    )


def exemplars(*labels):
    y = torch.tensor(labels)
    return Exemplars(torch.rand(len(y), 1, 6, 6), y)


@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
@pytest.mark.golden("mnemonics", "bilevel_[mc]*.npz")
def test_adjusted_halves_are_the_independent_ones(golden, order):
    setting = quick(
        optimizer="sgd",
        lr=golden["adjust.beta2"],
        steps=1,
        inner_lr=golden["alpha"],
        inner_steps=golden["adjust.S"],
        adjust_old=order,
    )
    log = ExemplarLog(False)
    ours = level(setting, agent(golden_network(golden)), INFINITE, log)
    ours.halves = lambda y: (torch.arange(3), torch.arange(3, 6))
    found = ours.adjust(golden_exemplars(golden)).x
    close = {"rtol": 1e-7, "atol": 1e-10}
    assert_close(found[:3], golden["adjust.A_after"], **close)
    assert_close(found[3:], golden[f"adjust.B_after_{order}"], **close)
    first = log.entries[0]["outer_losses"]
    assert_close(first.item(), golden["adjust.lossA_before"], **close)


@pytest.mark.parametrize("labels", [(4, 4, 4, 1, 1), (0,) * 7, (2, 5, 2, 5, 5, 5)])
def test_halves_hold_every_class_equally_and_each_exemplar_once(labels):
    y = torch.tensor(labels)
    first, second = level().halves(y)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(len(y)))
    for label in set(labels):
        surplus = (y[first] == label).sum() - (y[second] == label).sum()
        assert surplus == labels.count(label) % 2


def test_halves_are_drawn_anew_and_leave_single_exemplars_out():
    ours, y = level(), torch.tensor([1, 1, 1, 1, 6, 8, 8])
    first = [ours.halves(y)[0].tolist() for _ in range(20)]
    assert len({tuple(rows) for rows in first}) > 1
    assert all(4 not in rows for rows in first)
    assert level(seed=5).halves(y)[0].tolist() == level(seed=5).halves(y)[0].tolist()


def test_classes_of_one_exemplar_are_not_adjusted():
    old = exemplars(1, 1, 4, 2, 2)
    found = level().adjust(old)
    assert torch.equal(found.x[2], old.x[2])
    assert ((found.x != old.x).flatten(1).any(1)).tolist() == [1, 1, 0, 1, 1]
    log = ExemplarLog(False)
    single = exemplars(1, 4, 2)
    assert level(log=log).adjust(single) is single and log.entries == []


def test_a_step_on_one_half_does_not_change_the_other():
    ours, taken = level(), []
    start = ours._start

    def watched(*arguments):
        steps = start(*arguments)
        take = steps.take

        def watching(found):
            before = [each.x.detach().clone() for each, _ in taken]
            good = take(found)
            moved = [
                not torch.equal(each.x, old) for (each, _), old in zip(taken, before)
            ]
            assert moved == [each is steps for each, _ in taken]
            return good

        steps.take = watching
        taken.append((steps, watching))
        return steps

    ours._start = watched
    ours.adjust(exemplars(1, 1, 2, 2))
    assert len(taken) == 2


@pytest.mark.parametrize("objective", ["bilevel", "bilevel_head", "ncm"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_number_and_order_stay_and_pixels_are_in_the_box(objective, optimizer):
    # a rate so large that most pixels reach the box
    setting = quick(objective=objective, optimizer=optimizer, lr=3.0, steps=4)
    new, old = exemplars(4, 4, 1, 1, 1), exemplars(0, 0, 3, 3)
    before = [each.x.clone() for each in (new, old)]
    ours = level(setting)
    found = ours.fit(new, experience((4, 1)).dataset, old), ours.adjust(old)
    for after, given, x in zip(found, (new, old), before):
        assert torch.equal(after.y, given.y)
        assert torch.equal(given.x, x)
        assert not torch.equal(after.x, x)
        assert after.x.min() >= 0 and after.x.max() <= 1
        assert not after.x.requires_grad


@pytest.mark.parametrize("objective", ["bilevel", "bilevel_head", "ncm"])
def test_the_loss_on_the_data_falls(objective):
    log = ExemplarLog(False)
    setting = quick(objective=objective, steps=30, inner_lr=0.5, batch_size=64)
    level(setting, log=log).fit(exemplars(0, 0, 1, 1), experience((0, 1)).dataset, None)
    [entry] = log.entries
    assert entry["outer_losses"][-1] < entry["outer_losses"][0] - 0.01
    assert (entry["experience"], entry["exemplars"]) == (2, "new")
    n_inner = 0 if objective == "ncm" else 30
    assert entry["inner_losses"].shape == (n_inner, 2)


@pytest.mark.parametrize("objective", ["bilevel", "bilevel_head", "ncm"])
def test_the_model_is_left_as_found_and_the_global_generator_too(objective):
    model = small_model()
    model.feature_extractor.append(nn.BatchNorm1d(8)).append(nn.Dropout())
    model(torch.rand(7, 1, 6, 6)).sum().backward()
    model.train_classifier.bias.requires_grad_(False)
    model.train_classifier.eval()
    state = copy.deepcopy(model.state_dict())
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    modes = {n: m.training for n, m in model.named_modules()}
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    new, old, features = exemplars(1, 4), exemplars(0, 0, 3, 3), model.features
    ours, rng = level(quick(objective=objective), agent(model)), torch.get_rng_state()
    ours.fit(new, experience((1, 4)).dataset, old)
    ours.adjust(old)
    assert torch.equal(torch.get_rng_state(), rng)
    assert model.features is features
    assert {n: m.training for n, m in model.named_modules()} == modes
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, gradients[name])


@pytest.mark.parametrize("objective", ["bilevel", "ncm"])
def test_classes_without_exemplars_are_no_obstacle(objective):
    setting = quick(objective=objective, batch_size=2, steps=8)
    found = level(setting).fit(exemplars(4, 4), experience((4, 1)).dataset, None)
    assert found.x.isfinite().all()


@pytest.mark.parametrize("part", ["feature", "classifier"])
def test_a_gradient_that_is_not_finite_leaves_the_exemplars_with_a_warning(part):
    model = small_model()
    layer = (
        model.train_classifier if part == "classifier" else model.feature_extractor[1]
    )
    layer.bias.data.fill_(torch.nan)
    ours, new = level(host=agent(model)), exemplars(1, 1, 4, 4)
    with pytest.warns(UserWarning, match="not finite in outer step 1"):
        found = ours.fit(new, experience((1, 4)).dataset, None)
    assert torch.equal(found.x, new.x)
    with pytest.warns(UserWarning, match="not finite"):
        assert torch.equal(ours.adjust(new).x, new.x)


@pytest.mark.parametrize("objective", ["bilevel", "bilevel_head", "ncm"])
def test_features_of_zeros_do_no_harm(objective):
    model = small_model()
    for parameter in model.feature_extractor.parameters():
        parameter.data.zero_()
    ours = level(quick(objective=objective, optimizer="sgd"), agent(model))
    found = ours.fit(exemplars(1, 4), experience((1, 4)).dataset, None)
    assert found.x.isfinite().all()


def test_an_inner_rate_that_is_too_large_is_said():
    setting = quick(inner_lr=500.0, inner_steps=3)
    with pytest.warns(UserWarning, match="inner loops raised the loss"):
        level(setting).fit(exemplars(1, 4), experience((1, 4)).dataset, None)


def test_outer_samples_are_augmented_on_request_only():
    seen = []

    def noted(image):
        seen.append(1)
        return image

    data = experience((1, 4), augment=[noted]).dataset
    level(quick()).fit(exemplars(1, 4), data, None)
    assert not seen
    level(quick(augment_outer=True)).fit(exemplars(1, 4), data, None)
    assert seen


@pytest.mark.parametrize("progress, shown", [(True, True), (False, False)])
def test_a_bar_is_on_stderr_if_wanted(progress, shown, capfd):
    ours = level(log=ExemplarLog(progress))
    ours.fit(exemplars(1, 4), experience((1, 4)).dataset, None)
    ours.adjust(exemplars(0, 0))
    written = capfd.readouterr()
    assert ("exemplars of experience 2" in written.err) == shown
    assert ("exemplars before experience 2" in written.err) == shown
    assert written.out == ""
