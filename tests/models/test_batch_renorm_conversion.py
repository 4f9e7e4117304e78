"""Batch normalisation converted into Batch Renormalization."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close
from torchvision.models import mobilenet_v3_small

from avalanche_ext.models.batch_renorm import BatchRenorm, BatchRenorm2d
from avalanche_ext.models.batch_renorm_conversion import to_batch_renorm
from avalanche_ext.models.resnet import CifarResNet


def with_statistics(model, rng):
    """The model, its batch normalisations with statistics of their own."""
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(generator=rng)
            m.running_var.uniform_(0.5, 2, generator=rng)
    return model


@pytest.mark.parametrize(
    "build", [lambda: CifarResNet(1, 4), lambda: mobilenet_v3_small(num_classes=2)]
)
def test_evaluation_of_a_nested_model_stays(build, rng):
    model = with_statistics(build(), rng).eval()
    x = torch.randn(2, 3, 32, 32, generator=rng)
    wanted, n = model(x), sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert to_batch_renorm(model) is model
    assert_close(model(x), wanted, rtol=1e-5, atol=1e-5)
    layers = [m for m in model.modules() if isinstance(m, BatchRenorm2d)]
    assert len(layers) == n and not any(m.training for m in layers)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


@given(variance=st.one_of(st.just(0.0), st.floats(0, 1e6)), mean=st.floats(-3, 3))
def test_evaluation_stays_for_any_variance(variance, mean):
    layer = nn.BatchNorm1d(1).eval()
    layer.running_var.fill_(variance)
    layer.running_mean.fill_(mean)
    x = torch.linspace(-3, 3, 9)[:, None]
    assert_close(to_batch_renorm(layer)(x), layer(x), rtol=1e-5, atol=1e-5)


def test_legacy_deviations_leave_the_epsilon_out():
    layer = nn.BatchNorm1d(3)
    layer.running_var.copy_(torch.tensor([1.0, 1e-5, 0.0]))
    legacy = to_batch_renorm(layer, std="legacy")
    assert_close(legacy.running_std, layer.running_var.sqrt())
    x = torch.ones(2, 3)
    off = (legacy.eval()(x) - layer.eval()(x)).abs()[0]
    assert off[0] < 1e-5 and off[1] > 10 and not off[2].isfinite()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_everything_of_a_layer_is_taken_over(dims, rng):
    layer = getattr(nn, f"BatchNorm{dims}d")(3, eps=1e-3).double().eval()
    layer.running_mean.normal_(generator=rng)
    layer.bias.requires_grad_(False)
    found = to_batch_renorm(layer, momentum=0.2)
    assert type(found).__name__ == f"BatchRenorm{dims}d"
    assert found.weight is layer.weight and found.bias is layer.bias
    assert found.running_mean.dtype == found.r_max.dtype == torch.double
    assert_close(found.running_mean, layer.running_mean)
    assert found.running_mean.data_ptr() != layer.running_mean.data_ptr()
    assert (found.eps, float(found.momentum)) == (1e-3, pytest.approx(0.2))
    assert not found.training and not found.bias.requires_grad
    assert to_batch_renorm(layer, eps=1e-4).eps == 1e-4


def test_a_layer_without_weights_stays_without():
    found = to_batch_renorm(nn.Sequential(nn.BatchNorm1d(3, affine=False)))[0]
    assert isinstance(found, BatchRenorm) and not list(found.parameters())
    assert set(found.state_dict()) == dict(found.named_buffers()).keys()


def test_shared_layers_stay_shared():
    norm = nn.BatchNorm1d(3)
    model = to_batch_renorm(nn.ModuleDict({"a": norm, "b": nn.Sequential(norm, norm)}))
    assert model["a"] is model["b"][0] is model["b"][1]
    assert isinstance(model["a"], BatchRenorm)


def test_other_normalisations_and_converted_ones_are_left_alone():
    model = nn.Sequential(nn.GroupNorm(1, 3), nn.LayerNorm(3), nn.InstanceNorm1d(3))
    model.append(BatchRenorm(3))
    layers = list(model)
    assert list(to_batch_renorm(model)) == layers


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.SyncBatchNorm(3), "1 is a SyncBatchNorm; wanted BatchNorm1d, 2d or 3d"),
        (nn.LazyBatchNorm2d(), "1 is a LazyBatchNorm2d; wanted BatchNorm1d"),
        (type("Own", (nn.BatchNorm2d,), {})(3), "1 is a Own; wanted BatchNorm1d"),
        (nn.BatchNorm2d(3, track_running_stats=False), "1 has no running statistics"),
    ],
)
def test_what_cannot_be_converted_is_named_and_nothing_changed(layer, message):
    model = nn.Sequential(nn.BatchNorm2d(3), layer)
    before = list(model)
    with pytest.raises(ValueError, match=message):
        to_batch_renorm(model)
    assert list(model) == before


def test_a_layer_in_half_precision_gets_statistics_in_single_precision():
    layer = nn.BatchNorm1d(3).bfloat16()
    found = to_batch_renorm(layer)
    assert found.weight.dtype == torch.bfloat16
    assert_close(found.running_std, torch.full((3,), (1 + 1e-5) ** 0.5))
    assert found.growth == torch.tensor(4.1e-5)


@pytest.mark.parametrize("model", [nn.BatchNorm1d(2), nn.ReLU()])
def test_unknown_settings_are_refused_also_if_nothing_is_converted(model):
    with pytest.raises(ValueError, match="setting is 'foo'; wanted one of 'momentum'"):
        to_batch_renorm(model, foo=1)
    with pytest.raises(ValueError, match="setting is 'affine'; wanted one of"):
        to_batch_renorm(model, affine=False)
    with pytest.raises(ValueError, match="growth is None; wanted a number"):
        to_batch_renorm(model, growth=None)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="model is 3; wanted a Module"):
        to_batch_renorm(3)
    with pytest.raises(ValueError, match="std is 'code'; wanted one of 'with_eps'"):
        to_batch_renorm(nn.BatchNorm1d(2), std="code")
    with pytest.raises(ValueError, match="momentum is 2; wanted a number from 0 to 1"):
        to_batch_renorm(nn.BatchNorm1d(2), momentum=2)


def test_training_a_converted_model_starts_as_batch_normalisation(rng):
    model = with_statistics(CifarResNet(1, 4), rng)
    converted = to_batch_renorm(copy.deepcopy(model))
    x = torch.randn(4, 3, 16, 16, generator=rng)
    assert_close(converted(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.golden("ar1star", "brn_*.npz")
def test_conversion_agrees_with_the_authors(golden):
    layer = nn.BatchNorm2d(len(golden["gamma"]))
    layer.running_mean.copy_(golden["bn_running_mean"])
    layer.running_var.copy_(golden["bn_running_var"])
    found = to_batch_renorm(layer, std="legacy")
    assert_close(found.running_mean, golden["init_running_mean"])
    assert_close(found.running_std, golden["init_running_std"])
