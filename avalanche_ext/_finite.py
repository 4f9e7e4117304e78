"""Terms of a loss that must be finite."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class FiniteTerm:
    """Reports a term that is not finite: at once on a CPU, elsewhere when asked.

    To look at a number on a GPU is to wait for it.

    Args:
        name: Of the term, for the message.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._finite: Any = None

    def look_at(self, value: Tensor) -> None:
        """Note the value of a batch.

        Args:
            value: A scalar.

        Raises:
            ValueError: On a CPU, if it is not finite.
        """
        finite = value.detach().isfinite()
        self._finite = finite if self._finite is None else self._finite & finite
        if value.device.type == "cpu":
            self.require()

    def require(self) -> None:
        """Report, and begin anew.

        Raises:
            ValueError: If a value noted since the last report was not finite.
        """
        noted, self._finite = self._finite, None
        if noted is not None and not bool(noted):
            raise ValueError(
                f"{self.name} is not finite; wanted a finite number: did training "
                "diverge? A smaller learning rate or strength, or clipped gradients, "
                "may help"
            )
