from __future__ import annotations

import math

import pytest
import torch
from prior_cases import TinyMLP, flat
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from avalanche_ext.functional.functional_prior import (
    FUNCTION,
    MASKED,
    NEW,
    REPLAY,
    memory_weights,
    mixed_losses,
    quadratic_penalty,
    reconstruction_error,
    soft_targets,
    strength_of,
    tempered,
)


def by_the_book(logits, y, role, soft, temperature, smoothing):
    """The loss of one sample, head by head and term by term."""
    own = logits > MASKED
    f, u = logits[own], soft[own]
    true = torch.zeros_like(logits)
    true[y] = 1
    true = true[own]
    target = true if role == NEW else u
    scale = temperature if role == FUNCTION else 1.0
    smoothed = (1 - smoothing) * target + smoothing / len(f)
    loss = -(smoothed * (f / scale).log_softmax(0)).sum()
    return loss + f @ (u - true) if role == REPLAY else loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_mixed_losses_are_those_of_the_three_roles(temperature, smoothing, rng):
    b, k = 12, 5
    logits = 3 * torch.randn(b, k, generator=rng, dtype=torch.double)
    y, roles = torch.zeros(b, dtype=torch.long), torch.arange(b) % 3
    logits[::2, 3:] = MASKED  # heads of different width
    soft = soft_targets(logits + torch.randn(b, k, generator=rng), temperature)
    soft = torch.where(logits > MASKED, soft, 0)
    soft /= soft.sum(1, keepdim=True)
    ours = mixed_losses(
        logits, y, roles, soft, temperature=temperature, label_smoothing=smoothing
    )
    wanted = [
        by_the_book(*each, temperature, smoothing)
        for each in zip(logits, y, roles.tolist(), soft)
    ]
    assert_close(ours, torch.stack(wanted))


def test_replay_has_the_gradient_of_the_true_label_whatever_the_soft_target(rng):
    f = torch.randn(6, 4, generator=rng, dtype=torch.double, requires_grad=True)
    y = torch.randint(4, (6,), generator=rng)
    (wanted,) = torch.autograd.grad(cross_entropy(f, y, reduction="sum"), f)
    for _ in range(3):
        soft = torch.rand(6, 4, generator=rng, dtype=torch.double).softmax(1)
        loss = mixed_losses(f, y, torch.full((6,), REPLAY), soft).sum()
        assert_close(torch.autograd.grad(loss, f)[0], wanted, rtol=0, atol=1e-15)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 30.0])
def test_function_gradient_is_zero_where_the_model_is_the_one_remembered(
    temperature, rng
):
    f = torch.randn(6, 4, generator=rng, dtype=torch.double)
    f[:, 3] = MASKED
    f.requires_grad_()
    soft = soft_targets(f.detach(), temperature)
    y, roles = torch.zeros(6, dtype=torch.long), torch.full((6,), FUNCTION)
    loss = mixed_losses(f, y, roles, soft, temperature=temperature).sum()
    assert torch.autograd.grad(loss, f)[0].abs().max() < 1e-15


@pytest.mark.parametrize("temperature", [1.0, 10.0, 1000.0])
def test_masked_classes_stay_masked_at_any_temperature(temperature):
    soft = soft_targets(torch.tensor([[2.0, 1.0, -1000.0, -1000.0]]), temperature)
    assert (soft[0, 2:] == 0).all() and soft.sum() == pytest.approx(1)
    assert (tempered(torch.tensor([[-1000.0]]), temperature) == -1000).all()


def test_losses_of_masked_heads_are_finite_with_smoothing():
    logits = torch.tensor([[1.0, 2.0, -1000.0]] * 3)
    soft = soft_targets(logits)
    losses = mixed_losses(
        logits, torch.tensor([0, 0, 1]), torch.arange(3), soft, label_smoothing=0.2
    )
    assert losses.isfinite().all() and (losses < 10).all()


def test_smoothing_of_new_data_is_torchs(rng):
    f = torch.randn(5, 3, generator=rng)
    y, roles = torch.tensor([0, 1, 2, 0, 1]), torch.full((5,), NEW)
    ours = mixed_losses(f, y, roles, torch.zeros(5, 3), label_smoothing=0.3)
    wanted = cross_entropy(f, y, reduction="none", label_smoothing=0.3)
    assert_close(ours, wanted)


def test_gradients_of_the_losses_are_right(rng):
    f = torch.randn(6, 3, generator=rng, dtype=torch.double, requires_grad=True)
    y, roles = torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(6) % 3
    soft = torch.rand(6, 3, generator=rng, dtype=torch.double).softmax(1)

    def loss(logits):
        return mixed_losses(
            logits, y, roles, soft, temperature=2.0, label_smoothing=0.1
        )

    assert torch.autograd.gradcheck(loss, f)


