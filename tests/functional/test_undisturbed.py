from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import (
    scaled_dot_product_attention,
)
from torch.testing import assert_close
from unrolled_cases import (
    RATE,
    WAYS,
    problem,
    smooth_network,
)

from avalanche_ext import FeatureClassifier
from avalanche_ext.functional.unrolled import hypergradient


def everything(model):
    """What must not change."""
    tensors = {**model.state_dict(), **dict(model.named_buffers())}
    return (
        {n: v.clone() for n, v in tensors.items()},
        {
            n: None if p.grad is None else p.grad.clone()
            for n, p in model.named_parameters()
        },
        [(n, id(p), p.requires_grad) for n, p in model.named_parameters()],
        [
            (m.training, sorted(vars(m)), id(vars(m).get("scores")))
            for m in model.modules()
        ],
        id(model.features),
        [m.track_running_stats for m in model.modules() if hasattr(m, "momentum")],
        torch.get_rng_state(),
    )


class Noisy(nn.Module):
    def forward(self, x):
        return x + 0 * torch.rand(())


class Failing(nn.Module):
    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("failed on purpose")
        return x


@pytest.mark.parametrize("fails_after", [None, 0, 3])
@pytest.mark.parametrize(
    "options", [*WAYS, {"parameters": "head"}, {"batchnorm": "batch", "chunk": None}]
)
def test_model_and_random_state_are_left_as_found(options, fails_after):
    model, (e, y, data) = smooth_network("2d"), problem()
    model.feature_extractor.append(Noisy())
    model(e)
    if fails_after is not None:
        model.feature_extractor.append(Failing(fails_after))
    model.train_classifier.eval()  # each module its own mode
    for i, p in enumerate(model.parameters()):
        p.grad = torch.full_like(p, i) if i % 2 else None
        p.requires_grad_(i % 3 > 0)
    inputs = [t.clone() for t in (e, y, *(t for pair in data for t in pair))]
    before = everything(model)

    def call():
        hypergradient(model, e, y, data, inner_lr=RATE, inner_steps=3, **options)

    if fails_after is None:
        call()
    else:
        with pytest.raises(RuntimeError, match="on purpose"):
            call()
    after = everything(model)
    for was, now in zip(before, after):
        assert_close(now, was, rtol=0, atol=0) if isinstance(
            was, torch.Tensor
        ) else None
        if isinstance(was, dict):
            assert was.keys() == now.keys()
            for name, value in was.items():
                same = value is None and now[name] is None
                assert same or torch.equal(value, now[name])
        elif isinstance(was, list | int):
            assert was == now
    for was, now in zip(inputs, (e, y, *(t for pair in data for t in pair))):
        assert torch.equal(was, now)
    assert not e.requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("options", [*WAYS, {"parameters": "head"}])
def test_gradients_need_not_be_on(options, context):
    model, (e, y, data) = smooth_network("2d"), problem()
    common = {"inner_lr": RATE, "inner_steps": 2, **options}
    wanted = hypergradient(model, e, y, data, **common)
    with context():
        data = [(x.clone(), t.clone()) for x, t in data]
        found = hypergradient(model, e.clone(), y.clone(), data, **common)
        assert torch.is_inference_mode_enabled() == (context is torch.inference_mode)
        assert not torch.is_grad_enabled()
    assert torch.equal(found.gradient, wanted.gradient)
    assert torch.equal(found.inner_losses, wanted.inner_losses)


def test_frozen_parameters_take_part_only_if_asked_for():
    model, (e, y, data) = smooth_network("2d"), problem()
    common = {"inner_lr": RATE, "inner_steps": 2}
    wanted = hypergradient(model, e, y, data, **common)
    first = model.feature_extractor[0].requires_grad_(False)
    found = hypergradient(model, e, y, data, parameters="all", **common)
    assert torch.equal(found.gradient, wanted.gradient)
    found = hypergradient(model, e, y, data, **common)
    assert found.parameters.keys() == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    assert not any(p.requires_grad for p in first.parameters())
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="parameters is 'trainable'.*'all'"):
        hypergradient(model, e, y, data, **common)


