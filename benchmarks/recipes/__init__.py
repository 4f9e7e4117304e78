"""All recipes, one module a family. What a recipe is stands in ``recipe.py``."""

from benchmarks.recipes import (
    ar1_star,
    avalanche_ar1,
    baselines,
    bdr,
    ewc_fr_replay,
    lucir,
    mnemonics,
    rerelrp,
)
from benchmarks.recipes.recipe import RECIPES, Recipe, Setup, row

__all__ = [
    "RECIPES",
    "Recipe",
    "Setup",
    "ar1_star",
    "avalanche_ar1",
    "baselines",
    "bdr",
    "ewc_fr_replay",
    "lucir",
    "mnemonics",
    "rerelrp",
    "row",
]
