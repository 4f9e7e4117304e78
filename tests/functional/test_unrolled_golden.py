from __future__ import annotations

import pytest
import torch
from mnemonics_cases import golden_network
from torch import nn
from torch.nn.functional import (
    normalize,
)
from torch.testing import assert_close
from unrolled_cases import (
    WAYS,
)

from avalanche_ext import FeatureClassifier
from avalanche_ext.functional.unrolled import hypergradient

#: By a tensor that tells the networks apart: the parameters of the last layer.
HEADS = {"K": ["W", "b"], "sigma": ["W2", "sigma"], "W1": ["W2", "b2"]}


def flat_network(golden):
    """Of a golden file, and the names of its last layer."""
    model = golden_network(golden).eval()
    return model, next(head for name, head in HEADS.items() if hasattr(model, name))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.golden("mnemonics", "bilevel_[mc]*.npz")
def test_hypergradient_is_the_independent_one(golden, way):
    model, head = flat_network(golden)
    e, y, data = golden["E"], golden["yE"], [(golden["X"], golden["yX"])]
    rate = golden["alpha"]
    for key in ("full.S1", "full.S3", "full.S5", "head.S1", "head.S4"):
        part, steps = key.split(".S")
        found = hypergradient(
            *(model, e, y, data),
            inner_lr=rate,
            inner_steps=int(steps),
            parameters=head if part == "head" else "trainable",
            **way,
        )
        close = {"rtol": 1e-7, "atol": 1e-10}  # of central differences
        assert_close(found.gradient, golden[f"{key}.hypergrad"], **close)
        assert_close(found.outer_loss.item(), golden[f"{key}.outer_loss"])
        assert_close(found.inner_losses, golden[f"{key}.inner_losses"])
        for name, value in found.parameters.items():
            assert_close(value, golden[f"{key}.theta.{name}"])
    for k in (1, 2):
        found = hypergradient(
            *(model, e, y, data), inner_lr=rate, inner_steps=5, truncate=k, **way
        )
        assert_close(found.gradient, golden[f"truncated.S5.K{k}.hypergrad"], **close)
    a, b = e[:3], e[3:]
    found = hypergradient(
        *(model, a, y[:3], [(b, y[3:])]), inner_lr=rate, inner_steps=3, **way
    )
    assert_close(found.gradient, golden["adjust.gradA"], **close)
    for order, outer in (
        ("simultaneous", a),
        ("sequential", golden["adjust.A_after"]),
    ):
        found = hypergradient(
            *(model, b, y[3:], [(outer, y[:3])]), inner_lr=rate, inner_steps=3, **way
        )
        assert_close(found.gradient, golden[f"adjust.gradB_{order}"], **close)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.golden("mnemonics", "bilevel_linear_closed_form.npz")
def test_hypergradient_is_the_closed_form_of_one_linear_step(golden, way):
    model = nn.Linear(6, 3, bias=False).double()
    model.weight = nn.Parameter(golden["W"])
    found = hypergradient(
        *(model, golden["E"], golden["yE"], [(golden["X"], golden["yX"])]),
        inner_lr=golden["alpha"],
        inner_steps=1,
        **way,
    )
    close = {"rtol": 1e-10, "atol": 1e-12}
    assert_close(found.gradient, golden["hypergrad_closed_form"], **close)
    assert_close(found.parameters["weight"], golden["W_after"], **close)
    assert_close(found.outer_loss.item(), golden["outer_loss"], **close)


class BareCosine(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, features):
        return normalize(features) @ normalize(self.weight).T


def tiny_network(state):
    def block(n_in, n_out, stride):
        convolution = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        return [convolution, nn.BatchNorm2d(n_out)]

    net = nn.Sequential(
        *(*block(3, 4, 1), nn.ReLU(), *block(4, 4, 1), nn.ReLU()),
        *(*block(4, 6, 2), nn.ReLU(), *block(6, 8, 2), nn.AvgPool2d(8), nn.Flatten()),
    )
    names = [n for n in state if not n.startswith("sd.fc")]
    net.load_state_dict(
        dict(zip(net.state_dict(), (torch.as_tensor(state[n]) for n in names)))
    )
    return net


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.golden("mnemonics", "mnemonic_head_only_*.npz")
def test_hypergradient_of_the_head_is_that_of_the_authors_with_create_graph(
    golden, way
):
    sd = {n: v for n, v in golden.items() if n.startswith("sd.")}
    heads = [n for n in sd if n.startswith("sd.fc") and n.endswith("weight")]
    head = BareCosine(torch.cat([sd[n] for n in heads]))
    model = FeatureClassifier(tiny_network(sd), head)
    start, epochs = golden["exemplars_start"], golden["inner_epochs"]
    n_steps, n_classes = start.shape[:2]
    found = hypergradient(
        model,
        start.flatten(0, 1),
        golden["exemplar_labels"].repeat(n_steps),
        [(golden["batch_x"], golden["batch_y"])],
        inner_lr=golden["inner_lr"].flatten().tolist() * epochs,
        inner_steps=n_steps * epochs,
        rows=list(torch.arange(n_steps * n_classes).split(n_classes)) * epochs,
        parameters="head",
        **way,
    )
    close = {"rtol": 1e-4, "atol": 1e-9}
    wanted = golden["grad_exemplars"]
    assert (found.gradient - wanted.flatten(0, 1)).norm() <= 1e-5 * wanted.norm()
    assert_close(found.outer_loss.item(), golden["loss"], rtol=1e-6, atol=0)
    trained = found.parameters["train_classifier.weight"]
    assert_close(trained, golden["classifier_after"], **close)
    exemplars = nn.Parameter(start.clone())
    exemplars.grad = found.gradient.view_as(start)
    adam = torch.optim.Adam([exemplars], golden["outer_lr"], (0.5, 0.999))
    adam.step()
    clear = wanted.abs() > 1e-6  # below, a step is sign-like
    assert clear.float().mean() > 0.9
    close = {"rtol": 0, "atol": 1e-4}
    after = golden["exemplars_after_adam"]
    assert_close(exemplars.data[clear], after[clear], **close)
    assert not golden["released_moves_exemplars"]
