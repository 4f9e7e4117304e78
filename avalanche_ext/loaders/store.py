"""Raw images held as one tensor, once for each leaf dataset and device.

All experiences and exemplar buffers cut from one dataset share its tensor and differ
only in the rows they use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.transforms.functional import pil_to_tensor

from avalanche_ext.loaders.errors import NotResidentError
from avalanche_ext.loaders.leaves import Stored, readable, stored
from avalanche_ext.loaders.walk import Indices

CPU_BUDGET = 2 * 2**30
"""Bytes that one leaf dataset may be copied into, on every device but CUDA."""
_PIL_MODES = ("L", "RGB", "RGBA")
_CHUNK = 1024

_kept: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


class Held:
    """Raw items as tensors.

    Attributes:
        images: Shape ``(M, ...)``, on the device asked for.
        rows: Which rows of ``images`` were asked for, shape ``(n,)``.
        fields: What the items hold after the image, shapes ``(n, ...)``, on the CPU.
        pil: The images stand for PIL images.
    """

    def __init__(
        self, images: Tensor, rows: Indices, fields: Sequence[Tensor], pil: bool
    ) -> None:
        """Store the tensors."""
        self.images, self.rows, self.fields, self.pil = images, rows, fields, pil


def hold(
    leaf: Any,
    indices: Indices,
    prefix: tuple[Any, ...],
    *,
    device: torch.device,
    trusted: bool,
) -> Held:
    """Hold items of a leaf dataset on a device.

    Args:
        leaf: The dataset.
        indices: Which of its items, shape ``(n,)``.
        prefix: Deterministic transforms of its PIL images, applied before they are
            held.
        device: Where to hold the images.
        trusted: The user vouches that items of unknown classes never change.

    Returns:
        The images, not copied where they already lie on the device in a fit form.

    Raises:
        NotResidentError: If the items might change, are no images or tensors of one
            shape, or need more memory than there is.
    """
    known = stored(leaf)
    if known is None or prefix:
        return _read_items(leaf, indices, prefix, device, trusted)
    images, rows = _placed(leaf, known, indices, device)
    return Held(images, rows, known.fields(leaf, indices.tolist()), known.pil)


def _budget(device: torch.device) -> int:
    """Bytes that may be filled now: half of what is free on a CUDA device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    return CPU_BUDGET


def _entries(leaf: Any) -> dict[Any, Any]:
    """What is kept for a leaf as long as it lives; nothing if it cannot be hashed."""
    try:
        return _kept.setdefault(leaf, {})
    except TypeError:
        return {}


def _placed(
    leaf: Any, known: Stored, indices: Indices, device: torch.device
) -> tuple[Tensor, Indices]:
    """Bring images that lie in memory to the device, all of them if they fit."""
    raw = known.images(leaf)
    if raw.requires_grad:
        raise NotResidentError(f"{type(leaf).__name__} holds tensors with gradients")
    if raw.device == device and raw.is_contiguous():
        return raw, indices
    here = raw.device == device and raw.nbytes <= _budget(device)
    if here and known.put_back is not None:
        images = raw.contiguous()
        known.put_back(leaf, images)
        return images, indices
    entries = _entries(leaf)
    version = 0 if raw.is_inference() else raw._version
    kept_raw, kept_version, images = entries.get(device, (None, 0, None))
    # a changed or exchanged array is copied again
    if images is not None and kept_version == version and _same(kept_raw, raw):
        return images, indices
    entries.pop(device, None)
    budget = _budget(device)
    if raw.nbytes <= budget:
        images = raw.to(device).contiguous()
        # holding on to the array keeps its address from being used by another one
        entries[device] = (raw, version, images)
        return images, indices
    wanted = raw.nbytes // max(1, len(raw)) * len(indices)
    if wanted > budget:
        raise NotResidentError(_too_large(leaf, wanted, budget))
    return raw[torch.from_numpy(indices)].contiguous().to(device), np.arange(
        len(indices)
    )


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape


def _too_large(leaf: Any, wanted: int, budget: int) -> str:
    return (
        f"the images of {type(leaf).__name__} take {wanted / 2**20:.0f} MiB, "
        f"{budget / 2**20:.0f} MiB may be used"
    )