def test_dropout_rests_and_autocast_is_off():
    model, (e, y, data) = smooth_network("2d"), problem()
    model, e = model.float(), e.float()
    data = [(x.float(), t) for x, t in data]
    common = {"inner_lr": RATE, "inner_steps": 2}
    wanted = hypergradient(model, e, y, data, **common)
    model.feature_extractor.append(nn.Dropout(0.5))
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        found = hypergradient(model, e, y, data, **common)
    assert torch.equal(found.gradient, wanted.gradient)


def test_wrappers_are_left_aside():
    model, (e, y, data) = smooth_network("2d"), problem()
    common = {"inner_lr": RATE, "inner_steps": 2}
    wanted = hypergradient(model, e, y, data, **common)
    wrapped = nn.DataParallel(model)
    found = hypergradient(wrapped, e, y, data, **common)
    assert torch.equal(found.gradient, wanted.gradient)
    assert found.parameters.keys() == wanted.parameters.keys()


def test_compiled_models_run_uncompiled():
    plain, (e, y, data) = smooth_network("2d"), problem()
    common = {"inner_lr": RATE, "inner_steps": 2}
    wanted = hypergradient(plain, e, y, data, **common)

    def refuse(graph, inputs):
        raise AssertionError("compiled")

    part = copy.deepcopy(plain)
    part.feature_extractor = torch.compile(part.feature_extractor, backend=refuse)
    in_place = copy.deepcopy(plain)
    in_place.compile(backend=refuse)
    for model in (torch.compile(plain, backend=refuse), in_place, part):
        found = hypergradient(model, e, y, data, **common)
        assert torch.equal(found.gradient, wanted.gradient)


class Attending(nn.Module):
    """Attention over the rows of an input (2, 4, 4)."""

    def __init__(self, attend):
        super().__init__()
        self.attend = attend
        self.query, self.value = nn.Linear(4, 4), nn.Linear(4, 4)
        self.last = nn.Linear(32, 3)

    def forward(self, x):
        return self.last(self.attend(self.query(x)[:, None], self.value(x)[:, None]))


def by_formula(q, v):
    q, v = q.flatten(2, 3), v.flatten(2, 3)
    return ((q @ q.mT / 2).softmax(-1) @ v).flatten(1)


def by_torch(q, v):
    q, v = q.flatten(2, 3), v.flatten(2, 3)
    return scaled_dot_product_attention(q, q, v).flatten(1)


def by_kernel(q, v):
    q, v = q.flatten(2, 3), v.flatten(2, 3)
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return attend(q, q, v)[0].flatten(1)


class OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


def test_attention_takes_the_form_with_a_second_derivative():
    model, (e, y, data) = Attending(by_formula).double(), problem()
    common = {"inner_lr": RATE, "inner_steps": 2}
    wanted = hypergradient(model, e, y, data, **common)
    model.attend = by_torch
    found = hypergradient(model, e, y, data, **common)
    assert_close(found.gradient, wanted.gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("mode", ["reverse", "unrolled", "checkpoint"])
@pytest.mark.parametrize(
    ("attend", "named"),
    [
        (by_kernel, "_scaled_dot_product_flash_attention_for_cpu_backward"),
        (
            lambda q, v: OnceDifferentiable.apply(by_formula(q, v)),
            "once_differentiable",
        ),
    ],
)
def test_a_missing_second_derivative_is_explained(attend, named, mode):
    model, (e, y, data) = Attending(attend).double(), problem()
    with pytest.raises(RuntimeError, match=f"{named} .*parameters='head'") as raised:
        hypergradient(model, e, y, data, inner_lr=RATE, inner_steps=2, mode=mode)
    assert isinstance(raised.value.__cause__, RuntimeError)
    # which needs none through the extractor
    model = FeatureClassifier(nn.Sequential(model), nn.Linear(3, 3)).double()
    hypergradient(
        *(model, e, y, data),
        inner_lr=RATE,
        inner_steps=2,
        mode=mode,
        parameters="head",
    )
