"""pytorchcv's weights in our MobileNetV1; never pretrained ones, which download."""

from __future__ import annotations

import pytest
import torch
from pytorchcv.models import mobilenet as pytorchcv
from torch import nn
from torch.testing import assert_close

from avalanche_ext.models.batch_renorm_conversion import to_batch_renorm
from avalanche_ext.models.mobilenet import MobileNetV1, mobilenet_v1_cifar
from avalanche_ext.models.mobilenet_weights import load_imagenet_weights

NAMES = {1.0: "w1", 0.75: "w3d4", 0.5: "wd2", 0.25: "wd4"}


def theirs_of(width, pretrained=False):
    """pytorchcv's model with random weights and statistics."""
    assert not pretrained
    model = getattr(pytorchcv, f"mobilenet_{NAMES[width]}")(pretrained=False).eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias)
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            m.num_batches_tracked.fill_(7)
    return model


@pytest.mark.parametrize("width", NAMES)
def test_features_are_those_of_pytorchcv(width, rng):
    theirs, ours = theirs_of(width), MobileNetV1(width=width).eval()
    assert load_imagenet_weights(ours, theirs.state_dict()) is ours
    x = torch.randn(1, 3, 224, 224, generator=rng)
    wanted = theirs.features(x).flatten(1)
    assert_close(ours(x), wanted, rtol=1e-5, atol=1e-5)
    assert wanted.std() > 0.1
    assert ours.conv6.sep.bn.num_batches_tracked == 7


def test_a_saved_state_dict_is_read_by_its_path(tmp_path):
    theirs, ours = theirs_of(0.25), MobileNetV1(width=0.25)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    load_imagenet_weights(ours, tmp_path / "weights.pth")
    theirs_first = theirs.features.init_block.conv.weight
    assert torch.equal(ours.conv1.conv.weight, theirs_first)
    other = load_imagenet_weights(
        MobileNetV1(width=0.25), str(tmp_path / "weights.pth")
    )
    assert torch.equal(other.conv1.conv.weight, theirs_first)


@pytest.mark.parametrize("width", NAMES)
def test_pytorchcv_is_asked_for_the_model_of_the_same_width(width, monkeypatch):
    model = theirs_of(width)
    asked = []
    for name in NAMES.values():
        monkeypatch.setattr(
            pytorchcv,
            f"mobilenet_{name}",
            lambda name=name, **options: asked.append((name, options)) or model,
        )
    ours = load_imagenet_weights(MobileNetV1(width=width), "pytorchcv")
    assert asked == [(NAMES[width], {"pretrained": True})]
    assert torch.equal(ours.conv1.bn.bias, model.features.init_block.bn.bias)


def test_nothing_is_loaded_unless_asked_for(monkeypatch):
    monkeypatch.delattr(pytorchcv, "mobilenet_w1")
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    MobileNetV1()


def test_what_does_not_fit_is_listed_and_nothing_copied():
    ours = MobileNetV1(width=0.25)
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    state = theirs_of(0.25).state_dict()
    state["extra"] = state.pop("features.init_block.bn.bias")
    state["features.init_block.conv.weight"] = torch.zeros(8, 1, 3, 3)
    with pytest.raises(ValueError) as error:
        load_imagenet_weights(ours, state)
    assert str(error.value).startswith(
        "source has 1 missing (features.init_block.bn.bias); 1 unexpected (extra); "
        "1 shapes (features.init_block.conv.weight (8, 1, 3, 3) for (8, 3, 3, 3)); "
        "wanted the state dict of pytorchcv's MobileNet of the same width"
    )
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (MobileNetV1(width=0.5), r"shapes \(features.init_block.conv.weight"),
        (mobilenet_v1_cifar(width=0.25), r"96 unexpected \(features.stage4.unit1"),
        (to_batch_renorm(MobileNetV1(width=0.25)), "missing .*running_std"),
    ],
    ids=["width", "blocks", "converted"],
)
def test_weights_of_another_network_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        load_imagenet_weights(model, theirs_of(0.25).state_dict())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("torchvision", "source is 'torchvision', which has no MobileNetV1"),
        ("nowhere.pth", "source is 'nowhere.pth'; wanted 'pytorchcv', a state dict or"),
        (None, "source is a NoneType; wanted a state dict"),
        ({"state_dict": {}}, "source has a dict under 'state_dict'; wanted tensors"),
        ({1: torch.ones(1)}, r"1 unexpected \(1\)"),
        ("pytorchcv", "model has 102 features; wanted 1024, 768, 512 or 256"),
    ],
)
def test_wrong_sources_are_refused(source, message):
    with pytest.raises(ValueError, match=message):
        load_imagenet_weights(MobileNetV1(width=0.1), source)


@pytest.mark.parametrize(
    "junk", [b"", b"no weights", b"\x80\x02", b"PK\x03\x04", b"c\xff\n", bytes(600)]
)
def test_a_file_of_junk_is_refused(junk, tmp_path):
    path = tmp_path / "junk.pth"
    path.write_bytes(junk)
    with pytest.raises(ValueError, match=r"junk.pth', which torch cannot load \("):
        load_imagenet_weights(MobileNetV1(width=0.1), path)


def test_other_models_are_refused_by_their_class():
    with pytest.raises(ValueError, match="^model is a Linear; wanted a MobileNetV1$"):
        load_imagenet_weights(nn.Linear(2, 2), {})


def test_torchvision_still_has_no_first_mobilenet():
    from torchvision.models import list_models

    found = [name for name in list_models() if "mobilenet" in name]
    assert found and not [name for name in found if "v1" in name]
