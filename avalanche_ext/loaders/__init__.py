"""Batches made from images held in memory.

``resident_loader`` is what users call. ``walk`` finds where each sample comes from,
``leaves`` and ``store`` hold the raw images, ``recognise`` and ``batch_transforms``
turn per-image transforms into operations on a batch, and ``content`` puts these
together.
"""

from avalanche_ext.loaders.batches import batches_of
from avalanche_ext.loaders.errors import NotResidentError
from avalanche_ext.loaders.pixels import normalization_of, tensor_transforms_of
from avalanche_ext.loaders.resident_loader import (
    ResidentLoader,
    image_bytes,
    make_loader,
    worker_options,
)
from avalanche_ext.loaders.uniform import (
    require_batch_of_all_tasks,
    shuffle_uniformly,
    uniform_loader,
)
from avalanche_ext.loaders.walk import values_of

__all__ = [
    "NotResidentError",
    "ResidentLoader",
    "batches_of",
    "image_bytes",
    "make_loader",
    "normalization_of",
    "require_batch_of_all_tasks",
    "shuffle_uniformly",
    "tensor_transforms_of",
    "uniform_loader",
    "values_of",
    "worker_options",
]
