"""What is kept of past experiences, and how it is chosen."""

from avalanche_ext.buffers.herding import HerdingBuffer

__all__ = ["HerdingBuffer"]
