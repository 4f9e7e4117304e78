"""Subjects of the contract for exemplars that are optimised."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.storage_policy import ClassBalancedBuffer
from cases import build, naive_with
from mnemonics_cases import TOY_PIXELS, quick

from avalanche_ext.buffers import HerdingBuffer, MnemonicsBuffer
from avalanche_ext.plugins import ExemplarReplayPlugin
from avalanche_ext.strategies import BDR, LUCIR


def toy_buffer(selection: Any = "random", **options: Any) -> MnemonicsBuffer:
    """Of the toy stream, quickly."""
    objective = options.pop("objective", "bilevel")
    optimizer = quick(objective=objective)
    return MnemonicsBuffer(selection, optimizer=optimizer, **TOY_PIXELS, **options)


def _in_replay(**options: Any) -> Any:
    buffer = toy_buffer(max_size=12)
    return naive_with(ReplayPlugin(12, storage_policy=buffer), **options)


def _herded(**options: Any) -> Any:
    buffer = toy_buffer("herding", per_class=4, objective="ncm", storage_dtype="uint8")
    return naive_with(ExemplarReplayPlugin(buffer), **options)


def _of_buffer(kind: str, **options: Any) -> Any:
    selection = {
        "herding": lambda: HerdingBuffer(max_size=12),
        "balanced": lambda: ClassBalancedBuffer(12),
    }[kind]()
    return naive_with(ExemplarReplayPlugin(toy_buffer(selection)), **options)


def _lucir(**options: Any) -> Any:
    generator = torch.Generator().manual_seed(3)
    buffer = toy_buffer(per_class=4, generator=generator)
    return build(LUCIR, buffer=buffer, **options)


def _bdr(**options: Any) -> Any:
    buffer = toy_buffer(max_size=20, objective="bilevel_head")
    return build(BDR, buffer=buffer, **options)


MNEMONICS_SUBJECTS: dict[str, Any] = {
    "MnemonicsBuffer-in-ReplayPlugin": _in_replay,
    "MnemonicsBuffer-in-ExemplarReplayPlugin": _herded,
    "MnemonicsBuffer-of-a-HerdingBuffer": lambda **o: _of_buffer("herding", **o),
    "MnemonicsBuffer-of-a-balanced-buffer": lambda **o: _of_buffer("balanced", **o),
    "LUCIR-of-a-MnemonicsBuffer": _lucir,
    "BDR-of-a-MnemonicsBuffer": _bdr,
}
