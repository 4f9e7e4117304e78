"""Steps of an optimizer on the pixels of exemplars."""

from __future__ import annotations

import pytest
import torch
from mnemonics_cases import INFINITE, golden_exemplars, golden_network
from torch.testing import assert_close

from avalanche_ext import MnemonicsOptimizer
from avalanche_ext.buffers.exemplar_steps import Exemplars, ExemplarSteps

ONE = torch.ones(())


def begun(n=4, box=INFINITE, **options):
    x = torch.linspace(-1, 1, n * 4).view(n, 1, 2, 2)
    return ExemplarSteps(Exemplars(x, torch.arange(n)), box, **{"lr": 0.1, **options})


def step(gradient, loss=ONE, inner=(2.0, 1.0)):
    return loss, gradient, torch.tensor(inner)


@pytest.mark.parametrize("part", ["full.S1", "full.S3", "head.S4"])
@pytest.mark.golden("mnemonics", "bilevel_[mc]*.npz")
def test_a_step_is_the_independent_one_and_stays_in_the_box(golden, part):
    model, e = golden_network(golden), golden_exemplars(golden)
    head, n_inner = part.split(".S")
    if head == "head":
        last = {"W", "b", "W2", "b2" if hasattr(model, "b2") else "sigma"}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in last)
    setting = MnemonicsOptimizer(inner_lr=golden["alpha"], inner_steps=int(n_inner))
    found = setting.gradient(model, e, (golden["X"], golden["yX"]))
    clamped = tuple(golden["clamp"])
    for box, key in ((INFINITE, "E_after"), (clamped, "E_after_clamped")):
        steps = ExemplarSteps(e, box, lr=golden["beta1"])
        assert steps.take(found)
        assert_close(steps.x.data, golden[f"{part}.{key}"], rtol=1e-7, atol=1e-10)
    assert_close(steps.outcome().outer_losses, found[0][None])


@pytest.mark.golden("mnemonics", "mnemonic_head_only_*.npz")
def test_a_step_of_adam_is_that_of_the_authors(golden):
    start, wanted = golden["exemplars_start"], golden["exemplars_after_adam"]
    e = Exemplars(start, torch.zeros(len(start), dtype=torch.long))
    steps = ExemplarSteps(e, INFINITE, optimizer="adam", lr=golden["outer_lr"])
    assert steps.take(step(golden["grad_exemplars"]))
    assert_close(steps.x.data, wanted, rtol=0, atol=1e-4)
    assert (wanted - start).abs().max() > 5e-3


def test_descent_with_momentum_is_the_formula():
    steps, x = begun(weight_decay=0.5), begun().x.detach()
    velocity = torch.zeros_like(x)
    for _ in range(3):
        gradient = torch.randn(x.shape)
        steps.take(step(gradient))
        velocity = 0.9 * velocity + gradient + 0.5 * x
        x = x - 0.1 * velocity
        assert_close(steps.x.data, x)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_pixels_are_in_the_box_after_every_step(optimizer):
    low, high = torch.tensor([-0.5]).view(1, 1, 1, 1), torch.tensor([0.25])
    steps = begun(box=(low, high.view(1, 1, 1, 1)), optimizer=optimizer, lr=0.3)
    for _ in range(5):
        steps.take(step(torch.randn(4, 1, 2, 2)))
        assert steps.x.min() >= -0.5 and steps.x.max() <= 0.25


def test_the_rate_is_halved_behind_every_so_many_steps():
    steps, rates = begun(halve_every=2), []
    for _ in range(5):
        before = steps.x.detach().clone()
        steps._optimizer.state.clear()  # without momentum a step is the rate
        steps.take(step(torch.ones(4, 1, 2, 2)))
        rates.append((before - steps.x.detach()).mean().item())
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025], rel=1e-5)


def test_the_exemplars_given_stay_as_they_are():
    x = torch.rand(3, 1, 2, 2)
    before = x.clone()
    steps = ExemplarSteps(Exemplars(x, torch.arange(3)), INFINITE, lr=0.1)
    whole, _ = steps.sample(3, None)
    steps.take(step(torch.ones_like(x)))
    assert torch.equal(x, before) and torch.equal(whole, before)
    assert not torch.equal(steps.x.data, before)


def test_samples_are_distinct_exemplars_with_their_classes():
    steps = begun(n=6)
    state = torch.get_rng_state()
    x, y = steps.sample(4, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert y.unique().numel() == 4 and torch.equal(x, steps.x.data[y])


@pytest.mark.parametrize(
    "bad",
    [
        step(torch.full((4, 1, 2, 2), torch.nan)),
        step(torch.zeros(4, 1, 2, 2).index_fill(0, torch.tensor([1]), torch.inf)),
        step(torch.ones(4, 1, 2, 2), loss=torch.tensor(torch.nan)),
    ],
)
def test_a_step_that_is_not_finite_is_not_taken_and_said(bad):
    steps = begun()
    steps.take(step(torch.ones(4, 1, 2, 2)))
    before = steps.x.detach().clone()
    with pytest.warns(UserWarning, match="not finite in outer step 2; they stay"):
        assert not steps.take(bad)
    assert torch.equal(steps.x.data, before)


def test_inner_loops_that_raise_the_loss_are_said():
    steps = begun()
    steps.take(step(torch.ones(4, 1, 2, 2), inner=(2.0, 1.5)))
    assert steps.outcome().inner_losses.tolist() == [[2.0, 1.5]]
    steps.take(step(torch.ones(4, 1, 2, 2), inner=(1.0, 3.0)))
    with pytest.warns(UserWarning, match="1 of 2 inner loops .* from 1 to 3.*inner_lr"):
        steps.outcome()
