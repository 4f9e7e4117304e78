"""Pixels in 0 to 1, and the inputs of a network."""

from __future__ import annotations

import pytest
import torch
from mnemonics_cases import CPU, experience
from torch.testing import assert_close
from torchvision.transforms import (
    ColorJitter,
    Compose,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    ToTensor,
)

from avalanche_ext.buffers.pixel_space import (
    PixelSpace,
    require_normalization,
    require_tensor_transform,
    space_of,
)

MEAN, STD = (0.5071, 0.4866, 0.4409), (0.2009, 0.1984, 0.2023)
SHAPES = [(1, 6, 6), (3, 4, 7), (2, 1, 1)]


def space(dtype="float32", mean=MEAN, std=STD):
    return PixelSpace(torch.tensor(mean), torch.tensor(std), dtype)


def grey_levels(*shape):
    return torch.randint(256, shape) / 255


@pytest.mark.golden("mnemonics", "quantise.npz")
def test_bytes_are_those_of_the_specification_and_not_the_truncated_ones(golden):
    ours = space("uint8")
    x = golden["normalised"][None]
    image = golden["image"].permute(2, 0, 1)[None]
    assert torch.equal(ours.pixels(x), image)
    # the authors truncate: the round trip darkens a part of the pixels by one level
    theirs = golden["original_back"].permute(2, 0, 1)[None]
    lowered = (image.int() - theirs.int()).float()
    assert set(lowered.unique().tolist()) == {0, 1}
    assert 0.05 < lowered.mean() < 0.3
    # out of range they wrap around, where ours is clipped
    perturbed = golden["perturbed"][None]
    raw = ours.unnormalized(perturbed).clamp(0, 1)
    wanted = golden["recommended_perturbed_back"].permute(2, 0, 1)[None]
    assert torch.equal(ours.pixels(ours.normalized(raw, CPU)), wanted)
    wrapped = golden["original_perturbed_back"].permute(2, 0, 1)[None].int()
    outside = ~golden["perturbed_in_range"][None]
    assert (wrapped - wanted.int())[outside].abs().max() > 200


@pytest.mark.parametrize("shape", SHAPES)
def test_every_grey_level_survives_the_round_trip_exactly(shape):
    c = shape[0]
    ours = space("uint8", MEAN[:c], STD[:c])
    levels = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *shape)
    x = ours.inputs(levels, CPU)
    assert x.dtype == torch.float32
    assert torch.equal(ours.pixels(x), levels)


@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_are_at_most_half_a_level_off_and_floats_rounding(shape):
    c = shape[0]
    pixels = torch.rand(5, *shape)
    for dtype, bound in (("uint8", 0.5 / 255 + 1e-6), ("float32", 3e-7)):
        ours = space(dtype, MEAN[:c], STD[:c])
        kept = ours.pixels(ours.normalized(pixels, CPU))
        assert kept.dtype == getattr(torch, dtype)
        back = ours.unnormalized(ours.inputs(kept, CPU))
        assert (back - pixels).abs().max() <= bound


def test_the_box_is_where_pixels_are_0_and_1():
    ours = space()
    black, white = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    low, high = ours.box(black)
    assert_close(low.expand_as(black), ours.normalized(black, CPU))
    assert_close(high.expand_as(white), ours.normalized(white, CPU))
    for corner, wanted in ((low, black), (high, white)):
        assert_close(ours.pixels(corner.expand_as(black)), wanted, rtol=0, atol=1e-7)


def test_one_mean_serves_all_channels():
    one, each = space(mean=[0.4], std=[0.3]), space(mean=[0.4] * 3, std=[0.3] * 3)
    x = one.normalized(grey_levels(2, 3, 4, 4), CPU)
    assert torch.equal(one.pixels(x), each.pixels(x))


@pytest.mark.parametrize("low, high", [(-0.01, 1.0), (0.0, 1.01), (0.0, torch.nan)])
def test_pixels_outside_0_to_1_are_refused_with_their_range(low, high):
    pixels = torch.full((1, 3, 2, 2), 0.5)
    pixels[0, 0, 0, 0], pixels[0, 1, 1, 1] = low, high
    with pytest.raises(ValueError, match=r"wanted 0 to 1: give mean and std"):
        space().pixels(space().normalized(pixels, CPU))


def test_rounding_beyond_0_and_1_is_no_error():
    pixels = torch.tensor([-5e-4, 1 + 5e-4]).view(1, 1, 1, 2)
    kept = space(mean=[0.0], std=[1.0]).pixels(pixels)
    assert kept.flatten().tolist() == [0, 1]


@pytest.mark.parametrize("mean, std", [(MEAN[:2], STD), (MEAN, STD[:2])])
def test_another_number_of_channels_is_refused(mean, std):
    with pytest.raises(ValueError, match=r"wanted 1 or 3, one for each channel"):
        space(mean=mean, std=std).pixels(torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize(
    "mean, std, name",
    [
        (0.5, None, "mean"),
        ([], None, "mean"),
        (["grey"], None, "mean"),
        ([torch.nan], None, "mean"),
        (None, [0.0], "std"),
        ([0.5], [-1.0, 1.0], "std"),
        ([0.5], [torch.inf], "std"),
    ],
)
def test_what_is_no_normalisation_is_refused_by_name(mean, std, name):
    with pytest.raises(ValueError, match=f"^{name} is .*; wanted a sequence"):
        require_normalization(mean, std)
    require_normalization(None, None)
    require_normalization(torch.tensor(MEAN), STD)


def needs_pil(image):
    return image.convert("L")


@pytest.mark.parametrize(
    "transform, text",
    [
        (Compose([RandomHorizontalFlip(), ToTensor()]), "ToTensor"),
        (needs_pil, "needs_pil"),
        (lambda image: image.numpy(), "ndarray"),
        (RandomCrop(2), r"makes \(3, 2, 2\)"),
        (lambda image: None, "NoneType"),
    ],
)
def test_transforms_that_need_more_than_a_tensor_are_refused_by_name(transform, text):
    with pytest.raises(ValueError, match=rf"(?s)buffer_transform .*{text}"):
        require_tensor_transform(transform, torch.rand(3, 4, 5), same_shape=True)


def test_the_trial_of_a_transform_leaves_no_trace():
    example = torch.rand(3, 8, 8)
    before, state = example.clone(), torch.get_rng_state()
    transform = Compose([RandomCrop(8, 2), RandomErasing(p=1.0, inplace=True)])
    require_tensor_transform(transform, example, same_shape=True)
    require_tensor_transform(ColorJitter(0.5), example, same_shape=True)
    assert torch.equal(example, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("given", ["none", "mean", "std", "both", "tensors"])
def test_what_is_not_given_is_as_the_data_are_normalised(given):
    data = experience((0,), normalize=([0.4], [0.2])).dataset
    kind = torch.tensor if given == "tensors" else list
    mean = kind([0.3]) if given in ("mean", "both", "tensors") else None
    std = kind([0.5]) if given in ("std", "both", "tensors") else None
    found = space_of(data, mean, std, "uint8")
    assert_close(found.mean, torch.tensor([0.4 if mean is None else 0.3]))
    assert_close(found.std, torch.tensor([0.2 if std is None else 0.5]))
    assert found.dtype == "uint8"
