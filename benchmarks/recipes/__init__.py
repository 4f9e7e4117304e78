"""All recipes, one module a family. What a recipe is stands in ``recipe.py``."""

from benchmarks.recipes import (
    ar1_star,
    ar1_star_core50,
    avalanche_ar1,
    baselines,
    bdr,
    ewc_fr_replay,
    ewc_fr_replay_imagenet,
    ewc_fr_replay_rows,
    lucir,
    mnemonics,
    rehearsal_baselines,
    rerelrp,
)
from benchmarks.recipes.recipe import RECIPES, Recipe, Setup, row

__all__ = [
    "RECIPES",
    "Recipe",
    "Setup",
    "ar1_star",
    "ar1_star_core50",
    "avalanche_ar1",
    "baselines",
    "bdr",
    "ewc_fr_replay",
    "ewc_fr_replay_imagenet",
    "ewc_fr_replay_rows",
    "lucir",
    "mnemonics",
    "rehearsal_baselines",
    "rerelrp",
    "row",
]
