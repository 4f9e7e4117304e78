"""Run a baseline in the frame of another run: same stream, network, schedule, memory.

Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks.names import UsageError
from benchmarks.recipes.frame import Frame
from benchmarks.runs.results import read_run

FRAME = tuple(field.name for field in fields(Frame))

OWN = {"icarl": {"lr"}}
"""Options of the frame that a recipe keeps: iCaRL's loss, a binary cross-entropy averaged
over the classes, wants a learning rate about ten times as large."""

SAME_MEANING = {"latent_layer": "latent_layer", "later_lr": "inc_lr"}
"""Options of our AR1* that are part of the frame of Avalanche's, and their names there."""

SIZES = ("memory_bytes", "exemplars", "memory_size")
"""Options that say how large a baseline's memory is."""

NOT_KEPT = "frozen_copies"
"""The kind of bytes that is no memory of data: copies of the network, which some methods
have and some have not. All other kinds of `avalanche_ext.metrics.memory` count."""


def taken_over(
    recipe: str, options: Mapping[str, Any], *, known: Container[str]
) -> dict[str, Any]:
    """The part of a run's options that is the frame of another recipe.

    Args:
        recipe: Name of the other recipe.
        options: Of the run, by name.
        known: Names of the other recipe's options.

    Returns:
        Options of that recipe.

    Example:
        >>> taken_over("icarl", {"lr": 0.1, "momentum": 0.5, "margin": 1}, known=FRAME)
        {'momentum': 0.5}
    """
    taken = {n: v for n, v in options.items() if n in FRAME and n in known}
    for theirs, name in SAME_MEANING.items():
        if name in known and options.get(theirs) is not None:
            taken[name] = options[theirs]
    return {n: v for n, v in taken.items() if n not in OWN.get(recipe, ())}


def like(
    folder: Path, recipe: str, *, known: Container[str], given: Container[str]
) -> dict[str, Any]:
    """Options that put a recipe into the frame of a finished run.

    Args:
        folder: Of the run; holds its ``run.json``.
        recipe: Name of the recipe to run.
        known: Names of all its options.
        given: Names of those that were given, which win.

    Returns:
        The frame's options; ``memory_bytes``, where the recipe has it and the size of
        its memory is not given, is what the run keeps at the end but for ``NOT_KEPT``;
        its ``smoke`` and its ``note``, so that stand-in images stay known as such.

    Raises:
        UsageError: If there is no such run, it lies elsewhere, is not finished, one of the two has no
            option of a frame, or the run keeps nothing where a memory is to be as large.
    """
    if not (folder / "run.json").is_file():
        raise UsageError(
            f"--like {folder} holds no run.json; wanted the folder of a run, such as "
            "results/lucir_digits/0"
        )
    record = read_run(folder)
    if record["recipe"] != folder.resolve().parent.name:
        raise UsageError(
            f"--like {folder} holds a run of {record['recipe']}; wanted it in a folder "
            f"{record['recipe']}/{record['seed']}, whose name tells the recipe"
        )
    if not record.get("finished"):
        raise UsageError(
            f"--like {folder} is not finished, so the bytes it keeps are unknown; "
            "finish it with --resume"
        )
    taken = taken_over(recipe, record.get("options", {}), known=known)
    if not any(name in taken for name in FRAME):
        raise UsageError(
            f"--like {folder}: {record['recipe']} and {recipe} have no option of stream, "
            "network or schedule in common"
        )
    if "memory_bytes" in known and not any(name in given for name in SIZES):
        taken["memory_bytes"] = _kept_bytes(folder, record)
    return {**taken, "smoke": record["smoke"], "note": record["note"]}


def _kept_bytes(folder: Path, record: Mapping[str, Any]) -> int:
    kinds = record.get("memory_bytes", {})
    kept = sum(number for kind, number in kinds.items() if kind != NOT_KEPT)
    if not kept:
        raise UsageError(
            f"--like {folder} keeps no bytes but copies of its network; wanted the size "
            "of this memory, such as --exemplars 200"
        )
    return kept
