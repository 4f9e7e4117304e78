"""A made CORe50: the folder as its archives unpack, with few small noisy images.

Each object is shown in three sequences; as in the real one, the third is for testing. A
class of the file lists is an object, and the colour of its images gives it away.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from avalanche.benchmarks.classic.core50 import nbatch
from PIL import Image

from benchmarks.streams.core50_lists import image_path, write_core50_lists

N_CLASSES = 50
SEQUENCES = (1, 2, 3)
TEST_FRAMES = 20  # of which the protocol of NICv2 takes one


def experience_classes(i: int) -> list[int]:
    """Classes of an experience: ten at first, then one; all come, and come back."""
    return list(range(0, N_CLASSES, 5)) if i == 0 else [(i - 1) * 7 % N_CLASSES]


def lay_core50(
    root: Path, scenario: str, *, run: int = 0, size: int = 128, frames: int = 2
) -> None:
    """Write what Avalanche's ``CORe50`` reads for one scenario and one run.

    Args:
        root: The folder.
        scenario: ``"nc"``, ``"nicv2_391"``...
        run: 0-9.
        size: Height and width of the images: 128, or 32 of the mini version.
        frames: Training images of a class in an experience.
    """
    tree = root / f"core50_{size}x{size}"
    rng = np.random.default_rng(0)
    for label in range(N_CLASSES):
        for sequence in SEQUENCES[:2]:
            for frame in range(frames):
                _write_image(
                    tree / image_path(sequence, label, frame), label, size, rng
                )
        # the test list names this one file as often as the real one names frames
        _write_image(tree / image_path(3, label, 0), label, size, rng)
    train = [list(train_lines(i, frames)) for i in range(nbatch[scenario])]
    write_core50_lists(root, scenario, run, train, list(test_lines()))


def train_lines(i: int, frames: int = 2) -> Iterator[tuple[str, int]]:
    """Path and class of each training image of an experience."""
    for label in experience_classes(i):
        for frame in range(frames):
            yield image_path(SEQUENCES[i % 2], label, frame), label


def test_lines() -> Iterator[tuple[str, int]]:
    """Path and class of each image of the complete test list."""
    for label in range(N_CLASSES):
        for _ in range(TEST_FRAMES):
            yield image_path(3, label, 0), label


test_lines.__test__ = False  # type: ignore[attr-defined]


def _write_image(path: Path, label: int, size: int, rng: np.random.Generator) -> None:
    """Noise of 16 levels around a shade of the label's own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = np.array([label * 5, 245 - label * 5, label % 7 * 35])
    small = np.clip(shade + rng.integers(0, 16, (8, 8, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(small).resize((size, size), Image.Resampling.NEAREST).save(path)
