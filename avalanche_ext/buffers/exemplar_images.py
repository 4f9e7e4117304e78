"""Images of exemplars, kept as tensors of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute, TransformGroups
from avalanche.benchmarks.utils.classification_dataset import (
    _TensorClassificationDataset,
)
from avalanche.benchmarks.utils.utils import concat_datasets
from torch import Tensor
from torchvision.transforms import Compose, ConvertImageDtype, Normalize

from avalanche_ext.buffers.exemplar_selection import Chosen
from avalanche_ext.buffers.exemplar_steps import Exemplars
from avalanche_ext.buffers.pixel_space import (
    PixelSpace,
    StorageDtype,
    Transform,
    augmentation_of,
    require_tensor_transform,
    space_of,
)


class ExemplarImages:
    """Exemplars by class, each class in the order of its selection.

    Args:
        dtype: ``"float32"`` or ``"uint8"``.

    Attributes:
        space: How inputs and pixels belong together; None before the first exemplar.
        augment: Of float images in 0 to 1, in training.
        pixels: By class id, in order of arrival, ``(k, C, H, W)``, on the CPU.
        rows: By class id, where each was in the stream, (experience, position), -1
            where it is not known, ``(k, 2)``.
        task_labels: By class id, ``(k,)``; empty on streams without.
    """

    def __init__(self, dtype: StorageDtype) -> None:
        self.dtype: StorageDtype = dtype
        self.space: PixelSpace | None = None
        self.augment: Transform | None = None
        self.pixels: dict[int, Tensor] = {}
        self.rows: dict[int, Tensor] = {}
        self.task_labels: dict[int, Tensor] = {}

    def prepare(
        self,
        dataset: Any,
        x: Tensor,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        transform: Transform | Literal["auto"] | None,
    ) -> None:
        """Find how inputs and pixels of a data set belong together.

        Args:
            dataset: The data of an experience.
            x: Inputs of the network from it.
            mean: As the user gave it.
            std: Likewise.
            transform: Of training, likewise.

        Raises:
            ValueError: If inputs are no images, earlier data were normalised
                differently, or the transform does not fit the images.
        """
        if x.ndim < 4:
            raise ValueError(
                f"inputs have shape {tuple(x.shape[1:])}; wanted images (C, H, W)"
            )
        space = space_of(dataset, mean, std, self.dtype)
        if self.space is None:
            self.augment = augmentation_of(dataset, transform)
        known = space if self.space is None else self.space
        seen, wanted = (space.mean, space.std), (known.mean, known.std)
        if not all(map(torch.equal, seen, wanted)):
            raise ValueError(
                f"this experience is normalised by {seen}, earlier ones by {wanted}; "
                "wanted the same: give mean and std"
            )
        if self.augment is not None:
            example = known.unnormalized(x[:1])[0].cpu()
            require_tensor_transform(self.augment, example, same_shape=True)
        self.space = known

    def put(self, label: int, choice: Chosen, experience: int) -> None:
        """Store what was selected of a class, as it is.

        Args:
            label: Class id.
            choice: The exemplars.
            experience: Number of the experience of the new ones.

        Raises:
            ValueError: If inputs are not pixels in 0 to 1 once unnormalised.
        """
        rows = torch.stack(
            [torch.full_like(choice.position, experience), choice.position], dim=1
        )
        again = choice.stored >= 0
        task_labels = choice.task_labels.clone()
        if bool(again.any()):
            rows[again] = self.rows[label][choice.stored[again]]
            if label in self.task_labels:
                task_labels[again] = self.task_labels[label][choice.stored[again]]
        self.pixels[label] = self._known_space().pixels(choice.x)
        self.rows[label] = rows
        if bool((task_labels >= 0).any()):
            self.task_labels[label] = task_labels

    def replace(self, exemplars: Exemplars) -> None:
        """Store optimised images in place of those that were there.

        Args:
            exemplars: All of each class among them, in the order stored.
        """
        order = exemplars.y.argsort(stable=True)
        x, y = exemplars.x[order], exemplars.y[order]
        found, counts = torch.unique_consecutive(y, return_counts=True)
        labels, sizes = found.tolist(), counts.tolist()
        before = self.inputs(labels, x.device)
        moved = torch.ones(len(x), dtype=torch.bool)
        if before is not None and torch.equal(before.y, y):
            moved = (before.x != x).flatten(1).any(1).cpu()
        pixels = torch.split(self._known_space().pixels(x), sizes)
        steps = torch.split(moved, sizes)
        for label, own, made in zip(labels, pixels, steps, strict=True):
            # rounding would move images that no step was made on
            if bool(made.any()):
                self.pixels[label] = own

    def shrink(self, quota: Callable[[int], int]) -> None:
        """Keep the beginning of each class.

        Args:
            quota: How many of a class.
        """
        for label in self.pixels:
            n = max(0, quota(label))
            for kept in (self.pixels, self.rows, self.task_labels):
                if len(kept.get(label, ())) > n:
                    kept[label] = kept[label][:n].clone()

    def inputs(self, labels: Iterable[int], device: torch.device) -> Exemplars | None:
        """Exemplars of some classes as the network sees them.

        Args:
            labels: Class ids.
            device: Where to.

        Returns:
            The exemplars; None if there are none.
        """
        kept = {c: self.pixels[c] for c in labels if len(self.pixels.get(c, ()))}
        if not kept:
            return None
        x = self._known_space().inputs(torch.cat(list(kept.values())), device)
        return Exemplars(x, _targets(kept).to(device))

    def floats(self, label: int) -> Tensor:
        """Exemplars of a class as pixels.

        Args:
            label: Class id.

        Returns:
            float32 in 0 to 1, ``(k, C, H, W)``.
        """
        pixels = self.pixels[label]
        return pixels / 255 if self.dtype == "uint8" else pixels.clone()

    def as_selected(self, experience: int, data: Any) -> dict[int, Tensor]:
        """Read from the stream what was selected there.

        Args:
            experience: Its number.
            data: Its data, in evaluation mode.

        Returns:
            Pixels in 0 to 1 by class id, ``(k, C, H, W)``; only classes all of whose
            exemplars are from there.
        """
        found = {}
        for label, rows in self.rows.items():
            here = (rows[:, 0] == experience) & (rows[:, 1] >= 0)
            if len(rows) and bool(here.all()):
                items = data.subset(rows[:, 1].tolist())
                x = torch.stack([torch.as_tensor(item[0]) for item in items])
                found[label] = self._known_space().unnormalized(x).clamp(0, 1)
        return found

    def dataset(self) -> AvalancheDataset:
        """All exemplars as a data set of Avalanche's.

        Returns:
            Items ``(x, y)``, or ``(x, y, task label)``, in training mode, as the data
            of a stream.
        """
        kept = {label: images for label, images in self.pixels.items() if len(images)}
        if not kept:
            return concat_datasets([])
        space, targets = self._known_space(), _targets(kept)
        attributes = [DataAttribute(targets.tolist(), "targets")]
        if self.task_labels:
            labels = torch.cat([self.task_labels[label] for label in kept]).tolist()
            attributes.append(
                DataAttribute(labels, "targets_task_labels", use_in_getitem=True)
            )
        first = [ConvertImageDtype(torch.float32)] if self.dtype == "uint8" else []
        middle = [] if self.augment is None else [self.augment]
        last = [Normalize(space.mean.tolist(), space.std.tolist())]
        groups: dict[str, Any] = {
            "train": (Compose([*first, *middle, *last]), None),
            "eval": (Compose([*first, *last]), None),
        }
        images = torch.cat(list(kept.values()))
        sizes = [len(own) for own in kept.values()]
        # views, so that the images are in memory once
        self.pixels.update(zip(kept, torch.split(images, sizes), strict=True))
        return AvalancheDataset(
            [_TensorClassificationDataset(images, targets)],
            data_attributes=attributes,
            transform_groups=TransformGroups(groups, current_group="train"),
        )

    def nbytes(self) -> dict[str, int]:
        """Bytes of the images in either data type.

        Returns:
            ``{"float32": bytes, "uint8": bytes}``.
        """
        n = sum(images.numel() for images in self.pixels.values())
        return {"float32": 4 * n, "uint8": n}

    def state_dict(self) -> dict[str, Any]:
        """The images, and all that belongs to them.

        Returns:
            Tensors and plain data.
        """
        space = self.space
        return {
            "dtype": self.dtype,
            "pixels": dict(self.pixels),
            "rows": dict(self.rows),
            "task_labels": dict(self.task_labels),
            "normalization": None if space is None else (space.mean, space.std),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the images back.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: If they were stored in another data type.
        """
        if state["dtype"] != self.dtype:
            raise ValueError(
                f"exemplars were saved as {state['dtype']}; wanted {self.dtype}, the "
                "storage_dtype of this buffer"
            )
        for name in ("pixels", "rows", "task_labels"):
            setattr(self, name, {c: v.cpu() for c, v in state[name].items()})
        self.space = None
        if state["normalization"] is not None:
            mean, std = (t.cpu() for t in state["normalization"])
            self.space = PixelSpace(mean, std, self.dtype)

    def _known_space(self) -> PixelSpace:
        if self.space is None:
            raise RuntimeError("no exemplar was stored yet; wanted a pixel space first")
        return self.space


def _targets(kept: dict[int, Tensor]) -> Tensor:
    sizes = torch.tensor([len(images) for images in kept.values()])
    return torch.tensor(list(kept)).repeat_interleave(sizes)
