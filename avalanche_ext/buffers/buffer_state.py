"""State of a buffer within another, for a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avalanche.training.storage_policy import (
    ExemplarsBuffer,
    ReservoirSamplingBuffer,
)


def saved_buffer(buffer: ExemplarsBuffer) -> dict[str, Any]:
    """What a buffer says itself, or the attributes of one of Avalanche's.

    Args:
        buffer: Any.

    Returns:
        Plain data, and data of the stream, as a checkpoint takes them.
    """
    if hasattr(buffer, "state_dict"):
        state: dict[str, Any] = buffer.state_dict()
        return state
    attributes = dict(vars(buffer))
    if groups := attributes.get("buffer_groups"):
        attributes["buffer_groups"] = {k: saved_buffer(v) for k, v in groups.items()}
    return attributes


def restore_buffer(
    buffer: ExemplarsBuffer, state: dict[str, Any], experiences: Sequence[Any]
) -> None:
    """Put a state back.

    Args:
        buffer: Constructed as the one saved.
        state: What `saved_buffer` returned.
        experiences: Those trained so far, in order.
    """
    if hasattr(buffer, "load_state_dict"):
        buffer.load_state_dict(state, experiences)
        return
    vars(buffer).update(state)
    if groups := state.get("buffer_groups"):
        # a group of Avalanche's balanced buffers is a reservoir; others are refused
        # when saved, for the functions and objects they hold
        made = {k: ReservoirSamplingBuffer(0) for k in groups}
        for k, group in made.items():
            restore_buffer(group, groups[k], experiences)
        vars(buffer)["buffer_groups"] = made
