"""Which lists of per-image transforms have an exact counterpart on batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from avalanche.benchmarks.classic.cmnist import PixelsPermutation
from torchvision.transforms import ConvertImageDtype

from avalanche_ext.loaders import batch_transforms as bt
from avalanche_ext.loaders.errors import NotResidentError

# what is drawn once, while the image is still a PIL image
_PREFIX = ("Resize", "CenterCrop", "Pad", "Grayscale")
# PIL's result differs from that on tensors in the last bit
_PIL_ONLY = ("Resize", "Grayscale")


def split_prefix(
    transforms: Sequence[Any], *, stored: bool
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Split off the deterministic transforms of PIL images that lead a list.

    They are applied once, when an image is read, the others by the batch.

    Args:
        transforms: Single transforms in the order of application.
        stored: The raw images lie in memory as one tensor: then the prefix is empty
            unless it needs PIL, so that the tensor itself is used.

    Returns:
        The prefix and the remaining transforms.
    """
    names = [bt.torchvision_name(transform) for transform in transforms]
    length = next((i for i, n in enumerate(names) if n not in _PREFIX), len(names))
    if stored and not any(name in _PIL_ONLY for name in names[:length]):
        length = 0
    return tuple(transforms[:length]), tuple(transforms[length:])


def _plain_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _crop_padding(transform: Any) -> tuple[int, ...]:
    """Return the padding in the order left, top, right, bottom."""
    padding = transform.padding
    if not padding:
        return ()
    if isinstance(padding, int):
        return (padding,) * 4
    if ".v2." in type(transform).__module__:
        left, right, top, bottom = padding
        return left, top, right, bottom
    return tuple(padding)


def _random_crop(transform: Any) -> bt.BatchTransform | None:
    if transform.pad_if_needed or not _plain_number(transform.fill):
        return None
    height, width = transform.size
    return bt.RandomCrop(
        (height, width),
        _crop_padding(transform),
        transform.fill,
        transform.padding_mode,
    )


def _pad(transform: Any) -> bt.BatchTransform | None:
    return bt.Apply(transform) if _plain_number(transform.fill) else None


def _normalize(transform: Any) -> bt.BatchTransform | None:
    def values(v: Any) -> tuple[float, ...]:
        return tuple(torch.as_tensor(v, dtype=torch.float64).view(-1).tolist())

    return bt.Normalize(values(transform.mean), values(transform.std))


def _rotation(transform: Any) -> bt.BatchTransform | None:
    low, high = transform.degrees
    return bt.Rotate(transform) if low == high else None


def _to_dtype(transform: Any) -> bt.BatchTransform | None:
    return bt.Apply(transform) if isinstance(transform.dtype, torch.dtype) else None


def _divides_by_255(transform: Any, dtype: torch.dtype) -> bool:
    """Whether bytes become floats by a division, as by ``ToTensor``; v2 multiplies."""
    return (
        type(transform) is ConvertImageDtype
        and dtype == torch.uint8
        and transform.dtype == torch.float32
    )


_FOR_ALL: dict[str, Callable[[Any], bt.BatchTransform | None]] = {
    "RandomCrop": _random_crop,
    "RandomHorizontalFlip": lambda transform: bt.RandomFlip(transform.p, -1),
    "RandomVerticalFlip": lambda transform: bt.RandomFlip(transform.p, -2),
    "CenterCrop": bt.Apply,
    "Pad": _pad,
}
_FOR_TENSORS: dict[str, Callable[[Any], bt.BatchTransform | None]] = {
    **_FOR_ALL,
    "Resize": bt.Apply,
    "Grayscale": bt.Apply,
    "RandomRotation": _rotation,
    "ConvertImageDtype": _to_dtype,
    "ToDtype": _to_dtype,
}
# from PIL to tensor: what remains to be done to the pixels 0 to 255
_TO_TENSOR: dict[str, tuple[bt.BatchTransform, ...]] = {
    "ToTensor": (bt.ToFloat(),),
    "PILToTensor": (),
    "ToImage": (),
}


def recognise(
    transforms: Sequence[Any], *, pil: bool, dtype: torch.dtype
) -> tuple[bt.BatchTransform, ...]:
    """Translate transforms of single images to operations on batches.

    Args:
        transforms: Single transforms in the order of application.
        pil: The raw images stand for PIL images; otherwise they are tensors.
        dtype: Data type of the raw images.

    Returns:
        Operations on batches with the same results, equal by value if they do the
        same.

    Raises:
        NotResidentError: If a transform is not known, or does not fit its input.

    Example:
        >>> from torchvision.transforms import ToTensor
        >>> recognise([ToTensor()], pil=True, dtype=torch.uint8)
        (ToFloat(),)
    """
    operations: list[bt.BatchTransform] = []
    for transform in transforms:
        name = bt.torchvision_name(transform)
        operation: bt.BatchTransform | None = None
        if pil and name in _TO_TENSOR:
            pil = False
            operations += _TO_TENSOR[name]
            dtype = torch.float32 if _TO_TENSOR[name] else dtype
            continue
        if name == "Normalize" and not pil and dtype.is_floating_point:
            operation = _normalize(transform)
        elif not pil and type(transform) is PixelsPermutation:
            operation = bt.PermutePixels(transform)
        elif not pil and _divides_by_255(transform, dtype):
            operation = bt.ToFloat()
        elif name in (known := _FOR_ALL if pil else _FOR_TENSORS):
            operation = known[name](transform)
        if operation is None:
            raise NotResidentError(
                f"the transform {transform!r} has no counterpart on batches of "
                f"{'PIL images' if pil else f'{dtype} tensors'}"
            )
        operations.append(operation)
        dtype = transform.dtype if name in ("ConvertImageDtype", "ToDtype") else dtype
    if pil:
        raise NotResidentError("the images are not made tensors by their transforms")
    return tuple(operations)
