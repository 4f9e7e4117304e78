"""The frame of the methods of this package, whose template has switches for speed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from benchmarks.recipes.frame import Frame


@dataclass(frozen=True, kw_only=True)
class ResidentFrame(Frame):
    """A frame, and what makes `ResidentTemplate` faster; all of that is off by default.

    Args:
        precision: bf16 trains under autocast.
        channels_last: Keep images and convolutions in this memory format.
        compile: Compile the passes of training.
        optimizer_implementation: That of torch's optimizer; null: torch's choice.
        inference_mode: Run frozen copies of the network in torch's inference mode.
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    optimizer_implementation: Literal["foreach", "fused"] | None = None
    inference_mode: bool = False

    def template_options(self) -> dict[str, Any]:
        """Arguments of `ResidentTemplate`: Avalanche's, the switches, where data are."""
        names = {f.name for f in fields(ResidentFrame)} - {
            f.name for f in fields(Frame)
        }
        return {
            **super().template_options(),
            **{name: getattr(self, name) for name in sorted(names)},
            "memory_resident": self.memory_resident,
        }
