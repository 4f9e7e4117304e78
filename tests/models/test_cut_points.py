"""Where models can be cut."""

from __future__ import annotations

import pytest
import torch
from cut_models import CUTS, PIXELS, network, small
from torch import nn

from avalanche_ext.models import (
    FeatureClassifier,
    LatentCut,
    MobileNetV1,
    macs_by_module,
    suggest_latent_layer,
    valid_cuts,
)
from avalanche_ext.models.cut_trace import NotRunnableError


class Oddities(nn.Module):
    """Every reason for which a model cannot be cut somewhere."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)  # declared first, run last
        self.twice = nn.ReLU()
        self.shared = nn.Linear(4, 4)
        self.body = nn.Linear(4, 4)
        self.pair = Pair()
        self.turned = Turned()
        self.aside = nn.Identity()
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        z = self.body(self.twice(self.shared(x)))
        self.aside(z.new_zeros(3, 1))
        z = self.twice(z)
        a, _ = self.pair(z)
        return self.head(self.shared(self.turned(a).T))


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Turned(nn.Module):
    def forward(self, x):
        return x.T


@pytest.mark.parametrize("name, layer, inside", CUTS)
def test_inside_of_a_residual_block_is_refused_with_valid_points(name, layer, inside):
    with pytest.raises(ValueError, match=f"a way around it; wanted.*{layer}"):
        LatentCut(network(name), inside, PIXELS)


@pytest.mark.parametrize(
    "layer, reason",
    [
        ("twice", "runs 2 times"),
        ("unused", "runs 0 times"),
        ("pair", "output is no tensor"),
        ("turned", r"\(4, 3\) does not have the samples on its first axis"),
        ("head", "nothing to train above"),
        ("aside", "nothing to train above"),
        ("body", "shared.weight is used both below and above"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(layer, reason):
    with pytest.raises(ValueError, match=reason):
        LatentCut(Oddities(), layer, (4,))


@pytest.mark.parametrize("way", ["view", "dropout"])
def test_hidden_ties_across_the_cut_are_refused(way):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            n = len(x)
            z = self.body(self.drop(x) if way == "dropout" else x)
            z = self.drop(z) if way == "dropout" else z.view(n, 4)
            return self.head(z)

    reason = "drop is used both" if way == "dropout" else "cannot join the batch"
    with pytest.raises(ValueError, match=reason):
        LatentCut(Tied(), "body", (4,))


def test_unknown_layer_is_refused_with_close_names():
    wanted = "does not have; close names are .*features.1"
    model = network("mobilenet_v2")
    with pytest.raises(ValueError, match=wanted) as refused:
        LatentCut(model, "feature.1", PIXELS)
    cuts = str(refused.value).partition("; the model can be cut at ")[2].split(", ")
    assert 1 < len(cuts) <= 12
    assert LatentCut(model, cuts[-1], PIXELS).share_above > 0
    with pytest.raises(ValueError, match="wanted one of 0, 1"):
        LatentCut(small(), "", PIXELS)


def test_unknown_layer_is_answered_with_valid_cuts_where_the_model_runs():
    model = small()
    with pytest.raises(ValueError, match="of 0, .*; the model can be cut at 0, 1, 2, "):
        LatentCut(model, "b", PIXELS)
    with pytest.raises(ValueError, match="wanted one of [^;]*$"):
        LatentCut(model, "b", (1, 4, 4))


def test_model_that_cannot_run_is_refused():
    with pytest.raises(NotRunnableError, match=r"inputs of shape \(1, 4, 4\)"):
        LatentCut(small(), "2", (1, 4, 4))


@pytest.mark.parametrize("example", [(), (3, 0), (2.5,), torch.zeros(3)])
def test_example_of_no_input_is_refused(example):
    with pytest.raises(ValueError, match="wanted a (shape such|batch)"):
        LatentCut(small(), "2", example)


def test_share_above_is_that_of_the_multiply_accumulates():
    below, above = 3 * 6 * 9 * 24 * 24, 6 * 4 * 24 * 24 + 4 * 5
    cut = LatentCut(small(), "2", PIXELS)
    assert cut.share_above == pytest.approx(above / (below + above))
    macs = macs_by_module(small(), PIXELS)
    assert macs == {"0": below, "3": above - 20, "8": 20}


def test_macs_of_grouped_and_transposed_convolutions():
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2, bias=False),
        nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2, bias=False),
    )
    # each value of the larger side once for each weight that meets it
    assert macs_by_module(model, (4, 5, 5)) == {"0": 72 * 18, "1": 72 * 3 * 4}


@pytest.mark.parametrize("fused", [False, True])
def test_macs_of_attention_count_for_the_module_they_are_in(fused):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Linear(5, 4), nn.Linear(4, 2)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            z = self.embed(x)
            z, _ = self.attention(z, z, z, need_weights=not fused)
            return self.head(z.mean(1))

    model = Attention().requires_grad_(False)  # torch would take a short cut
    macs = macs_by_module(model, (3, 5))
    # projections in and out, then queries with keys and weights with values
    assert macs.pop("attention") == 3 * 4 * 12 + 3 * 4 * 4 + 2 * 3 * 3 * 4
    assert macs == {"embed": 3 * 5 * 4, "head": 4 * 2}


@pytest.mark.golden("ar1star", "mobilenet_layers.json")
def test_macs_agree_with_the_authors_table(golden):
    model = FeatureClassifier(MobileNetV1(), nn.Linear(1024, 50, bias=False))
    rows = [row for row in golden["layers"] if row["macs"]]
    wanted = [row["macs"] for row in rows]
    *ours, head = macs_by_module(model, (3, 128, 128)).values()
    assert ours == wanted and head == 1024 * 50
    names = model.feature_extractor.layer_names
    cut = LatentCut(model, f"feature_extractor.{names['conv5_4/dw']}", (3, 128, 128))
    assert cut.share_above == pytest.approx(0.320, abs=5e-4)
    sizes = [p.numel() for p in cut.parameters_below.values()]
    assert sum(sizes) == 1_081_152


def test_suggested_layer_is_nearest_in_share():
    model = network("mobilenet_v2")
    for share in (0.1, 0.3, 0.8):
        layer = suggest_latent_layer(model, PIXELS, share)
        assert LatentCut(model, layer, PIXELS).share_above == pytest.approx(
            share, abs=0.05
        )
    assert suggest_latent_layer(small(), PIXELS, 0.12) == "2"  # behind norm and ReLU


def test_valid_cuts_are_those_that_can_be_constructed():
    model = Oddities()
    assert valid_cuts(model, (4,)) == []
    model = small()
    every = [n for n, _ in model.named_modules() if n]
    valid = []
    for name in every:
        try:
            LatentCut(model, name, PIXELS)
            valid.append(name)
        except ValueError:
            pass
    assert valid_cuts(model, PIXELS) == valid == every[:-1]


def test_nowhere_to_cut_is_an_error():
    with pytest.raises(ValueError, match="cut nowhere"):
        suggest_latent_layer(Oddities(), (4,))


@pytest.mark.parametrize(
    "model, example, message",
    [
        (3, (4,), "model is 3; wanted a Module"),
        (nn.Linear(4, 2), 16, r"input_shape is 16; wanted a shape such as \(3, 32, 32"),
    ],
)
@pytest.mark.parametrize("find", [valid_cuts, suggest_latent_layer])
def test_what_is_no_model_or_shape_is_refused(find, model, example, message):
    with pytest.raises(ValueError, match=message):
        find(model, example)


@pytest.mark.parametrize("inner", [False, True])
def test_compiled_model_is_refused(inner):
    model = small()
    if inner:
        model[0].compile(backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    for find in valid_cuts, lambda m, x: LatentCut(m, "2", x):
        with pytest.raises(ValueError, match="compiled; wanted it before torch.comp"):
            find(model, PIXELS)
