"""MobileNetV1, its layers and their names."""

from __future__ import annotations

import math

import pytest
import torch
from formula_network import formula_network, our_name, preprocessed
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from avalanche_ext.buffers import LatentBuffer
from avalanche_ext.loaders.resident_loader import image_bytes
from avalanche_ext.models.batch_renorm_conversion import to_batch_renorm
from avalanche_ext.models.mobilenet import MobileNetV1, mobilenet_v1_cifar


def outputs_of_layers(net, x):
    """Output of each named layer, copied before anything can overwrite it."""
    found = {}
    hooks = [
        net.get_submodule(path).register_forward_hook(
            lambda m, i, out, name=name: found.update({name: out.clone()})
        )
        for name, path in net.layer_names.items()
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (127, 65), (224, 224)])
def test_features_have_the_same_size_for_any_image(size):
    with torch.device("meta"):
        assert MobileNetV1()(torch.zeros(2, 3, *size)).shape == (2, 1024)


def test_features_are_the_mean_over_the_whole_image(rng):
    net = MobileNetV1(width=0.1).eval()
    layers = outputs_of_layers(net, torch.randn(2, 3, 160, 96, generator=rng))
    assert_close(layers["pool6"].flatten(1), layers["conv6/sep"].mean((2, 3)))
    assert net.feature_size == layers["pool6"].shape[1] == 102


def test_layer_names_are_in_order_of_execution_and_give_blocks():
    net = MobileNetV1(width=0.1)
    layers = outputs_of_layers(net, torch.zeros(2, 3, 32, 32))
    assert list(layers) == list(net.layer_names)
    assert net.get_submodule(net.layer_names["conv5_4/dw"]) is net.conv5_4.dw
    assert list(dict(net.conv5_4.dw.named_children())) == ["conv", "bn", "relu"]


def test_small_network_has_eleven_blocks_and_keeps_some_resolution():
    net = mobilenet_v1_cifar(in_channels=1)
    layers = outputs_of_layers(net, torch.zeros(2, 1, 32, 32))
    assert list(layers) == list(net.layer_names)
    names = ["conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv4"]
    pairs = [f"{name}/{part}" for name in names for part in ("dw", "sep")]
    assert list(layers) == ["conv1", *pairs, "pool4"]
    assert layers["conv1"].shape == (2, 32, 32, 32)
    assert layers["conv4/sep"].shape == (2, 256, 8, 8)
    assert net.feature_size == 256


def test_activations_neither_vanish_nor_explode_at_the_start(rng):
    # without the help of a normalisation
    net = to_identity(MobileNetV1(width=0.25))
    layers = outputs_of_layers(net, torch.randn(4, 3, 64, 64, generator=rng))
    assert 1e-2 < layers["conv6/sep"].square().mean() < 1e2


def to_identity(net):
    for module in net.modules():
        if isinstance(module, nn.Sequential) and hasattr(module, "bn"):
            module.bn = nn.Identity()
    return net


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width is 0; wanted a number"),
        ({"stem_stride": 0}, "stem_stride is 0; wanted a whole number, at least 1"),
        ({"in_channels": 0}, "in_channels is 0; wanted a whole number"),
        ({"channels": (4, 0), "strides": (1, 2)}, "channels is 0; wanted a whole"),
        ({"channels": 5}, "channels is 5; wanted a Sequence"),
        ({"strides": None}, "strides is None; wanted a Sequence"),
        ({"channels": (4,)}, "1 channels and 13 strides; wanted as many of both"),
        ({"channels": (), "strides": ()}, "0 channels and 0 strides"),
        ({"channels": (4,), "strides": (3,)}, r"strides are \(3,\); wanted each 1 or"),
    ],
)
def test_wrong_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        MobileNetV1(**change)


