"""What is known of a stream: the fields of its entry."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias

Augmentation: TypeAlias = Literal[
    "none",
    "horizontal flip",
    "random 32x32 crop after padding by 4, horizontal flip",
    "random resized crop to 32x32 after padding by 2, horizontal flip",
    "random resized crop to 32x32 after padding by 4, horizontal flip",
    "random resized crop to 224x224, horizontal flip",
    "random resized crop to 256x256, horizontal flip",
]

ClassOrder: TypeAlias = Literal["natural", "icarl", "ewc_fr_replay"]


def below(folder: str, names: str) -> tuple[str, ...]:
    """Paths of files in a folder.

    Args:
        folder: The folder.
        names: Names of the files, with blanks between.

    Returns:
        The paths.

    Example:
        >>> below("raw", "train test")
        ('raw/train', 'raw/test')
    """
    return tuple(f"{folder}/{name}" for name in names.split())


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """One stream that `make_stream` can build.

    Args:
        name: Name in ``STREAMS``.
        description: What the stream is, in a line.
        classic: Avalanche's function that makes it.
        image_shape: Channels, height and width of an image as the network gets it.
        n_classes: Number of classes; ``None`` where the user's data decide.
        n_experiences: Number of experiences unless asked otherwise; ``None``: must be
            given.
        first_experience_classes: Classes of the first of these, unless asked
            otherwise; ``None``: as many as of each other.
        mean: Subtracted from each channel; pixels are in [0, 1] before.
        std: Divides each channel afterwards.
        normalization: Whose mean and std these are.
        augmentation: Random transforms of training images.
        source: Who provides the data, or from which host they are downloaded.
        size: Size of that download.
        automatic_download: Whether ``download=True`` can get the data.
        folder: Avalanche's default folder, below its data root.
        files: Files or folders wanted below ``dataset_root``; ``"a or b"``: either.
        first_option: The function's argument for the size of the first experience;
            empty: it has none.
        refused: Options of `make_stream` that do not apply to this stream.
        images_per_class: Training images of each class in an experience unless asked
            otherwise; ``None``: all.
        test_step: Every how many-th image of the test list is evaluated.
        validation_fraction: Share of the training images of each class that is held
            back, in a stream ``valid`` of the benchmark.
        stored_shape: Of an image as it is kept, before transforms; ``None``: as
            ``image_shape``; empty: files of any size.
    """

    name: str
    description: str
    classic: str
    image_shape: tuple[int, int, int]
    n_classes: int | None
    n_experiences: int | None
    first_experience_classes: int | None = None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalization: str = "Avalanche's default"
    augmentation: Augmentation = "none"
    source: str
    size: str
    automatic_download: bool = True
    folder: str
    files: tuple[str, ...]
    first_option: str = ""
    refused: tuple[str, ...] = ("image_size",)
    images_per_class: int | None = None
    test_step: int = 1
    validation_fraction: float = 0.0
    stored_shape: tuple[int, ...] | None = None

    @property
    def stored_bytes(self) -> int | None:
        """Bytes of a kept image, a byte a channel; None for files of any size."""
        shape = self.image_shape if self.stored_shape is None else self.stored_shape
        return prod(shape) if shape else None
