"""Between the pixels of stored images and the inputs of a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from avalanche.benchmarks.classic.cmnist import PixelsPermutation
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor
from torchvision.transforms import Compose

from avalanche_ext._checks import require_choice
from avalanche_ext.loaders.batch_transforms import (
    RandomCrop,
    flatten,
    torchvision_name,
)
from avalanche_ext.loaders.errors import NotResidentError
from avalanche_ext.loaders.leaves import own_transforms, raw_items
from avalanche_ext.loaders.recognise import recognise
from avalanche_ext.loaders.walk import Part, parts

_CONVERSIONS = (
    "ToTensor",
    "PILToTensor",
    "ToImage",
    "ToPureTensor",
    "ConvertImageDtype",
    "ToDtype",
)
_FLIPS = ("RandomHorizontalFlip", "RandomVerticalFlip")
_FIXED = ("Resize", "CenterCrop", "Pad", "Grayscale")


def normalization_of(
    dataset: Any, group: Literal["train", "eval"] = "eval"
) -> tuple[Tensor, Tensor]:
    r"""Mean and standard deviation that end a dataset's transforms.

    A model's input :math:`x` and the pixel :math:`p`, as it is before the
    normalisation, are each other's

    .. math:: x = (p - \mu) / \sigma, \qquad p = \mu + \sigma x.

    Args:
        dataset: An Avalanche dataset, or any other whose transforms lie where
            torchvision keeps them; at least one sample.
        group: Avalanche's group of transforms to look at.

    Returns:
        :math:`\mu` and :math:`\sigma`, float32, shapes ``(C,)``, or ``(1,)`` if one
        number serves all channels; 0 and 1, shapes ``(1,)``, if nothing normalises.

    Raises:
        ValueError: If samples are normalised differently, a transform follows the
            normalisation, or a leaf dataset of an unknown class has its own transform.

    Example:
        >>> from avalanche.benchmarks.utils import TransformGroups
        >>> from avalanche.benchmarks.utils import make_avalanche_dataset
        >>> from torchvision.transforms import Normalize
        >>> pixels = torch.utils.data.TensorDataset(torch.rand(5, 1, 8, 8))
        >>> groups = TransformGroups({"eval": Normalize([0.5], [0.25])})
        >>> normalization_of(make_avalanche_dataset(pixels, transform_groups=groups))
        (tensor([0.5000]), tensor([0.2500]))
    """
    require_choice(("train", "eval"), group=group)
    seen: dict[tuple[tuple[float, ...], ...], tuple[Tensor, Tensor]] = {}
    for _, chain in _chains(dataset, group):
        mean, std = _ending(chain, group)
        seen[tuple(mean.tolist()), tuple(std.tolist())] = mean, std
    if len(seen) > 1:
        raise ValueError(
            f"samples are normalised by {sorted(seen)} (means, standard deviations); "
            "wanted all by the same"
        )
    [pair] = seen.values()
    return pair


def tensor_transforms_of(dataset: Any) -> Compose | None:
    """The random part of the training transforms, for float tensors in ``[0, 1]``.

    Kept are mirrorings, and random crops that pad an image and cut its size again:
    these do to pixels before the normalisation what they do in training. Left out are
    conversions to tensors, the normalisation, and what is done alike in evaluation
    before anything random (resizing, padding, permutation of pixels...), since images
    read for evaluation, which are to be stored, have been through it.

    Args:
        dataset: See `normalization_of`. One evaluation image is read, if the training
            images are cropped.

    Returns:
        The transforms in their order, or None if there are none.

    Raises:
        ValueError: If samples are augmented differently, a transform is another one,
            or a leaf dataset of an unknown class has its own transform.

    Example:
        >>> from avalanche.benchmarks.utils import TransformGroups
        >>> from avalanche.benchmarks.utils import make_avalanche_dataset
        >>> from torchvision.transforms import Normalize, RandomHorizontalFlip
        >>> pixels = torch.utils.data.TensorDataset(torch.rand(5, 1, 8, 8))
        >>> steps = Compose([RandomHorizontalFlip(), Normalize([0.5], [0.25])])
        >>> groups = TransformGroups({"train": steps})
        >>> data = make_avalanche_dataset(pixels, transform_groups=groups)
        >>> tensor_transforms_of(data)
        Compose(
            RandomHorizontalFlip(p=0.5)
        )
    """
    both = zip(_chains(dataset, "train"), _chains(dataset, "eval"), strict=True)
    seen = {}
    for (part, training), (_, evaluation) in both:
        known = {repr(transform) for transform in evaluation}
        kept: list[Any] = []
        normalized = False
        for transform in training:
            name = torchvision_name(transform)
            if name in _CONVERSIONS or name == "Normalize":
                normalized = normalized or name == "Normalize"
            elif not (_is_fixed(transform) and not kept and repr(transform) in known):
                _require_same_on_pixels(transform, normalized, dataset, part)
                kept.append(transform)
        # the operations, unlike the transforms, compare by value
        seen[recognise(kept, pil=False, dtype=torch.float32)] = kept
    if len(seen) > 1:
        raise ValueError(
            f"samples are augmented by {list(seen.values())}; wanted all by the same, "
            "or buffer_transform= given"
        )
    [kept] = seen.values()
    return Compose(kept) if kept else None


def _in_group(dataset: Any, group: str) -> Any:
    """The dataset with a group of its transforms; others than Avalanche's have one."""
    if not isinstance(dataset, AvalancheDataset):
        return dataset
    return dataset.with_transforms(group)


