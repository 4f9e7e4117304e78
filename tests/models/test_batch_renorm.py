"""Layers of Batch Renormalization."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from avalanche_ext.functional.batch_renorm import batch_renorm
from avalanche_ext.models.batch_renorm import (
    BatchRenorm,
    BatchRenorm1d,
    BatchRenorm2d,
    BatchRenorm3d,
    batch_renorms_of,
)

INCREMENTAL = {"momentum": 5e-5, "r_max": 1.25, "d_max": 0.5, "growth": 0}


def batches(n, rng, size=6):
    return [
        2 * torch.randn(size, 3, 4, 4, generator=rng) + torch.arange(3.0)[:, None, None]
        for _ in range(n)
    ]


def state(layer):
    return {name: value.clone() for name, value in layer.state_dict().items()}


def test_training_uses_the_old_statistics_and_then_moves_them(rng):
    layer = BatchRenorm2d(3, momentum=0.1, r_max=1.1, d_max=0.2)
    (x,) = batches(1, rng)
    before = state(layer)
    mean, std = before["running_mean"], before["running_std"]
    wanted, batch_mean, batch_std = batch_renorm(
        x, mean, std, layer.weight, layer.bias, r_max=1.1, d_max=0.2, eps=layer.eps
    )
    assert_close(layer(x), wanted)
    assert_close(layer.running_mean, 0.9 * mean + 0.1 * batch_mean)
    assert_close(layer.running_std, 0.9 * std + 0.1 * batch_std)
    assert layer.num_batches_tracked == 1


def test_statistics_converge_to_mean_and_standard_deviation(rng):
    layer = BatchRenorm2d(3, momentum=0.1)
    for x in batches(100, rng, size=64):
        layer(x)
    assert_close(layer.running_mean, torch.arange(3.0), rtol=0, atol=0.1)
    assert_close(layer.running_std, torch.full((3,), 2.0), rtol=0, atol=0.1)


def test_first_batches_are_those_of_batch_normalisation(rng):
    layer, plain = BatchRenorm2d(3, growth=0), nn.BatchNorm2d(3)
    for x in batches(3, rng):
        assert_close(layer(x), plain(x))


def test_limits_grow_by_the_sample_up_to_their_maxima_and_stay(rng):
    layer = BatchRenorm2d(3, growth=0.01)
    seen = []
    for x in batches(12, rng):
        layer(x)
        seen.append((float(layer.r_max), float(layer.d_max)))
    wanted = [(1 + min(0.06 * t, 0.25), min(0.06 * t, 0.5)) for t in range(1, 13)]
    assert_close(torch.tensor(seen), torch.tensor(wanted))
    assert max(seen) == (1.25, 0.5)


def test_the_published_growth_is_full_after_48_and_96_batches_and_overshoots():
    # the default: +4.1e-5 a sample, batches of 128
    layers = [BatchRenorm1d(1, limits=limits) for limits in ("clamp", "overshoot")]
    full = {}
    for t in range(1, 101):
        for layer in layers:
            layer(torch.zeros(128, 1))
        for name in ("r_max", "d_max"):
            if getattr(layers[0], name) == getattr(layers[0], f"max_{name}"):
                full.setdefault(name, t)
    assert full == {"r_max": 48, "d_max": 96}
    assert_close(layers[1].r_max, torch.tensor(1 + 48 * 128 * 4.1e-5))
    assert_close(layers[1].d_max, torch.tensor(96 * 128 * 4.1e-5))


def test_evaluation_changes_nothing_and_is_the_affine_map(rng):
    layer = BatchRenorm2d(3)
    x, y = batches(2, rng)
    layer(x)
    before = state(layer.eval())
    normal = (y - layer.running_mean[:, None, None]) / layer.running_std[:, None, None]
    assert_close(layer(y), normal)
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())


@pytest.mark.parametrize("warm", [0, 2, 9])
def test_a_layer_loaded_from_a_state_dict_goes_on_bit_by_bit(warm, rng):
    layer = BatchRenorm2d(3, momentum=0.1, growth=0.01)
    data = batches(warm + 3, rng)
    for x in data[:warm]:
        layer(x)
    loaded = BatchRenorm2d(3)
    loaded.load_state_dict(state(layer))
    for x in data[warm:]:
        assert torch.equal(layer(x), loaded(x))
    after = state(loaded)
    assert all(torch.equal(v, after[k]) for k, v in layer.state_dict().items())


def test_a_phase_sets_what_is_given_and_leaves_the_rest(rng):
    layer = BatchRenorm2d(3, max_r_max=1.5)
    before = state(layer)
    layer.set_phase(**INCREMENTAL)
    changed = {k for k, v in state(layer).items() if not torch.equal(v, before[k])}
    assert changed == set(INCREMENTAL)
    for x in batches(3, rng):
        layer(x)
    assert_close((layer.r_max, layer.d_max), (torch.tensor(1.25), torch.tensor(0.5)))
    layer.set_phase(max_r_max=1.1)
    assert layer.r_max == layer.max_r_max


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r_max": 0.5}, "r_max is 0.5; wanted a number, at least 1"),
        ({"d_max": -1}, "d_max is -1; wanted a number, at least 0"),
        ({"momentum": 2}, "momentum is 2; wanted a number from 0 to 1"),
        ({"growth": -1}, "growth is -1; wanted a number, at least 0"),
        ({"r_max": 1.3}, "r_max is 1.3; wanted at most max_r_max, 1.25"),
        ({"d_max": 1, "max_d_max": 0.5}, "d_max is 1; wanted at most max_d_max, 0.5"),
        ({"max_r_max": float("inf")}, "max_r_max is inf; wanted a number"),
    ],
)
def test_a_wrong_phase_is_refused_and_sets_nothing(change, message):
    layer = BatchRenorm1d(3)
    before = state(layer)
    with pytest.raises(ValueError, match=message):
        layer.set_phase(**{"growth": 1.0, **change})
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    with pytest.raises(ValueError, match=message):
        BatchRenorm1d(3, **change)


@pytest.mark.parametrize("name", [*INCREMENTAL, "max_r_max", "max_d_max"])
def test_only_a_phase_may_leave_a_number_out(name):
    with pytest.raises(ValueError, match=f"^{name} is None; wanted a number"):
        BatchRenorm1d(3, **{name: None})
    BatchRenorm1d(3).set_phase(**{name: None})


def test_wrong_arguments_and_inputs_are_refused():
    with pytest.raises(ValueError, match="num_features is 0; wanted a whole number"):
        BatchRenorm2d(0)
    with pytest.raises(ValueError, match="eps is 0; wanted a number, at least 1e-12"):
        BatchRenorm2d(2, eps=0)
    with pytest.raises(ValueError, match="affine is 'no'; wanted one of True, False"):
        BatchRenorm2d(2, affine="no")
    with pytest.raises(ValueError, match="skip_single is 'no'; wanted one of True"):
        BatchRenorm2d(2, skip_single="no")
    with pytest.raises(ValueError, match="limits is 'free'; wanted one of 'clamp'"):
        BatchRenorm2d(2, limits="free")
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 4\); wanted 2 or 3 axes"):
        BatchRenorm1d(3)(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"shape \(2, 4, 1, 1\); wanted \(B, 3, ...\)"):
        BatchRenorm2d(3)(torch.zeros(2, 4, 1, 1))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (BatchRenorm1d, (5, 3)),
        (BatchRenorm1d, (5, 3, 4)),
        (BatchRenorm2d, (5, 3, 2, 4)),
        (BatchRenorm3d, (5, 3, 2, 2, 2)),
        (BatchRenorm, (5, 3, 1, 2, 2, 2)),
    ],
)
def test_every_layer_is_the_flat_one_on_its_values(kind, shape, rng):
    settings = {"momentum": 0.1, "r_max": 1.2, "d_max": 0.3, "growth": 0}
    layer, flat = kind(3, **settings), BatchRenorm1d(3, **settings)
    for _ in range(2):
        x = 3 * torch.randn(shape, generator=rng)
        rows = x.movedim(1, -1)
        wanted = flat(rows.reshape(-1, 3)).view(rows.shape).movedim(-1, 1)
        assert_close(layer(x), wanted)
    assert_close(layer.running_std, flat.running_std)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (0, 3, 2, 2)])
def test_batches_of_one_value_or_none_never_poison_the_layer(shape):
    layer = BatchRenorm2d(3, momentum=0.5)
    assert layer(torch.full(shape, 7.0)).isfinite().all()
    assert all(v.isfinite().all() for v in layer.state_dict().values())
    wanted = 0.5 + 0.5 * 1e-5**0.5 if len(torch.empty(shape)) else 1.0
    assert_close(layer.running_std, torch.full((3,), wanted))


def test_one_value_a_channel_can_be_kept_from_the_statistics():
    layer = BatchRenorm2d(3, momentum=0.5, skip_single=True)
    before = state(layer)
    assert layer(torch.full((1, 3, 1, 1), 7.0)).isfinite().all()
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    layer(torch.zeros(1, 3, 1, 2))
    assert layer.num_batches_tracked == 1


def test_no_pass_waits_for_the_device(rng):
    # a tensor without values cannot be read
    layer = BatchRenorm2d(3).to("meta")
    x = torch.zeros(4, 3, 2, 2, device="meta", requires_grad=True)
    layer(x).sum().backward()
    assert layer.eval()(x).shape == x.shape


def test_layer_compiles_as_one_graph(rng):
    layer = BatchRenorm2d(3, momentum=0.1, growth=0.01)
    twin = copy.deepcopy(layer)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for x in batches(3, rng):
        assert_close(compiled(x), layer(x))
    assert_close(dict(twin.state_dict()), dict(layer.state_dict()))


def test_layers_of_a_model_are_found_once_each():
    shared = BatchRenorm1d(2)
    model = nn.Sequential(shared, nn.Sequential(BatchRenorm2d(3), shared), nn.ReLU())
    assert list(batch_renorms_of(model)) == [shared, model[1][0]]
    assert list(batch_renorms_of(shared)) == [shared]


@pytest.mark.golden("ar1star", "brn_*.npz")
def test_a_sequence_of_batches_agrees_with_the_authors(golden):
    first = {"r_max": 1.0, "d_max": 0.0, "growth": golden["inc_step"]}
    layer = BatchRenorm2d(
        len(golden["gamma"]),
        golden["eps"],
        golden["momentum"],
        max_r_max=golden["max_r_max"],
        max_d_max=golden["max_d_max"],
        limits="overshoot",
        **first,
    )
    layer.load_state_dict(
        {
            **layer.state_dict(),
            "weight": golden["gamma"],
            "bias": golden["beta"],
            "running_mean": golden["init_running_mean"],
            "running_std": golden["init_running_std"],
        }
    )
    for t in range(golden["n_steps"]):
        if t == golden["switch_step"]:
            layer.set_phase(
                momentum=golden["inc_momentum"],
                r_max=golden["max_r_max"],
                d_max=golden["max_d_max"],
                growth=0,
            )
        for name in ("r_max", "d_max"):
            assert abs(getattr(layer, name) - golden[f"{name}_used{t}"]) < 1e-6
        x = golden[f"x{t}"].requires_grad_()
        y = layer.train()(x)
        layer.zero_grad()
        y.backward(golden[f"gy{t}"])
        found = {
            "y": y.detach(),
            "gx": x.grad,
            "ggamma": layer.weight.grad,
            "gbeta": layer.bias.grad,
            "running_mean": layer.running_mean,
            "running_std": layer.running_std,
            "y_eval": layer.eval()(x).detach(),
        }
        wanted = {name: golden[f"{name}{t}"] for name in found}
        assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        for name in ("r_max", "d_max"):
            assert abs(getattr(layer, name) - golden[f"{name}_after{t}"]) < 1e-6
