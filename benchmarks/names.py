"""Errors that a person reads, and the names that were meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """A command that cannot be carried out as given; its text is one line."""


class RunFailed(RuntimeError):
    """A run that cannot go on; what was saved before is intact. Its text is one line."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Say which valid name is closest to a wrong one.

    Args:
        name: The wrong name.
        valid: The valid names.

    Returns:
        The end of an error message: the closest name, or if none is close all of them,
        of more than 40 the first ones.

    Example:
        >>> nearest("naiv", ["naive", "replay"])
        'did you mean naive?'
        >>> nearest("x", ["naive", "replay"])
        'wanted one of naive, replay'
    """
    valid = list(valid)
    close = get_close_matches(name, valid, n=1)
    if close:
        return f"did you mean {close[0]}?"
    more = f", ... ({len(valid)} in all)" if len(valid) > 40 else ""
    shown = valid[:12] if more else valid
    return f"wanted one of {', '.join(shown)}{more}"