def _chains(dataset: Any, group: str) -> Iterator[tuple[Part, list[Any]]]:
    """The parts of a dataset with all transforms of their images, the first first.

    Raises:
        ValueError: If there is no sample, or a leaf hides what it does.
    """
    if not len(dataset):
        raise ValueError("the dataset is empty; wanted at least one sample")
    for part in parts(_in_group(dataset, group)):
        hidden = getattr(part.leaf, "transform", None)
        if raw_items(part.leaf) is part.leaf and hidden is not None:
            raise ValueError(
                f"{type(part.leaf).__name__} has a transform of its own, {hidden!r}; "
                "wanted it given to the benchmark as train_transform and eval_transform"
            )
        own, _ = own_transforms(part.leaf)
        yield part, [*flatten(own), *part.transforms]


def _ending(chain: list[Any], group: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the one normalisation, at the end of a chain."""
    names = [torchvision_name(transform) for transform in chain]
    if "Normalize" not in names:
        return torch.zeros(1), torch.ones(1)
    *_, last = chain
    first = chain[names.index("Normalize")]
    if first is not last or names.count("Normalize") > 1:
        after = chain[names.index("Normalize") + 1]
        raise ValueError(
            f"the {group} transform {after!r} follows {first!r}; wanted the "
            "normalisation at the end"
        )
    mean, std = (
        torch.as_tensor(values, dtype=torch.float32).view(-1)
        for values in (last.mean, last.std)
    )
    return mean.expand(max(len(mean), len(std))), std.expand(max(len(mean), len(std)))


def _is_fixed(transform: Any) -> bool:
    """Whether it does the same each time it is applied."""
    name = torchvision_name(transform)
    if name == "RandomRotation":  # by one angle, as in Avalanche's RotatedMNIST
        return bool(transform.degrees[0] == transform.degrees[1])
    return name in _FIXED or type(transform) is PixelsPermutation


def _require_same_on_pixels(
    transform: Any, normalized: bool, dataset: Any, part: Part
) -> None:
    """Refuse what differs, or might differ, on stored pixels from what training does.

    Args:
        transform: A training transform.
        normalized: Whether training applies it after the normalisation.
        dataset: The dataset.
        part: The samples it is applied to.

    Raises:
        ValueError: Unless the transform is a mirroring or a fitting crop.
    """
    reason = "is not known to act on stored pixels as it does in training"
    name = torchvision_name(transform)
    if name in _FLIPS:
        return
    if name == "RandomCrop":
        crop, size = _crop(transform), _image_size(dataset, part)
        if crop is not None and crop.size == size and any(crop.padding):
            if crop.mode != "constant" or (crop.fill == 0 and not normalized):
                return
            reason = "pads with another colour than pixels of 0"
        elif crop is not None:
            reason = f"is no crop of padded images to their own size {size}"
    raise ValueError(
        f"the training transform {transform!r} {reason}; wanted RandomHorizontalFlip, "
        "RandomVerticalFlip or RandomCrop with padding, or buffer_transform= given"
    )


def _crop(transform: Any) -> RandomCrop | None:
    """What a random crop is on batches, if it is something there."""
    try:
        [crop] = recognise([transform], pil=False, dtype=torch.float32)
    except NotResidentError:
        return None
    return crop if isinstance(crop, RandomCrop) else None


def _image_size(dataset: Any, part: Part) -> tuple[int, int]:
    """Height and width of an image of a part, made for evaluation."""
    # without an evaluation group, Avalanche takes the training transforms
    with torch.random.fork_rng(devices=[]):
        image, *_ = _in_group(dataset, "eval")[int(part.positions[0])]
    if not isinstance(image, Tensor) or image.ndim != 3:
        seen = type(image).__name__
        seen += f" {tuple(image.shape)}" if isinstance(image, Tensor) else ""
        raise ValueError(f"an evaluation image is {seen}; wanted a Tensor (C, H, W)")
    height, width = image.shape[1:]
    return height, width
