from __future__ import annotations

import pytest
import torch
import torchvision
from avalanche.models import DynamicModule
from cases import SIDE, task_model, toy_model
from torch import nn
from torch.testing import assert_close

from avalanche_ext.models import (
    FeatureClassifier,
    LatentCut,
    MobileNetV1,
    macs_by_module,
    suggest_latent_layer,
    valid_cuts,
)
from avalanche_ext.models.cut_trace import NotRunnableError

PIXELS = (3, 48, 48)

#: Where published networks can be cut, and where they cannot.
CUTS = [
    ("mobilenet_v2", "features.10", "features.10.conv.0"),
    ("resnet18", "layer3.0", "layer3.0.conv1"),
    ("mobilenet_v3_small", "features.8", "features.8.block.0"),
]


def network(name):
    return getattr(torchvision.models, name)(weights=None, num_classes=7)


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


def small():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 4, 1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(4, 5),
    )


@pytest.mark.parametrize("name, layer, _", CUTS)
def test_injected_latents_equal_whole_batch(name, layer, _):
    model = network(name).eval()
    cut, x = LatentCut(model, layer, PIXELS), torch.randn(5, *PIXELS)
    with torch.no_grad():
        wanted, z = model(x), cut.latents(x)
        with cut.inject(z[3:]):
            assert_close(model(x[:3]), wanted)
        with cut.inject(z[3:], from_latents=True):
            assert_close(model(z[:3]), wanted)
    assert cut.latents(x).shape[1:] == cut.latent_shape


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
    with pytest.raises(ValueError, match="does not have; close names are .*features.1"):
        LatentCut(network("mobilenet_v2"), "feature.1", PIXELS)
    with pytest.raises(ValueError, match="wanted one of 0, 1"):
        LatentCut(small(), "", PIXELS)


def test_model_that_cannot_run_is_refused():
    with pytest.raises(NotRunnableError, match=r"inputs of shape \(1, 4, 4\)"):
        LatentCut(small(), "2", (1, 4, 4))


@pytest.mark.parametrize("example", [(), (3, 0), (2.5,), torch.zeros(3)])
def test_example_of_no_input_is_refused(example):
    with pytest.raises(ValueError, match="wanted (sizes of one input|a batch)"):
        LatentCut(small(), "2", example)


def test_below_is_found_by_execution_not_by_declaration():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(4, 2), nn.Linear(4, 4)
            self.token = nn.Parameter(torch.zeros(4))

        def forward(self, x):
            return self.head(self.body(x + self.token).relu_())

    model = Backwards()
    cut = LatentCut(model, "body", (4,))
    assert set(cut.parameters_below) == {"token", "body.weight", "body.bias"}
    assert cut.modules_below == [model.body]


def test_parameters_below_do_not_depend_on_requires_grad():
    model = small()
    model[0].weight.requires_grad_(False)
    cut = LatentCut(model, "2", PIXELS)
    assert list(cut.parameters_below) == ["0.weight", "1.weight", "1.bias"]
    assert not model[0].weight.requires_grad


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


def everything(model):
    return [
        *(p.detach().clone() for p in model.parameters()),
        *(b.clone() for b in model.buffers()),
    ]