@pytest.mark.golden("ar1star", "mobilenet_layers.json")
def test_layers_agree_with_the_authors(golden):
    with torch.device("meta"):
        net = MobileNetV1()
        outputs = outputs_of_layers(net, torch.zeros(2, 3, 128, 128))
    assert list(outputs) == [row["caffe_name"] for row in golden["layers"]]
    counts = []
    for row in golden["layers"]:
        layer = net.get_submodule(net.layer_names[row["caffe_name"]])
        out = outputs[row["caffe_name"]]
        counts.append(sum(p.numel() for p in layer.parameters()))
        assert list(out.shape[1:]) == row["out_shape"]
        assert counts[-1] == row["params"]
        if row["params"]:
            conv = layer.conv
            assert conv.kernel_size == (row["kernel"],) * 2
            assert conv.stride == (row["stride"],) * 2
            assert (conv.bias is not None) == row["conv_bias"]
            assert [conv.groups, conv.in_channels, conv.out_channels] == [
                row[key] for key in ("groups", "in_ch", "out_ch")
            ]
            assert layer.bn.eps == row["bn_eps"]
            assert conv.weight.numel() * math.prod(out.shape[2:]) == row["macs"]
    head = golden["output"]["params"]
    assert sum(counts) + head == golden["total_params"]
    for row in golden["freeze_partition"]:
        frozen = sum(counts[: row["latent_layer_num"] + 1])
        assert frozen == row["frozen"]
        assert sum(counts) + head - frozen == row["trainable"]
    model = to_batch_renorm(MobileNetV1())
    ours = [list(p.shape) for p in model.parameters()]
    wanted = golden["named_parameters_L19"][:-1]
    assert [math.prod(s) for s in ours] == [math.prod(s) for _, s in wanted]
    named = {our_name(n, 20).split(".", 1)[1] for n in golden["state_dict_keys_L19"]}
    assert named - {"weight"} <= set(model.state_dict())


KIB_PER_LATENT = {  # in 32, 16 and 8 bits
    "conv4_2/sep": (128, 64, 32),
    "conv5_1/dw": (128, 64, 32),
    "conv5_2/dw": (128, 64, 32),
    "conv5_3/dw": (128, 64, 32),
    "conv5_4/dw": (128, 64, 32),
    "conv5_5/dw": (128, 64, 32),
    "conv5_6/dw": (32, 16, 8),
    "conv6/dw": (64, 32, 16),
    "pool6": (4, 2, 1),
}


def test_a_stored_latent_takes_the_published_bytes_and_an_image_48_kib():
    with torch.device("meta"):
        latents = outputs_of_layers(MobileNetV1(), torch.zeros(1, 3, 128, 128))
    label = torch.zeros(1, dtype=torch.long)
    for layer, wanted in KIB_PER_LATENT.items():
        latent = torch.ones(latents[layer].shape)
        for dtype, kib in zip(("float32", "float16", "uint8"), wanted):
            buffer = LatentBuffer(1, dtype=dtype)
            buffer.insert(latent, label, experience=0)
            # label and number of the experience take 8 bytes each
            assert buffer.nbytes == kib * 1024 + 16, (layer, dtype)
    image = torch.zeros(1, 3, 128, 128, dtype=torch.uint8)
    assert image_bytes(TensorDataset(image)) == 48 * 1024


@pytest.mark.golden("ar1star", "mobilenet_latents.npz")
@pytest.mark.parametrize("kind", ["bn", "brn"])
def test_outputs_of_every_layer_agree_with_the_authors(golden, kind):
    x = preprocessed(golden["images_32"])
    mean, std, total = golden["x_checksum"].tolist()
    assert_close(x.double().mean().item(), mean, rtol=1e-5, atol=0)
    assert_close(x.double().std().item(), std, rtol=1e-5, atol=0)
    assert_close(x.double().abs().sum().item(), total, rtol=1e-5, atol=0)
    model = formula_network(golden["formula_seed"])
    if kind == "brn":
        to_batch_renorm(model, std="legacy")
    model.eval()
    with torch.no_grad():
        layers = outputs_of_layers(model.feature_extractor, x).values()
        logits = model(x)
    stats = [
        torch.stack(
            [o.mean(), o.std(), o.norm(), o.abs().max(), (o > 0).double().mean()]
        )
        for o in map(torch.Tensor.double, layers)
    ]
    first = [o.flatten(1)[:, :8] for o in layers]
    close = {"rtol": 1e-4, "atol": 1e-4}
    assert_close(torch.stack(stats), golden[f"{kind}_stats"], **close)
    assert_close(torch.stack(first), golden[f"{kind}_first8"], **close)
    assert_close(logits, golden[f"{kind}_logits"], **close)
