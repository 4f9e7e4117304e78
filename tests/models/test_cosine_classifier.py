"""The cosine classifier that grows."""

from __future__ import annotations

import copy
import io
from types import SimpleNamespace

import pytest
import torch
from torch.func import functional_call
from torch.testing import assert_close

from avalanche_ext.models.cosine_classifier import (
    MASK_VALUE,
    CosineClassifier,
    classes_in,
)


def experience(*classes):
    return SimpleNamespace(classes_in_this_experience=classes)


def trained_on(*experiences, feature_size=4):
    head = CosineClassifier(feature_size)
    for classes in experiences:
        head.train().adaptation(experience(*classes))
    return head


def test_logits_are_the_scaled_scores_of_the_classes_in_order(rng):
    head = trained_on([0, 1], [2, 3, 4])
    head.scale.data.fill_(3.0)
    x = torch.randn(6, 4, generator=rng)
    assert_close(head(x), 3 * head.scores)
    assert head.scores.shape == (6, 5) and head.scores.abs().max() <= 1 + 1e-6


@pytest.mark.parametrize("frozen", [slice(0, 2), slice(1, 2), slice(0, 3)])
def test_frozen_prototypes_change_no_number(frozen, rng):
    head = trained_on([0, 1], [2], [3, 4])
    other = copy.deepcopy(head)
    for prototypes in list(other.prototypes)[frozen]:
        prototypes.requires_grad_(False)
    x, found = torch.randn(6, 4, generator=rng), []
    for each in (head, other):
        features = x.clone().requires_grad_()
        logits = each(features)
        logits.logsumexp(1).sum().backward()
        found.append([logits, features.grad, each.scale.grad])
        found[-1] += [p.grad for p in list(each.prototypes)]
    for a, b, thawed in zip(
        *found, [True] * 3 + [p.requires_grad for p in other.prototypes]
    ):
        assert torch.equal(a, b) if thawed else b is None


def test_frozen_prototypes_cost_a_gradient_nothing(rng):
    operations = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            operations[-1] += 1
            return func(*args, **(kwargs or {}))

    for n_old in (2, 30):
        head = trained_on(*([c] for c in range(n_old)), [n_old])
        head.prototypes[:n_old].requires_grad_(False)
        loss = head(torch.randn(6, 4, generator=rng)).sum()
        operations.append(0)
        with Watch():
            loss.backward()
    assert operations[0] == operations[1] > 0


def test_a_call_with_other_prototypes_sees_them_even_if_they_are_one(rng):
    head, x = trained_on([0], [1]), torch.randn(6, 4, generator=rng)
    row = torch.randn(1, 4, generator=rng)
    logits = functional_call(head, {f"prototypes.{i}": row for i in (0, 1)}, x)
    assert logits.shape == (6, 2) and torch.equal(logits[:, 0], logits[:, 1])


def test_growth_keeps_the_old_rows_as_the_same_parameters():
    head = trained_on([0, 1])
    old, before = head.prototypes[0], head.prototypes[0].detach().clone()
    head.adaptation(experience(2))
    assert head.prototypes[0] is old and torch.equal(old, before)
    assert [p is old for p in head.old_prototypes()] == [True]
    assert (head.n_old, head.n_classes) == (2, 3)


def test_classes_seen_again_do_not_grow_the_head():
    head = trained_on([0, 1], [1, 0])
    assert (head.n_old, head.n_classes, len(head.prototypes)) == (2, 2, 1)


def test_evaluation_never_grows_and_masks_what_is_unknown(rng):
    head = trained_on([0, 1])
    head.eval().adaptation(experience(6, 7))
    out = head(torch.randn(3, 4, generator=rng))
    assert out.shape == (3, 8) and (out[:, 2:] == MASK_VALUE).all()
    assert head.n_classes == 2 and len(list(head.parameters())) == 2
    head.train()
    assert head(torch.randn(3, 4, generator=rng)).shape == (3, 2)


def test_classes_in_any_order_and_with_gaps_get_the_column_of_their_id(rng):
    head = trained_on([7, 3], [0])
    x = torch.randn(5, 4, generator=rng)
    out = head(x)
    assert head.class_order.tolist() == [3, 7, 0]
    assert_close(out[:, [3, 7, 0]], head.scores * head.scale)
    assert (out[:, [1, 2, 4, 5, 6]] == MASK_VALUE).all()
    assert head.positions(torch.tensor([0, 3, 7, 7])).tolist() == [2, 0, 1, 1]
    head.eval()
    assert_close(head(x), out)