def _read_items(
    leaf: Any,
    indices: Indices,
    prefix: tuple[Any, ...],
    device: torch.device,
    trusted: bool,
) -> Held:
    """Read each item once, and keep it for the next experience or buffer."""
    raw = readable(leaf, trusted=trusted)
    key = (device, *map(id, prefix))
    entries = _entries(leaf)
    reader: _Reader | None = entries.get(key)
    if reader is None:
        reader = _Reader(raw, int(indices[0]), prefix)
        budget = _budget(device)
        if reader.bytes_for(len(leaf)) <= budget:
            entries[key] = reader
            reader.allocate(len(leaf), device)
        elif reader.bytes_for(len(indices)) <= budget:
            reader.allocate(len(indices), device)
            return reader.held(raw, indices, np.arange(len(indices)))
        else:
            wanted = reader.bytes_for(len(indices))
            raise NotResidentError(_too_large(leaf, wanted, budget))
    return reader.held(raw, indices, indices)


class _Reader:
    """Items of one leaf, read when they are first asked for.

    It does not refer to the leaf, so that both vanish together.
    """

    def __init__(self, raw: Any, index: int, prefix: tuple[Any, ...]) -> None:
        """Read one item, to know the shapes and types of all."""
        self.prefix = prefix
        self.name = type(raw).__name__
        item = raw[index]
        self.first = self._tensors(item)
        self.pil = isinstance(item[0], Image)
        self.columns: list[Tensor] = []
        self.known = np.zeros(0, dtype=bool)

    def bytes_for(self, items: int) -> int:
        """Bytes that the images of so many items take."""
        return self.first[0].nbytes * items

    def allocate(self, items: int, device: torch.device) -> None:
        """Make room for so many items; the system hands memory out as it is filled."""
        devices = [device] + [torch.device("cpu")] * (len(self.first) - 1)
        self.columns = [
            torch.empty((items, *value.shape), dtype=value.dtype, device=where)
            for value, where in zip(self.first, devices, strict=True)
        ]
        self.known = np.zeros(items, dtype=bool)

    def held(self, raw: Any, indices: Indices, rows: Indices) -> Held:
        """Read what is missing among ``raw[indices]`` into ``rows``."""
        rows_missing, place = np.unique(rows[~self.known[rows]], return_index=True)
        missing = indices[~self.known[rows]][place]
        for start in range(0, len(missing), _CHUNK):
            self._read(
                raw,
                missing[start : start + _CHUNK],
                rows_missing[start : start + _CHUNK],
            )
        fields = [column[torch.from_numpy(rows)] for column in self.columns[1:]]
        return Held(self.columns[0], rows, fields, self.pil)

    def _read(self, raw: Any, indices: Indices, rows: Indices) -> None:
        items = [self._checked(raw[index]) for index in indices.tolist()]
        where = torch.from_numpy(rows)
        for column, values in zip(self.columns, zip(*items, strict=True), strict=True):
            column[where.to(column.device)] = torch.stack(values).to(column.device)
        self.known[rows] = True

    def _tensors(self, item: Any) -> list[Tensor]:
        """Turn the values of an item into tensors."""
        if not isinstance(item, (tuple, list)):
            raise NotResidentError(f"items of {self.name} are no tuples")
        image, *others = item
        if isinstance(image, Image):
            for transform in self.prefix:
                image = transform(image)
            if image.mode not in _PIL_MODES:
                raise NotResidentError(f"{self.name} has an image of mode {image.mode}")
            image = pil_to_tensor(image)
        numbers = all(isinstance(value, (int, float, Tensor)) for value in others)
        if not (isinstance(image, Tensor) and numbers):
            raise NotResidentError(f"items of {self.name} are not images and numbers")
        values = [image, *(default_collate([value])[0] for value in others)]
        if any(value.requires_grad for value in values):
            raise NotResidentError(f"{self.name} holds tensors with gradients")
        return values

    def _checked(self, item: Any) -> list[Tensor]:
        """Turn an item into tensors, all of the shapes and types of the first one."""
        values = self._tensors(item)
        seen, wanted = (
            [(tuple(value.shape), value.dtype) for value in each]
            for each in (values, self.first)
        )
        if seen != wanted:
            raise NotResidentError(
                f"items of {self.name} differ in shape or type: {seen}, {wanted}"
            )
        return values