def test_model_is_left_as_found():
    model = toy_model(cosine=False)
    model.feature_extractor[1].eval()
    model.feature_extractor[1].weight.requires_grad_(False)
    model.feature_extractor[1].bias.grad = torch.ones(16)
    before, attributes = everything(model), [set(vars(m)) for m in model.modules()]
    modes = [m.training for m in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    state = torch.get_rng_state()
    cut = LatentCut(model, "feature_extractor.3", (1, SIDE, SIDE))
    cut.latents(torch.randn(2, 1, SIDE, SIDE, generator=torch.Generator()))
    valid_cuts(model, (1, SIDE, SIDE))
    assert all(map(torch.equal, everything(model), before))
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [set(vars(m)) for m in model.modules()] == attributes
    assert model.features is None if hasattr(model, "features") else True
    assert torch.equal(torch.get_rng_state(), state)
    assert model.feature_extractor[1].weight.grad is None
    assert model.feature_extractor[1].bias.grad.eq(1).all()
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_gradient_ends_at_the_cut_only_if_detached():
    model, x = small(), torch.randn(4, *PIXELS)
    cut = LatentCut(model, "2", PIXELS)
    z = cut.latents(x)
    for detach in (True, False):
        model.zero_grad()
        with cut.inject(z, detach=detach):
            model(x).sum().backward()
        assert (model[0].weight.grad is None) == detach
        assert model[3].weight.grad is not None


def test_gradient_above_is_that_of_the_whole_batch():
    model, x = small().eval(), torch.randn(5, *PIXELS)
    cut = LatentCut(model, "2", PIXELS)
    model(x).square().sum().backward()
    wanted = [p.grad.clone() for p in model[3:].parameters()]
    model.zero_grad()
    with cut.inject(cut.latents(x[3:])):
        model(x[:3]).square().sum().backward()
    assert_close([p.grad for p in model[3:].parameters()], wanted)


def test_stored_latents_are_not_overwritten_by_layers_above():
    model, x = small(), torch.randn(4, *PIXELS)
    cut = LatentCut(model, "1", PIXELS)  # an in-place ReLU follows
    z = cut.latents(x)
    before, seen = z.clone(), []
    with cut.inject(z, watch=lambda latents: seen.append(latents.clone())):
        model.eval()(x)
    given = z.clone()
    with cut.inject(None, from_latents=True):
        model(given)
    assert torch.equal(z, before) and torch.equal(seen[0], before)
    assert torch.equal(given, before) and bool((before < 0).any())


def test_hook_acts_on_one_pass_only():
    model, x = small().eval(), torch.randn(2, *PIXELS)
    cut = LatentCut(model, "2", PIXELS)
    cut.arm(cut.latents(x))
    assert cut.fired is False
    assert len(model(x)) == 4 and cut.fired
    assert len(model(x)) == 2
    assert not model._forward_hooks and not model[2]._forward_hooks


@pytest.mark.parametrize("where", [0, 4])
def test_error_in_a_pass_ends_the_injection(where):
    model, x = small().eval(), torch.randn(2, *PIXELS)
    cut = LatentCut(model, "2", PIXELS)
    cut.arm(cut.latents(x))

    def fail(*_):
        raise RuntimeError("out of memory")

    handle = model[where].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        model(x)
    handle.remove()
    assert len(model(x)) == 2
    assert not model._forward_hooks and not model[2]._forward_hooks


def test_latents_of_another_shape_are_refused():
    model = small()
    cut = LatentCut(model, "2", PIXELS)
    with (
        cut.inject(torch.zeros(2, 6, 5, 5)),
        pytest.raises(ValueError, match=r"\(6, 24, 24\); wanted \(6, 5, 5\)"),
    ):
        model(torch.randn(2, *PIXELS))


def test_model_that_bears_no_empty_batch_is_given_one_sample():
    class Fussy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.body(x / x.abs().amax(0).max()))

    model = Fussy().eval()
    cut = LatentCut(model, "body", (4,))
    assert (cut.dummies, cut.runs_from_latents) == (1, True)
    z = torch.randn(5, 3)
    with cut.inject(None, from_latents=True):
        assert_close(model(z), model.head(z))


def test_model_with_task_labels_is_cut():
    model = task_model()
    model.train_classifier.grow([(0, 0), (0, 1), (1, 2)])
    cut = LatentCut(model, "feature_extractor.3", (1, SIDE, SIDE))
    model.eval()
    x, t = torch.randn(4, 1, SIDE, SIDE), torch.tensor([0, 0, 1, 0])
    with cut.inject(cut.latents(x[2:], t[2:])):
        assert_close(model(x[:2], t), model(x, t))


def test_model_that_grew_is_known_to_have_changed():
    class Growing(DynamicModule):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.body(x))

    model = Growing()
    cut = LatentCut(model, "body", (4,))
    assert cut.is_current()
    model.head = nn.Linear(3, 5)
    assert not cut.is_current()


def test_checksum_is_of_what_is_below():
    model = small()
    cut = LatentCut(model, "2", PIXELS)
    first, weights = cut.checksum(), cut.checksum(buffers=False)
    with torch.no_grad():
        model[3].weight += 1
    assert cut.checksum() == first
    model[1].running_mean += 1e-6
    assert cut.checksum() != first and cut.checksum(buffers=False) == weights
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1e-6
    assert cut.checksum(buffers=False) != weights
