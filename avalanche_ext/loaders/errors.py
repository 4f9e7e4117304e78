"""Why a dataset cannot be held in memory."""

from __future__ import annotations


class NotResidentError(ValueError):
    """A dataset cannot be held in memory; the message names what stands against it.

    Example:
        >>> str(NotResidentError("Lambda is not known"))
        'Lambda is not known'
    """