def test_the_state_dict_of_any_stage_loads_into_a_new_head(rng):
    head = trained_on([5, 2], [9], *([c] for c in range(10, 20)))
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    other = CosineClassifier(4)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(3, 4, generator=rng)
    assert torch.equal(other(x), head(x))
    assert torch.equal(other.positions(torch.tensor([9])), torch.tensor([2]))


def test_a_head_can_be_copied_between_forward_and_backward(rng):
    head = trained_on([0, 1])
    head(torch.randn(3, 4, generator=rng))
    assert copy.deepcopy(head).scores is None and head.scores is not None


def test_half_precision_features_are_scored_in_single_precision(rng):
    head = trained_on([0, 1])
    x = torch.randn(3, 4, generator=rng)
    with torch.autocast("cpu", torch.bfloat16):
        out = head(x.bfloat16())
    assert out.dtype == torch.float32
    assert_close(out, head(x), rtol=0.01, atol=0.01)


def test_a_head_evaluated_before_any_training_masks_everything(rng):
    head = CosineClassifier(4).eval()
    head.adaptation(experience(0, 2))
    out = head(torch.randn(3, 4, generator=rng))
    assert out.shape == (3, 3) and (out == MASK_VALUE).all()


def test_a_head_without_classes_says_what_is_missing():
    with pytest.raises(ValueError, match="no class yet"):
        CosineClassifier(4)(torch.ones(1, 4))


@pytest.mark.parametrize("sizes", [(0, 1), (-3, 1), (2.5, 1), (None, 1), (4, -1)])
def test_sizes_that_are_not_whole_and_positive_are_refused(sizes):
    with pytest.raises(ValueError, match="wanted a whole number"):
        CosineClassifier(*sizes)


@pytest.mark.parametrize("classes", [[1], [3, 3], [-1], [10**7]])
def test_class_ids_known_twice_negative_or_huge_are_refused(classes):
    head = trained_on([0, 1])
    with pytest.raises(ValueError, match="wanted"):
        head.grow(classes)
    assert head.n_classes == 2


def test_an_experience_without_samples_is_evaluated():
    head = trained_on([0, 1]).eval()
    head.adaptation(experience())
    assert head(torch.ones(1, 4)).shape == (1, 2)


def test_classes_come_from_the_targets_where_the_benchmark_does_not_tell():
    targets = SimpleNamespace(uniques={3, 1})
    without = SimpleNamespace(dataset=SimpleNamespace(targets=targets))
    assert classes_in(without) == [1, 3]
    assert classes_in(experience(torch.tensor(4), 2)) == [2, 4]


@pytest.mark.golden("bdr_cwd", "heads_shared_sigma_*.npz")
def test_heads_with_one_scale_agree_with_the_authors(golden):
    weights = [golden[k] for k in sorted(k for k in golden if k.startswith("weight_"))]
    head = CosineClassifier(weights[0].shape[1])
    for weight in weights:
        n = head.n_classes
        head.adaptation(experience(*range(n, n + len(weight))))
        head.prototypes[-1].data.copy_(weight)
    head.scale.data.copy_(golden["sigma"].squeeze())
    for old in head.old_prototypes():
        old.requires_grad_(False)
    x = golden["x"].requires_grad_()
    scaled = head(x)
    assert_close(scaled, golden["scaled"], rtol=0, atol=1e-6)
    assert_close(head.scores, golden["scores"], rtol=0, atol=1e-6)
    loss = (scaled * golden["grad_out_scaled"]).sum()
    (loss + (head.scores * golden["grad_out_scores"]).sum()).backward()
    assert_close(x.grad, golden["grad_x"], rtol=1e-4, atol=1e-6)
    last = head.prototypes[-1].grad
    assert_close(last, golden["grad_weight_last"], rtol=1e-4, atol=1e-6)
    assert_close(head.scale.grad[None], golden["grad_sigma"], rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in head.old_prototypes())
    assert_close(head.eval()(x), golden["eval_out"], rtol=0, atol=1e-6)
