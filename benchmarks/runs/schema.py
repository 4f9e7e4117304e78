"""What readers rely on in a ``run.json``; `record.make_record` writes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat, PositiveInt


class RunRecord(BaseModel):
    """Types of the keys; those with a default are missing in older files."""

    model_config = ConfigDict(strict=True)

    recipe: str
    seed: int
    smoke: bool
    finished: bool
    experiences: int
    experiences_finished: int
    setting: str
    memory: str
    options: dict[str, Any]
    changed: list[str]
    metrics: dict[str, FiniteFloat | list[FiniteFloat | None] | None]
    test_images: list[PositiveInt]
    minutes: FiniteFloat
    train_seconds: FiniteFloat | None = None
    peak_memory_bytes: dict[str, FiniteFloat | None] = {}
    note: str = ""
    like: str | None = None
    command: str = ""
    hardware: dict[str, Any] | None = None
    memory_bytes: dict[str, FiniteFloat] = {}
    memory_over_experiences: list[dict[str, FiniteFloat] | None] = []
    further_metrics: list[dict[str, FiniteFloat | None]] = []
