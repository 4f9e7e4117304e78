"""What is known of each stream before anything is loaded: data only, no imports."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.streams.fields import StreamInfo
from benchmarks.streams.info_grey import DIGITS, GREY, SAME_CLASSES
from benchmarks.streams.info_photographs import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PHOTOGRAPHS,
)

_CORE50_FILES = (
    "batches_filelists NIC_v2_79 NIC_v2_196 NIC_v2_391 "
    "paths.pkl labels.pkl LUP.pkl labels2names.pkl"
)


def _core50(
    scenario: str, n_experiences: int, description: str, *, size: int = 128
) -> StreamInfo:
    mini = "mini_" if size == 32 else ""
    return StreamInfo(
        name=f"core50_{mini}{scenario}",
        description=f"50 objects on video, {description}; --stream_seed is the run",
        classic="CORe50",
        image_shape=(3, size, size),
        n_classes=50,
        n_experiences=n_experiences,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        normalization="of ImageNet",
        source=f"{'vps.continualai.org' if mini else 'bias.csr.unibo.it'} and "
        "vlomonaco.github.io",
        size="below 1 GB" if mini else "4 GB",
        folder="core50",
        files=(f"core50_{size}x{size}", *_CORE50_FILES.split()),
        refused=(*SAME_CLASSES, "task_labels"),
        test_step=20 if scenario.startswith("nicv2") else 1,
    )


_NICV2 = [
    (f"nicv2_{n}", n, "new objects and backgrounds, which come back")
    for n in (79, 196, 391)
]
_PATHMNIST = StreamInfo(
    name="split_pathmnist",
    description="9 tissues under the microscope, 3 classes, then 2 at a time",
    classic="nc_benchmark",
    image_shape=(3, 32, 32),
    n_classes=9,
    n_experiences=4,
    first_experience_classes=3,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    normalization="of MedMNIST's examples",
    augmentation="random resized crop to 32x32 after padding by 2, horizontal flip",
    source="zenodo.org",
    size="206 MB",
    folder="medmnist",
    files=("pathmnist.npz",),
    first_option="per_exp_classes",
)
_IMAGE_FOLDER = replace(
    DIGITS,
    name="image_folder",
    description="your own images in train/CLASS/ and test/CLASS/, any sizes",
    image_shape=(3, 64, 64),
    stored_shape=(),
    n_classes=None,
    n_experiences=None,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    normalization="of ImageNet",
    augmentation="horizontal flip",
    source="yours",
    size="no download",
    folder="image_folder",
    files=("train", "test"),
    refused=(),
)

_ALL = (
    *GREY,
    *PHOTOGRAPHS,
    _PATHMNIST,
    replace(
        _PATHMNIST,
        name="split_bloodmnist",
        description="blood cells of 8 types under the microscope, 2 at a time",
        n_classes=8,
        first_experience_classes=None,
        size="36 MB",
        files=("bloodmnist.npz",),
    ),
    _core50("nc", 9, "new objects in each experience"),
    _core50("ni", 8, "new backgrounds in each experience"),
    *(_core50(*nicv2) for nicv2 in _NICV2),
    *(_core50(*nicv2, size=32) for nicv2 in _NICV2),
    _IMAGE_FOLDER,
)

STREAMS: dict[str, StreamInfo] = {info.name: info for info in _ALL}
"""All streams, by name."""
