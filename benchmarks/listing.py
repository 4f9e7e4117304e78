"""What there is to run, and what each stream needs on disk."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from benchmarks.recipes import RECIPES, Recipe
from benchmarks.recipes.find import find_recipes
from benchmarks.streams import STREAMS, StreamInfo


def print_listing(names: Sequence[str] = ()) -> None:
    """Print recipes and streams; loads nothing heavy.

    Args:
        names: Recipes whose rows are printed instead, or patterns as of
            `find_recipes`; none: all recipes, with the number of their rows, and all
            streams.

    Raises:
        UsageError: If a name or pattern fits no recipe.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    found = [
        [r for r in RECIPES.values() if r.base == name] or find_recipes([name])
        for name in names
    ]
    for kind in found:
        rows = Table("recipe", "what it is", "options", box=SIMPLE_HEAD)
        rows.columns[0].no_wrap = True
        for recipe in kind:
            rows.add_row(recipe.name, recipe.summary, _options(recipe))
        console.print(rows)
    if names:
        return
    n_rows = Counter(recipe.base for recipe in RECIPES.values())
    recipes = Table("recipe", "what it is", "rows", "stream", "needs", box=SIMPLE_HEAD)
    for recipe in RECIPES.values():
        if not recipe.is_row:
            stream = recipe.setup().stream
            n, info = n_rows[recipe.name], STREAMS[stream]
            recipes.add_row(recipe.name, recipe.summary, str(n), stream, needs(info))
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
    for table in (recipes, streams):
        table.columns[0].no_wrap = True
    console.print(recipes, streams)
    console.print(
        "rows: recipes of the same kind; `list RECIPE` shows them", style="dim"
    )


def _options(recipe: Recipe) -> str:
    """A row's: those that its recipe has otherwise."""
    shared = RECIPES[recipe.base].defaults.items() if recipe.is_row else ()
    own = [option for option in recipe.defaults.items() if option not in shared]
    return " ".join(f"{name}={value}" for name, value in own)


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
