"""What a memory of latents refuses to take in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from avalanche_ext._checks import require_kind, require_whole


def require_insertable(
    room: int, latents: Tensor, experience: int, **labels: Tensor | None
) -> None:
    """Refuse latents without as many labels, or more of them than there is room for.

    Args:
        room: Latents that can be put in at once.
        latents: Shape ``(n, ...)``.
        experience: Number of their experience.
        **labels: Labels and task labels, by name; None if there are none.

    Raises:
        ValueError: For the first that does not fit.
    """
    require_kind(Tensor, latents=latents)
    require_whole(0, experience=experience)
    n = len(latents) if latents.ndim else 0
    for name, values in labels.items():
        if values is None:
            continue
        require_kind(Tensor, **{name: values})
        if tuple(values.shape) != (n,):
            raise ValueError(
                f"{name} are of shape {tuple(values.shape)}; wanted {(n,)}, one for "
                "each of the latents"
            )
        if values.is_floating_point() or values.is_complex():
            raise ValueError(f"{name} are {values.dtype}; wanted whole numbers")
    if n > room:
        raise ValueError(
            f"latents are {n}; wanted at most {room}, which fit into the memory now "
            "(see choose)"
        )


def require_state(state: dict[str, Any], names: Iterable[str]) -> None:
    """Refuse a state that is not one of the memory.

    Args:
        state: What was saved.
        names: Keys that it must hold.

    Raises:
        ValueError: If a key is missing.
    """
    if missing := [name for name in names if name not in state]:
        raise ValueError(
            f"the state is without {', '.join(missing)}; wanted what state_dict() "
            "returned"
        )


def require_finite(latents: Tensor) -> None:
    """Refuse latents of a model that diverged.

    Args:
        latents: Any shape.

    Raises:
        ValueError: If they hold NaN or inf.
    """
    if not bool(latents.isfinite().all()):
        raise ValueError(
            "latents hold NaN or inf; wanted finite numbers: did training diverge?"
        )


def require_alike(
    latents: Tensor, stored: Tensor, task_labels: Tensor | None, old: Tensor | None
) -> None:
    """Refuse latents that cannot stand beside those in the memory.

    Args:
        latents: New ones, shape ``(n, ...)``.
        stored: Those in the memory.
        task_labels: Of the new ones, or None.
        old: Task labels of those in the memory, or None.

    Raises:
        ValueError: If their shape is another, or only one of them has task labels.
    """
    if latents.shape[1:] != stored.shape[1:]:
        raise ValueError(
            f"latents have shape {tuple(latents.shape[1:])}; wanted "
            f"{tuple(stored.shape[1:])} as in the memory: did the size of "
            "the inputs change?"
        )
    if (task_labels is None) != (old is None):
        seen = "no task labels" if task_labels is None else "task labels"
        raise ValueError(f"latents come with {seen}, unlike those in the memory")
