"""The images of a comparison: for strategies as a benchmark, for bare loops as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from timings.foundation import MEAN, PLAIN, STD, Noise

N_CLASSES = 10
OLD, NEW = range(5), range(5, N_CLASSES)


def labels(n: int, classes: range) -> Tensor:
    """n labels, of all classes alike.

    Args:
        n: How many.
        classes: What they are.

    Returns:
        int64, shape ``(n,)``.
    """
    return torch.arange(n) % len(classes) + classes.start


def two_experiences(n: int, *, size: int = 32, task_labels: bool = False) -> Any:
    """Five classes of n images, then five others of as many; n images to test on.

    Args:
        n: Images of an experience, an even number of at least 10.
        size: Of an image, in pixels.
        task_labels: Whether an experience has one of its own.

    Returns:
        A classic benchmark without random transforms; classes come in ascending order.
    """
    from avalanche.benchmarks import nc_benchmark

    data = []
    for each in (n, n // 2):
        images = Noise(2 * each, size)
        images.targets = torch.cat([labels(each, OLD), labels(each, NEW)]).tolist()
        data.append(images)
    return nc_benchmark(
        *data,
        n_experiences=2,
        task_labels=task_labels,
        shuffle=False,
        train_transform=PLAIN,
        eval_transform=PLAIN,
    )


class Epochs:
    """Shuffled mini-batches of images in memory; each iteration is an epoch.

    Args:
        targets: Label of each image, int64, shape ``(N,)``.
        batch_size: Images of a mini-batch; the last one has the rest.
        device: Where the images are.
        size: Of an image, in pixels.

    Attributes:
        images: uint8, shape ``(N, 3, size, size)``.
        targets: As above, on the device.
    """

    def __init__(
        self, targets: Tensor, batch_size: int, device: torch.device, *, size: int = 32
    ) -> None:
        pixels = torch.from_numpy(Noise(len(targets), size).data)
        self.images = pixels.permute(0, 3, 1, 2).contiguous().to(device)
        self.targets = targets.to(device)
        self._batch_size = batch_size
        self._mean, self._std = (
            torch.tensor(v, device=device).view(-1, 1, 1) for v in (MEAN, STD)
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.targets)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images and their labels, batch by batch."""
        order = torch.randperm(len(self)).to(self.targets.device)
        for rows in order.split(self._batch_size):
            yield self.normalised(rows), self.targets[rows]

    def normalised(self, rows: Tensor) -> Tensor:
        """Images as the network gets them.

        Args:
            rows: Which, int64.

        Returns:
            Float, shape ``(len(rows), 3, size, size)``.
        """
        x = self.images.index_select(0, rows).float()
        return x.div_(255).sub_(self._mean).div_(self._std)
