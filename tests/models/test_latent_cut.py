"""Models that are cut: what is below, what joins, what is left behind."""

from __future__ import annotations

import pytest
import torch
from avalanche.models import DynamicModule
from cases import SIDE, task_model, toy_model
from cut_models import CUTS, PIXELS, network, small
from torch import nn
from torch.testing import assert_close

from avalanche_ext.models import (
    LatentCut,
    valid_cuts,
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
