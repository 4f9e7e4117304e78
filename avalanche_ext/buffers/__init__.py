"""What is kept of past experiences, and how it is chosen."""

from avalanche_ext.buffers.herding import HerdingBuffer
from avalanche_ext.buffers.latent import LatentBuffer
from avalanche_ext.buffers.memorable_past import MemorablePastBuffer
from avalanche_ext.buffers.mnemonics import MnemonicsBuffer
from avalanche_ext.buffers.mnemonics_optimizer import MnemonicsOptimizer
from avalanche_ext.buffers.reference_samples import ReferenceSamples

__all__ = [
    "HerdingBuffer",
    "LatentBuffer",
    "MemorablePastBuffer",
    "MnemonicsBuffer",
    "MnemonicsOptimizer",
    "ReferenceSamples",
]
