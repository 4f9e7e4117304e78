"""How many exemplars fit into so many bytes, so that methods get the same memory."""

from __future__ import annotations

from benchmarks.names import UsageError
from benchmarks.streams import STREAMS


def stored_bytes(stream: str) -> int:
    """Bytes of one image of a stream, as `avalanche_ext.metrics.memory` counts them.

    Args:
        stream: A key of ``STREAMS``.

    Returns:
        One byte for each channel of each pixel, before any transform.

    Raises:
        UsageError: If the images are files of any size, so that nothing can be said
            before they are read.

    Example:
        >>> stored_bytes("split_cifar100"), stored_bytes("mnist_nc")
        (3072, 784)
    """
    size = STREAMS[stream].stored_bytes
    if size is None:
        raise UsageError(
            f"stream is {stream}, of image files of any size; wanted --exemplars, as "
            "--memory_bytes does not tell how many of them fit"
        )
    return size


def number_that_fits(
    memory_bytes: int, each: int, *, besides: int = 0, at_least: int = 1
) -> int:
    """How many exemplars fit.

    Args:
        memory_bytes: Bytes there are.
        each: Bytes of one exemplar with all that is kept of it.
        besides: Bytes kept whatever their number.
        at_least: Number below which the method cannot work.

    Returns:
        The number, at least that.

    Raises:
        UsageError: If fewer fit.

    Example:
        >>> number_that_fits(10_000, 3072)
        3
    """
    number = (memory_bytes - besides) // each
    if number < at_least:
        raise UsageError(
            f"memory_bytes is {memory_bytes}; wanted at least "
            f"{besides + at_least * each}, which hold {at_least} of {each} bytes each"
            + (f" and {besides} besides" if besides else "")
        )
    return number
