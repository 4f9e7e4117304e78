"""Recipes by name, by pattern, and by the recipe whose published rows they are."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from benchmarks.names import UsageError, nearest
from benchmarks.recipes import RECIPES, Recipe


def find_recipes(names: Iterable[str]) -> list[Recipe]:
    """Find the recipes that are meant.

    Args:
        names: Names, or patterns with ``*``, ``?`` and ``[]``; with a ``/``, of the
            published rows of a recipe: ``lucir_cifar100/*``.

    Returns:
        Each recipe once.

    Raises:
        UsageError: If a name or pattern fits none.
    """
    found: dict[str, Recipe] = {}
    for name in names:
        fitting = [r for r in RECIPES.values() if _fits(r, name)]
        if not fitting:
            raise UsageError(f"unknown recipe {name}; {nearest(name, RECIPES)}")
        found |= {recipe.name: recipe for recipe in fitting}
    return list(found.values())


def _fits(recipe: Recipe, pattern: str) -> bool:
    if "/" not in pattern:
        return fnmatchcase(recipe.name, pattern)
    return recipe.is_row and fnmatchcase(f"{recipe.base}/{recipe.name}", pattern)
