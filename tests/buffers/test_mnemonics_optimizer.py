"""How exemplars become mnemonics: settings, and gradients of the exemplars."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mnemonics_cases import golden_exemplars, golden_network, quick, small_model
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from torch.testing import assert_close

from avalanche_ext import MnemonicsOptimizer
from avalanche_ext.buffers.exemplar_steps import Exemplars
from avalanche_ext.functional.unrolled import hypergradient

OBJECTIVES = ["bilevel", "bilevel_head", "ncm"]


def problem(labels=(3, 1, 3, 5), of_batch=(1, 3, 5, 5, 3)):
    e = Exemplars(torch.randn(len(labels), 1, 6, 6), torch.tensor(labels))
    return e, (torch.randn(len(of_batch), 1, 6, 6), torch.tensor(of_batch))


@pytest.mark.golden("mnemonics", "bilevel_[mc]*.npz")
def test_gradient_is_the_independent_one(golden):
    model, e = golden_network(golden), golden_exemplars(golden)
    for n in (1, 3, 5):
        setting = MnemonicsOptimizer(inner_lr=golden["alpha"], inner_steps=n)
        loss, gradient, inner = setting.gradient(model, e, (golden["X"], golden["yX"]))
        wanted = golden[f"full.S{n}.hypergrad"]
        assert_close(gradient, wanted, rtol=1e-7, atol=1e-10)
        assert_close(loss.item(), golden[f"full.S{n}.outer_loss"])
        assert_close(inner, golden[f"full.S{n}.inner_losses"][[0, -1]])


@pytest.mark.parametrize("steps", [1, 4])
def test_the_head_alone_is_trained_on_request(steps):
    model, (e, batch) = small_model(), problem()
    setting = quick(objective="bilevel_head", inner_steps=steps)
    found = setting.gradient(model, e, batch)
    wanted = hypergradient(
        *(model, *e, [batch]),
        inner_lr=setting.inner_lr,
        inner_steps=steps,
        parameters=["train_classifier.weight", "train_classifier.bias"],
    )
    assert_close(found[1], wanted.gradient, rtol=1e-4, atol=1e-8)
    assert_close(found[0], wanted.outer_loss)


def test_means_of_class_ids_in_any_order_are_those_of_the_formula():
    model, (e, batch) = small_model(), problem(of_batch=(1, 3, 5, 4, 0, 2))
    old = {4: torch.randn(8), 0: torch.randn(8)}
    loss, gradient, inner = quick(objective="ncm").gradient(
        model, e, batch, old_means=old
    )
    x = e.x.clone().requires_grad_()
    features = model.feature_extractor(x)
    means = [
        features[e.y == c].mean(0) if c in (1, 3, 5) else old[c]
        for c in (0, 1, 3, 4, 5)
    ]
    seen = model.feature_extractor(batch[0][[0, 1, 2, 3, 4]])  # class 2 has no mean
    scores = normalize(seen) @ normalize(torch.stack(means)).T
    wanted = cross_entropy(scores, torch.tensor([1, 2, 4, 3, 0]))
    assert_close(loss, wanted.detach())
    assert_close(gradient, torch.autograd.grad(wanted, x)[0])
    assert inner.shape == (0,)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_permuted_exemplars_have_permuted_gradients(objective):
    model, (e, batch) = small_model(), problem()
    order, setting = torch.tensor([2, 0, 3, 1]), quick(objective=objective)
    loss, gradient, _ = setting.gradient(model, e, batch)
    permuted = Exemplars(e.x[order], e.y[order])
    again, of_permuted, _ = setting.gradient(model, permuted, batch)
    assert_close(again, loss)
    assert_close(of_permuted, gradient[order])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_small_steps_lower_the_loss_on_a_fixed_batch(objective):
    model, (e, batch) = small_model(), problem()
    setting, losses = quick(objective=objective, inner_lr=0.3), []
    for _ in range(6):
        loss, gradient, _ = setting.gradient(model, e, batch)
        losses.append(loss.item())
        e = e._replace(x=e.x - 0.5 * gradient)
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


@pytest.mark.parametrize("chunk", [1, 3, None])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_chunks_bound_the_memory_and_nothing_else(objective, chunk):
    model, (e, batch) = small_model(), problem()
    wanted = quick(objective=objective).gradient(model, e, batch)
    found = quick(objective=objective, chunk=chunk).gradient(model, e, batch)
    for ours, theirs in zip(found, wanted):
        assert_close(ours, theirs)


@pytest.mark.parametrize("n", [6, 5, 4])
def test_inner_mini_batches_are_passes_over_all_exemplars(n):
    setting = quick(inner_steps=None, inner_epochs=3, inner_batch_size=4)
    rows = setting._inner_rows(n, torch.Generator().manual_seed(2))
    passes = [
        torch.cat(rows[i : i + len(rows) // 3])
        for i in range(0, len(rows), len(rows) // 3)
    ]
    assert [sorted(p.tolist()) for p in passes] == [list(range(n))] * 3
    assert max(map(len, rows)) <= 4
    if n == 4:
        assert len(rows) == 3
    else:
        assert not torch.equal(passes[0], passes[1])


def test_inner_losses_of_mini_batches_are_means_of_passes():
    model, (e, batch) = small_model(), problem()
    one = quick(inner_steps=None, inner_epochs=1, inner_batch_size=1)
    first, last = one.gradient(model, e, batch)[2]
    with torch.no_grad():
        before = cross_entropy(model(e.x), e.y)
    assert first == last and abs(first - before) < 0.1
    losses = replace(one, inner_epochs=20).gradient(model, e, batch)[2]
    assert losses[1] < losses[0] - 0.1


def test_own_generator_fixes_inner_mini_batches():
    setting = quick(inner_steps=None, inner_epochs=3, inner_batch_size=2)
    model, (e, batch) = small_model(), problem()
    state = torch.get_rng_state()
    first, again = (
        setting.gradient(model, e, batch, generator=torch.Generator().manual_seed(4))
        for _ in range(2)
    )
    assert torch.equal(first[1], again[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_statistics_of_the_batch_are_an_option():
    extractor = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8))
    model = small_model()
    model.feature_extractor = extractor
    e, batch = problem()
    found = {
        kind: quick(batchnorm=kind).gradient(model, e, batch)[1]
        for kind in ("eval", "batch")
    }
    assert not torch.allclose(found["eval"], found["batch"])
    with pytest.raises(ValueError, match="wanted"):
        quick(batchnorm="batch").gradient(model, e, (batch[0][:1], batch[1][:1]))


def test_objectives_refuse_models_without_the_parts_they_need():
    plain, (e, batch) = nn.Sequential(nn.Flatten(), nn.Linear(36, 6)), problem()
    assert quick().gradient(plain, e, batch)[1].abs().max() > 0
    for objective, part in (
        ("bilevel_head", "train_classifier"),
        ("ncm", "feature_extractor"),
    ):
        with pytest.raises(ValueError, match=part):
            quick(objective=objective).gradient(plain, e, batch)


def test_presets_are_the_settings_of_the_specification():
    fast = MnemonicsOptimizer.fast()
    assert fast == MnemonicsOptimizer()
    assert (fast.optimizer, fast.lr, fast.steps, fast.inner_steps) == (
        *("adam", 0.01, 200, 10),
    )
    paper = MnemonicsOptimizer.paper()
    wanted = MnemonicsOptimizer(
        objective="bilevel",
        optimizer="sgd",
        lr=0.01,
        steps=None,
        epochs=50,
        decay_epochs=10,
        batch_size=128,
        inner_lr=0.01,
        inner_steps=None,
        inner_epochs=50,
        inner_batch_size=128,
        weight_decay=0.0,
    )
    assert paper == wanted
    assert paper.n_steps(5000) == 50 * 40 and paper.n_steps(1) == 50
    released = MnemonicsOptimizer.released()
    assert released.objective == "ncm" and released.adjust_old is None
    assert (released.optimizer, released.lr, released.weight_decay) == (
        *("sgd", 1e-5, 5e-4),
    )
    assert released.n_steps(256) == 2 and released.n_steps(257) == 3
    assert MnemonicsOptimizer.paper(lr=1.0) == replace(paper, lr=1.0)
    assert fast.n_steps(7) == 200


@pytest.mark.parametrize(
    "arguments",
    [
        {"objective": "trilevel"},
        {"optimizer": "lbfgs"},
        {"mode": "forward"},
        {"parameters": "head"},
        {"batchnorm": "train"},
        {"adjust_old": "random"},
        {"augment_outer": 2},
        {"lr": 0.0},
        {"inner_lr": -0.1},
        {"weight_decay": -1e-4},
        {"steps": 0},
        {"steps": None},
        {"steps": 5, "epochs": 5},
        {"steps": None, "epochs": 0},
        {"inner_steps": 5, "inner_epochs": 5},
        {"inner_steps": None},
        {"batch_size": 0},
        {"inner_batch_size": 0.5},
        {"decay_epochs": 0},
        {"truncate": 0},
        {"chunk": 0},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="wanted"):
        MnemonicsOptimizer(**arguments)
    with pytest.raises(ValueError, match="wanted"):
        MnemonicsOptimizer.fast(**arguments)


def test_truncation_beyond_the_inner_loop():
    with pytest.raises(
        ValueError, match="truncate is 3; wanted at most 2, inner_steps"
    ):
        quick(truncate=3)
    passes = {"inner_steps": None, "inner_epochs": 2}
    x, y = torch.rand(4, 1, 6, 6), torch.tensor([0, 0, 1, 1])
    model, same = small_model(), Exemplars(x, y)
    found, wanted = (
        quick(truncate=n, **passes).gradient(model, same, (x, y)) for n in (9, None)
    )
    for ours, theirs in zip(found, wanted):
        assert torch.equal(ours, theirs)
