"""Convolutions with learned scales of frozen kernels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import is_parametrized
from torch.testing import assert_close

from avalanche_ext.models import TransferConv2d, to_transfer_network
from avalanche_ext.models.transfer_conv import transfer_convolutions

KINDS = {
    "plain": {},
    "biasless": {"bias": False},
    "grouped": {"groups": 2},
    "depthwise": {"groups": 4, "stride": 2},
    "dilated": {"dilation": 2, "padding": 2},
    "one_by_one": {"kernel_size": 1, "stride": 2},
    "same": {"padding": "same"},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "reflected": {"padding": (1, 2), "padding_mode": "reflect"},
}
kinds = pytest.mark.parametrize("kind", KINDS)
decays = pytest.mark.parametrize("decay_to_one", [False, True])


def conv(kind="plain", cls=TransferConv2d, **options):
    return cls(4, 8, **{"kernel_size": 3, **KINDS[kind], **options})


def maps(rng, n=2):
    return torch.randn(n, 4, 9, 9, generator=rng)


def transferring(layer, rng, start=1.0):
    """The layer in transfer, with a scale and a shift that are not the initial ones."""
    layer.begin_transfer()
    for p in layer.parameters():
        p.data.add_(torch.randn(p.shape, generator=rng))
    return layer


def effective(layer):
    """Kernel and bias, one number after the other."""
    weight = layer.weight.clone()
    for o in range(weight.shape[0]):
        for i in range(weight.shape[1]):
            if layer.decay_to_one:
                weight[o, i] *= 1 + layer.mtl_deviation[o, i, 0, 0]
            else:
                weight[o, i] *= layer.mtl_weight[o, i, 0, 0]
    return weight, None if layer.bias is None else layer.bias + layer.mtl_bias


@decays
@kinds
def test_transfer_leaves_outputs_and_input_gradients_the_same_bits(
    kind, decay_to_one, rng
):
    layer = conv(kind, cls=nn.Conv2d)
    converted = to_transfer_network(copy.deepcopy(layer), decay_to_one=decay_to_one)
    x = maps(rng).requires_grad_()
    wanted = layer(x)
    (gradient,) = torch.autograd.grad(wanted.sum(), x)
    for _ in range(2):
        assert torch.equal(converted(x), wanted)
        assert torch.equal(torch.autograd.grad(converted(x).sum(), x)[0], gradient)
        converted.begin_transfer()


@decays
@kinds
def test_transfer_convolves_with_scaled_kernels(kind, decay_to_one, rng):
    layer = transferring(conv(kind, decay_to_one=decay_to_one), rng)
    plain = conv(kind, cls=nn.Conv2d)
    weight, bias = effective(layer)
    plain.weight.data.copy_(weight)
    if bias is not None:
        plain.bias.data.copy_(bias)
    x = maps(rng)
    assert_close(layer(x), plain(x))


@decays
def test_gradients_reach_scale_and_shift_only(decay_to_one, rng):
    layer = transferring(conv("grouped", decay_to_one=decay_to_one).double(), rng)
    x = maps(rng).double()
    layer(x).square().sum().backward()
    name = "mtl_deviation" if decay_to_one else "mtl_weight"
    assert [n for n, p in layer.named_parameters()] == [name, "mtl_bias"]
    # by the kernel: what the gradient of the kernel has in its direction
    weight, bias = (t.detach().requires_grad_() for t in effective(layer))
    loss = conv2d(x, weight, bias, groups=2).square().sum()
    for_weight, for_bias = torch.autograd.grad(loss, [weight, bias])
    wanted = (for_weight * layer.weight).sum((2, 3), keepdim=True)
    assert_close(getattr(layer, name).grad, wanted)
    assert_close(layer.mtl_bias.grad, for_bias)


def test_weight_decay_pulls_the_scale_to_zero_or_to_one():
    ends = []
    for decay_to_one in (False, True):
        layer = conv(decay_to_one=decay_to_one)
        layer.begin_transfer()
        scale = next(layer.parameters())
        scale.data.add_(1)
        sgd = torch.optim.SGD(layer.parameters(), lr=0.1, weight_decay=5.0)
        for _ in range(40):
            layer(torch.zeros(1, 4, 3, 3)).sum().backward()
            sgd.step()
            sgd.zero_grad()
        ends.append(effective(layer)[0] / layer.weight)
    assert_close(ends[0], torch.zeros_like(ends[0]))
    assert_close(ends[1], torch.ones_like(ends[1]))


def test_beginning_again_changes_nothing(rng):
    layer = conv()
    old = list(layer.parameters())
    replaced = layer.begin_transfer()
    assert list(replaced) == old and list(replaced.values()) == list(layer.parameters())
    before = {k: v.clone() for k, v in transferring(layer, rng).state_dict().items()}
    assert layer.begin_transfer() == {}
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())


def test_frozen_weights_do_not_share_memory_with_the_old_parameters():
    layer = conv()
    weight = layer.weight
    layer.begin_transfer()
    before = layer.weight.clone()
    weight.data.zero_()
    assert torch.equal(layer.weight, before)
    assert not isinstance(layer.weight, nn.Parameter) and layer.weight is not weight


def test_a_layer_that_was_frozen_stays_frozen():
    layer = conv()
    layer.weight.requires_grad_(False)
    layer.begin_transfer()
    assert not layer.mtl_weight.requires_grad and layer.mtl_bias.requires_grad


@decays
def test_a_state_in_transfer_loads_into_a_new_model(decay_to_one, rng):
    def network():
        net = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 3))
        return to_transfer_network(net, decay_to_one=decay_to_one)

    old, new = network(), network()
    new.load_state_dict(old.state_dict())  # plain into plain
    assert not any(layer.transfers for layer in transfer_convolutions(new))
    for layer in transfer_convolutions(old):
        transferring(layer, rng)
    new.load_state_dict(old.state_dict())
    assert all(layer.transfers for layer in transfer_convolutions(new))
    x = maps(rng)
    assert torch.equal(new(x), old(x))
    assert new.state_dict().keys() == old.state_dict().keys()
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.mtl_"):
        new.load_state_dict(network().state_dict())
    to_transfer_network(other := nn.Conv2d(4, 6, 3), decay_to_one=not decay_to_one)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict(old[0].state_dict())


def test_conversion_keeps_layers_parameters_hooks_and_modes():
    seen = []
    net = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)).eval()
    net.append(net[0])  # used twice
    net[0].register_forward_hook(lambda *_: seen.append(1))
    layers, parameters = list(net), dict(net.named_parameters())
    assert to_transfer_network(net) is net and list(net) == layers
    assert all(p is parameters[n] for n, p in net.named_parameters())
    net(torch.zeros(1, 4, 3, 3))
    assert len(seen) == 2 and not net[0].training
    assert to_transfer_network(net)[0] is layers[0]
    assert transfer_convolutions(net) == [layers[0]]


def test_layers_other_than_two_dimensional_convolutions_are_left_alone():
    others = [nn.Conv1d(1, 1, 1), nn.ConvTranspose2d(1, 1, 1), nn.Linear(1, 1)]
    net = to_transfer_network(nn.Sequential(nn.Conv2d(1, 1, 1), *others))
    kept = [nn.Conv1d, nn.ConvTranspose2d, nn.Linear]
    assert [type(layer) for layer in net] == [TransferConv2d, *kept]


class Standardised(nn.Conv2d):
    def forward(self, x):
        return conv2d(x, self.weight / self.weight.std())


def weight_normed():
    return parametrizations.weight_norm(nn.Conv2d(1, 2, 3))


def pruned():
    return prune.l1_unstructured(nn.Conv2d(1, 2, 3), "weight", 0.5)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: Standardised(1, 2, 3), "1 is a Standardised; wanted a plain Conv2d"),
        (lambda: nn.LazyConv2d(2, 3), "1 is a LazyConv2d; wanted a plain Conv2d"),
        (weight_normed, "the weight of 1, a ParametrizedConv2d, is computed"),
        (pruned, "the weight of 1, a Conv2d, is computed"),
        (lambda: conv(decay_to_one=True), "1 has decay_to_one=True; wanted False"),
    ],
)
def test_what_cannot_be_converted_is_named_and_nothing_changed(layer, message):
    model = nn.Sequential(nn.Conv2d(1, 1, 1), layer())
    with pytest.raises(ValueError, match=message):
        to_transfer_network(model)
    assert type(model[0]) is nn.Conv2d


def test_what_is_computed_after_the_conversion_is_refused_at_the_transfer():
    model = nn.Sequential(conv(), conv())
    parametrizations.weight_norm(model[1])
    assert is_parametrized(model[1]) and isinstance(model[1], TransferConv2d)
    with pytest.raises(ValueError, match="the weight of 1, a ParametrizedTransferConv"):
        transfer_convolutions(model)
    with pytest.raises(ValueError, match="the weight of the convolution"):
        model[1].begin_transfer()


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="model is 3; wanted a Module"):
        to_transfer_network(3)
    with pytest.raises(ValueError, match="Linear has no Conv2d layer"):
        to_transfer_network(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="Conv2d has no TransferConv2d layer"):
        transfer_convolutions(nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match="decay_to_one is 2; wanted one of True"):
        to_transfer_network(nn.Conv2d(1, 1, 1), decay_to_one=2)
    with pytest.raises(ValueError, match="decay_to_one is None; wanted one of True"):
        conv(decay_to_one=None)


@decays
def test_copies_compiled_ones_and_other_memory_formats_agree(decay_to_one, rng):
    layer, x = conv("grouped", decay_to_one=decay_to_one), maps(rng)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x), layer(x))
    transferring(layer, rng)
    wanted = layer(x)
    assert_close(compiled(x), wanted)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), wanted)
    twin.to(memory_format=torch.channels_last)
    out = twin(x.to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert_close(out, wanted)


@decays
def test_bfloat16_autocast_gives_finite_gradients_near_those_of_float32(
    decay_to_one, rng
):
    layer, x = transferring(conv(decay_to_one=decay_to_one), rng), maps(rng)
    layer(x).sum().backward()
    wanted = [p.grad for p in layer.parameters()]
    layer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    for parameter, gradient in zip(layer.parameters(), wanted):
        assert parameter.grad.dtype == torch.float32
        assert_close(parameter.grad, gradient, rtol=0.05, atol=0.5)