def test_penalty_is_affine_in_the_precision_and_zero_at_the_anchor(rng):
    w, a, h = torch.rand(3, 7, generator=rng, dtype=torch.double)
    assert quadratic_penalty(a, a, h) == 0
    assert_close(quadratic_penalty(w, a, 3 * h), 3 * quadratic_penalty(w, a, h))
    w.requires_grad_()
    (grad,) = torch.autograd.grad(quadratic_penalty(w, a, h), w)
    assert_close(grad, h * (w - a))


def test_errors_of_extreme_gradients_have_values():
    zero, one = torch.zeros(3), torch.ones(3)
    error = reconstruction_error(zero, one)
    assert error.absolute == pytest.approx(3**0.5)
    assert math.isnan(error.relative) and math.isnan(error.cosine)
    error = reconstruction_error(one, one)
    assert (error.absolute, error.relative) == (0, 0)
    assert error.cosine == pytest.approx(1)


def test_wrong_schedules_are_refused():
    for strengths in ([], [None, 1.0]):
        with pytest.raises(ValueError, match="wanted a number first"):
            strength_of(strengths, 1)
    with pytest.raises(ValueError, match="1 sizes of data for 2 of memory"):
        memory_weights(1, 1, [1, 2], [5])
    assert memory_weights(1, 1, [0], [5]) == [0.0]


@pytest.mark.golden("ewc_fr_replay", "tau_lambda.json")
def test_schedules_agree_with_the_authors(golden):
    for case in golden["tau"]:
        tau2 = case["tau"] if case["tau2"] is None else case["tau2"]
        data = case["n_task_data"][:-1] if case["scale_tau_by_task_size"] else None
        ours = memory_weights(case["tau"], tau2, case["memory_sizes"], data)
        assert [*ours, 1.0] == pytest.approx(case["taus"], rel=1e-12)
    for case in golden["lambda"]:
        used = case["lambda_used_while_training_task"][1:]
        ours = [strength_of(case["given"], k) for k in range(1, case["n_tasks"])]
        assert ours == used


@pytest.mark.golden("ewc_fr_replay", "batch_loss_*.npz")
def test_loss_and_gradient_of_a_batch_agree_with_the_authors(golden):
    model = TinyMLP(golden)
    ids, targets = golden["class_ids"], golden["true_onehot"].argmax(1)
    logits = model(golden["x"]).gather(1, ids)
    losses = mixed_losses(
        logits,
        targets,
        golden["data_types"],
        golden["targets"],
        temperature=golden["temp"],
        label_smoothing=golden["label_smoothing"],
    )
    loss = (golden["weights"] * losses).mean()
    if golden["use_ewc"]:
        w = flat(dict(model.named_parameters()))
        precision = golden["ewc_H"] + golden["ewc_prior_precision"]
        penalty = quadratic_penalty(w, golden["ewc_mean"], precision)
        wanted = torch.tensor(golden["out_ewc_quadratic"])
        assert_close(penalty.detach(), wanted, rtol=1e-5, atol=1e-6)
        loss = loss + golden["lam"] / golden["n_train"] * penalty
    assert loss.item() == pytest.approx(golden["out_loss_no_const"], rel=1e-5, abs=1e-6)
    loss.backward()
    for name, p in model.named_parameters():
        assert_close(p.grad, golden[f"out_grad.{name}"], rtol=1e-5, atol=1e-6)


@pytest.mark.golden("ewc_fr_replay", "kprior_*.npz")
def test_k_prior_and_replay_of_a_linear_model_agree_with_the_authors(golden, request):
    w = golden["w"].double().requires_grad_()
    x, delta = golden["memory_inputs"].double(), golden["delta"]
    y = golden["memory_true_labels"].long()
    k_prior = "kpriors" in request.node.callspec.id
    soft = golden["memory_soft_labels"].double()
    if k_prior:
        assert_close(
            soft, soft_targets(x @ golden["w_old"].double().T), atol=1e-6, rtol=0
        )
    roles = torch.full_like(y, FUNCTION if k_prior else REPLAY)
    anchor = golden["w_old"].double() if k_prior else torch.zeros_like(w)
    loss = mixed_losses(x @ w.T, y, roles, soft).sum() + quadratic_penalty(
        w.flatten(), anchor.flatten(), torch.full((w.numel(),), delta).double()
    )
    (grad,) = torch.autograd.grad(loss, w)
    assert_close(grad.flatten(), golden["out_grad"].double(), rtol=1e-5, atol=1e-6)
