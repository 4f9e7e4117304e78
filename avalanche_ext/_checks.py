"""Checks of arguments: one clear error before any work."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor


def require_whole(minimum: int, **arguments: Any) -> None:
    """Refuse what is not a whole number from the minimum on.

    Args:
        minimum: Smallest value allowed.
        **arguments: Values by the names the user knows them by.

    Raises:
        ValueError: For the first that does not fit.

    Example:
        >>> require_whole(1, batch_size=0)
        Traceback (most recent call last):
        ValueError: batch_size is 0; wanted a whole number, at least 1
    """
    for name, value in arguments.items():
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole or value < minimum:
            raise ValueError(
                f"{name} is {value!r}; wanted a whole number, at least {minimum}"
            )


def require_real(minimum: float, **arguments: Any) -> None:
    """Refuse what is not a number from the minimum on (nan is none).

    Args:
        minimum: Smallest value allowed.
        **arguments: Values by the names the user knows them by.

    Raises:
        ValueError: For the first that does not fit.
    """
    for name, value in arguments.items():
        real = isinstance(value, Real) and not isinstance(value, bool)
        if not real or not minimum <= value < float("inf"):
            raise ValueError(
                f"{name} is {value!r}; wanted a number, at least {minimum}"
            )


def require_positive(**arguments: Any) -> None:
    """Refuse what is not a number above 0.

    Args:
        **arguments: Values by the names the user knows them by.

    Raises:
        ValueError: For the first that does not fit.
    """
    for name, value in arguments.items():
        require_real(0, **{name: value})
        if value == 0:
            raise ValueError(f"{name} is {value!r}; wanted a number above 0")


def require_fraction(**arguments: Any) -> None:
    """Refuse what is not a number from 0 to 1.

    Args:
        **arguments: Values by the names the user knows them by.

    Raises:
        ValueError: For the first that does not fit.
    """
    for name, value in arguments.items():
        real = isinstance(value, Real) and not isinstance(value, bool)
        if not real or not 0 <= value <= 1:
            raise ValueError(f"{name} is {value!r}; wanted a number from 0 to 1")


def require_choice(choices: tuple[Any, ...], **arguments: Any) -> None:
    """Refuse what is not one of the choices.

    Args:
        choices: Values allowed.
        **arguments: Values by the names the user knows them by.

    Raises:
        ValueError: For the first that does not fit.
    """
    for name, value in arguments.items():
        if not any(value is choice or value == choice for choice in choices) or (
            isinstance(value, int) and not isinstance(value, bool)
        ):
            wanted = ", ".join(map(repr, choices))
            raise ValueError(f"{name} is {value!r}; wanted one of {wanted}")


def require_kind(kind: type, **arguments: Any) -> None:
    """Refuse what is not an object of the class.

    Args:
        kind: The class wanted.
        **arguments: Values by the names the user knows them by.

    Raises:
        ValueError: For the first that does not fit.
    """
    for name, value in arguments.items():
        if not isinstance(value, kind):
            raise ValueError(  # noqa: TRY004
                f"{name} is {value!r}; wanted a {kind.__name__}"
            )


def generator_state(generator: torch.Generator | None) -> dict[str, Tensor]:
    """What a checkpoint holds of a generator.

    Args:
        generator: One of torch, or None.

    Returns:
        Its state as ``"generator"``; nothing for None.
    """
    return {} if generator is None else {"generator": generator.get_state()}


def restore_generator(generator: torch.Generator | None, state: dict[str, Any]) -> None:
    """Put the state of a generator back.

    Args:
        generator: The one that goes on, or None.
        state: Holds what `generator_state` returned.

    Raises:
        ValueError: If only one of the two has a generator.
    """
    saved = state.get("generator")
    if (saved is None) != (generator is None):
        raise ValueError(
            f"saved {'without' if saved is None else 'with'} a generator; wanted the "
            "same of what goes on"
        )
    if generator is not None and saved is not None:
        generator.set_state(saved)


def require_loading(memory_resident: Any, generator: Any) -> None:
    """Refuse what no loader takes.

    Args:
        memory_resident: "auto", True or False.
        generator: One of torch on the CPU, or None.

    Raises:
        ValueError: For the first that does not fit.
    """
    require_choice(("auto", True, False), memory_resident=memory_resident)
    if generator is None:
        return
    require_kind(torch.Generator, generator=generator)
    if generator.device.type != "cpu":
        raise ValueError(f"generator is on {generator.device}, wanted on cpu")
