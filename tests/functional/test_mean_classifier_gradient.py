"""Gradient of a loss through the class means of exemplars' features."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from avalanche_ext.functional.nearest_mean import mean_classifier_gradient

MEAN = torch.tensor([0.5071, 0.4866, 0.4409])[:, None, None]
STD = torch.tensor([0.2009, 0.1984, 0.2023])[:, None, None]


def smooth_extractor():
    """With batch normalisation and dropout, which must be in evaluation mode."""
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.Softplus(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(48, 5),
    ).double()
    net[1].running_mean.normal_()
    return net


def example(rng, n_old=2):
    """Seven exemplars of three classes after ``n_old`` others, and six inputs."""
    e, x = torch.randn(13, 2, 4, 4, generator=rng, dtype=torch.double).split([7, 6])
    positions = n_old + torch.tensor([1, 0, 2, 0, 1, 1, 0])
    y = torch.arange(6) % (n_old + 3)
    old = torch.randn(n_old, 5, generator=rng, dtype=torch.double)
    return (smooth_extractor(), e, positions, x, y), old


def slow_loss(extractor, exemplars, positions, x, y, old_means):
    """Class by class, one graph."""
    extractor = copy.deepcopy(extractor).eval()
    means = [m for m in old_means]
    for k in range(len(old_means), int(positions.max()) + 1):
        own = [extractor(e[None])[0] for e, p in zip(exemplars, positions) if p == k]
        means.append(sum(own) / len(own))
    scores = torch.cosine_similarity(extractor(x)[:, None], torch.stack(means)[None], 2)
    return cross_entropy(scores, y)


@pytest.mark.parametrize("within", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100, None])
@pytest.mark.parametrize("n_old", [0, 2])
def test_gradient_agrees_with_one_graph_written_slowly(rng, chunk, n_old, within):
    arguments, old = example(rng, n_old)
    extractor, e, *rest = arguments
    leaf = e.clone().requires_grad_()
    loss = slow_loss(extractor, leaf, *rest, old)
    (wanted,) = torch.autograd.grad(loss, leaf)
    means = old if n_old else None
    with within():  # as in a hook of an evaluation
        ours = mean_classifier_gradient(*arguments, old_means=means, chunk=chunk)
    assert not ours.loss.requires_grad and not ours.gradient.requires_grad
    assert_close(ours.loss, loss.detach(), rtol=1e-12, atol=1e-12)
    assert_close(ours.gradient, wanted, rtol=1e-10, atol=1e-14)


def test_the_extractor_never_sees_more_than_a_chunk(rng):
    (extractor, *rest), old = example(rng)
    sizes = []
    extractor[0].register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    mean_classifier_gradient(extractor, *rest, old_means=old, chunk=3)
    assert sizes == [3, 3, 1, 3, 3, 3, 3, 1]  # exemplars, inputs, exemplars again


def test_gradient_of_tensors_made_in_inference_mode(rng):
    (extractor, *rest), old = example(rng)
    wanted = mean_classifier_gradient(extractor, *rest, old_means=old)
    with torch.inference_mode():
        e, positions, x, y, means = (t.clone() for t in (*rest, old))
        ours = mean_classifier_gradient(extractor, e, positions, x, y, old_means=means)
    assert torch.equal(ours.gradient, wanted.gradient)


def test_gradient_agrees_with_finite_differences(rng):
    (extractor, e, *rest), old = example(rng)
    _, gradient = mean_classifier_gradient(extractor, e, *rest, old_means=old)
    direction = torch.randn(e.shape, generator=rng, dtype=torch.double)
    ends = [
        mean_classifier_gradient(extractor, e + s * direction, *rest, old_means=old)[0]
        for s in (1e-4, -1e-4)
    ]
    slope = (ends[0] - ends[1]) / 2e-4
    assert_close((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-9)


def test_permuting_exemplars_permutes_the_gradient(rng):
    (extractor, e, positions, *rest), old = example(rng)
    order = torch.randperm(7, generator=rng)
    first, again = (
        mean_classifier_gradient(extractor, e[o], positions[o], *rest, old_means=old)
        for o in (torch.arange(7), order)
    )
    assert_close(again.gradient, first.gradient[order])


def test_a_small_step_along_the_gradient_lowers_the_loss(rng):
    (extractor, e, *rest), old = example(rng)
    losses = []
    for _ in range(5):
        loss, gradient = mean_classifier_gradient(extractor, e, *rest, old_means=old)
        losses.append(loss)
        e = e - gradient
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_gradient_leaves_everything_as_found(rng):
    arguments, old = example(rng)
    extractor, e, _, x, _ = arguments
    extractor[1].eval()
    extractor[5].weight.requires_grad_(False)
    old.requires_grad_()
    before = copy.deepcopy(extractor.state_dict()), e.clone(), x.clone()
    state = torch.get_rng_state()
    mean_classifier_gradient(*arguments, old_means=old)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in extractor.state_dict().items():
        assert torch.equal(value, before[0][name]), name
    assert torch.equal(e, before[1]) and torch.equal(x, before[2])
    assert not e.requires_grad and e.grad is None and old.grad is None
    assert all(p.grad is None for p in extractor.parameters())
    flags = [p.requires_grad for p in extractor.parameters()]
    assert flags == [True] * 4 + [False, True]
    assert [m.training for m in extractor] == [True, False, True, True, True, True]


def test_modes_are_put_back_after_an_error(rng):
    (extractor, e, positions, x, y), _ = example(rng, n_old=0)
    with pytest.raises(RuntimeError):
        mean_classifier_gradient(extractor, e[:, :1], positions, x, y)
    assert all(m.training for m in extractor.modules())


def test_features_of_zeros_give_a_finite_gradient():
    extractor = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    nn.init.zeros_(extractor[1].weight)
    e, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 2])
    loss, gradient = mean_classifier_gradient(extractor, e, y, e, y)
    assert_close(loss, torch.tensor(3.0).log())
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": torch.tensor([1, 3, 3])}, "positions go from 1 to 3; wanted"),
        ({"positions": torch.tensor([2, 4, 4])}, r"2 on are \[1, 0, 2\]; wanted"),
        ({"positions": torch.tensor([2, 3])}, "wanted one int64 for each of 3"),
        ({"y": torch.tensor([0, 4])}, "y go from 0 to 4; wanted them within 0 to 3"),
        ({"y": torch.tensor([-1, 0])}, "y go from -1 to 0"),
        ({"x": torch.zeros(0, 4), "y": torch.zeros(0).long()}, "0 inputs; wanted"),
        ({"exemplars": torch.zeros(3, 4).long()}, "torch.int64 .*; wanted floats"),
        ({"chunk": 0}, "chunk is 0"),
        ({"extractor": nn.Unflatten(1, (2, 2))}, r"\(3, 2, 2\); wanted features"),
        ({"old_means": torch.ones(2, 5)}, r"old_means are \(2, 5\); wanted 4"),
    ],
)
def test_gradient_refuses_what_does_not_fit(change, message):
    given = {
        "extractor": nn.Identity(),
        "exemplars": torch.ones(3, 4),
        "positions": torch.tensor([2, 3, 3]),
        "x": torch.ones(2, 4),
        "y": torch.tensor([0, 3]),
        "old_means": torch.ones(2, 4),
    }
    with pytest.raises(ValueError, match=message):
        mean_classifier_gradient(**{**given, **change})


def golden_extractor(golden):
    """The small network of the golden files up to its features, in training mode."""

    def conv(name, stride=1):
        weight = golden[f"sd.{name}.weight"]
        weight = weight * golden.get(f"sd.{name}.mtl_weight", 1)
        out, into = weight.shape[:2]
        layer = nn.Conv2d(into, out, 3, stride, padding=1, bias=False)
        layer.weight.data = weight
        return layer

    def norm(name):
        layer = nn.BatchNorm2d(len(golden[f"sd.{name}.weight"]))
        keys = layer.state_dict()
        layer.load_state_dict(
            {k: torch.as_tensor(golden[f"sd.{name}.{k}"]) for k in keys}
        )
        return layer

    return nn.Sequential(
        *(conv("conv1"), norm("bn1"), nn.ReLU()),
        *(conv("layer1.0"), norm("layer1.1"), nn.ReLU()),
        *(conv("layer2.0", 2), norm("layer2.1"), nn.ReLU()),
        *(conv("layer3.0", 2), norm("layer3.1")),
        *(nn.AvgPool2d(8), nn.Flatten()),
    )


@pytest.mark.golden("mnemonics", "mnemonic_ncm_*_phase.npz")
@pytest.mark.parametrize("chunk", [2, None])
def test_optimised_exemplars_agree_with_the_authors(golden, chunk):
    extractor = golden_extractor(golden)
    shape = golden["exemplars_start"].shape
    exemplars = golden["exemplars_start"].flatten(0, 1).clone()
    positions = golden["exemplar_labels"].flatten()
    old = golden["old_class_means"].float()
    optimizer = torch.optim.SGD(
        [exemplars], momentum=golden["momentum"], weight_decay=golden["weight_decay"]
    )
    losses, moved = [], []
    n_batches = len(golden["batch_x"])
    for step, lr in enumerate(golden["lrs"].tolist()):
        optimizer.param_groups[0]["lr"] = lr
        x, y = (golden[f"batch_{name}"][step % n_batches] for name in "xy")
        loss, exemplars.grad = mean_classifier_gradient(
            extractor, exemplars, positions, x, y, old_means=old, chunk=chunk
        )
        if step == 0:
            wanted = golden["grad_first"].flatten(0, 1)
            size = float(wanted.abs().max())
            assert_close(exemplars.grad, wanted, rtol=1e-4, atol=1e-6 * size)
        optimizer.step()
        losses.append(loss)
        moved.append(exemplars.clone())
    assert_close(torch.stack(losses).double(), golden["losses"], rtol=1e-6, atol=1e-6)
    for ours, name in ((moved[0], "after_first"), (moved[-1], "end")):
        wanted = golden[f"exemplars_{name}"].flatten(0, 1)
        assert_close(ours, wanted, rtol=0, atol=1e-5)
    # what the authors store: cut off, not rounded
    grey = (moved[-1] * STD + MEAN) * 255
    assert grey.min() >= 0 and grey.max() < 256
    whole = grey.floor().permute(0, 2, 3, 1).view(shape[0], shape[1], 32, 32, 3)
    assert (whole != golden["stored_values"]).double().mean() < 1e-3
