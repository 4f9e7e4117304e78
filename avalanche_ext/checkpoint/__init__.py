"""Save a whole strategy, and resume it bit for bit.

``save_load`` is what users call, and says what a plugin owes (`Resumable`). ``encode``
writes the graph of objects below a strategy as a flat table, ``decode`` puts such a
table into a freshly constructed strategy, where ``match`` and ``grown`` find or make
each object's counterpart. ``header`` is what both must have in common, ``kinds`` and
``attributes`` say what may be in a table, ``samples`` refers to data of the stream
instead of copying it, ``insertion`` keeps the order of sets, ``rng`` the random
generators, and ``files`` does the disk.
"""

from avalanche_ext.checkpoint.errors import CheckpointError
from avalanche_ext.checkpoint.save_load import (
    Checkpoint,
    Resumable,
    load_checkpoint,
    save_checkpoint,
)

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Resumable",
    "load_checkpoint",
    "save_checkpoint",
]
