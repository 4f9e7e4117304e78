"""What there is to run, and what each stream needs on disk."""

from __future__ import annotations

import sys

from benchmarks.recipes import RECIPES
from benchmarks.streams import STREAMS, StreamInfo


def print_listing() -> None:
    """Print the recipes and the streams; loads nothing heavy."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    recipes = Table("recipe", "what it is", "stream", "needs", box=SIMPLE_HEAD)
    for recipe in RECIPES.values():
        stream = recipe.function().stream
        recipes.add_row(recipe.name, recipe.summary, stream, needs(STREAMS[stream]))
    heads = ("stream", "what it is", "image", "classes", "experiences", "needs")
    streams = Table(*heads, box=SIMPLE_HEAD)
    for info in STREAMS.values():
        streams.add_row(
            info.name,
            info.description,
            "x".join(str(n) for n in info.image_shape),
            str(info.n_classes or "yours"),
            str(info.n_experiences or "yours"),
            needs(info),
        )
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(recipes, streams)


def needs(info: StreamInfo) -> str:
    """What must be on disk for a stream, and who puts it there.

    Args:
        info: The stream.

    Returns:
        A few words.

    Example:
        >>> needs(STREAMS["split_mnist"]), needs(STREAMS["split_digits"])
        ('12 MB, --download', 'nothing')
    """
    if not info.files:
        return "nothing"
    if info.source == "yours":
        return "your images"
    return f"{info.size}, {'--download' if info.automatic_download else 'by hand'}"
