"""All methods that are compared."""

from __future__ import annotations

from timings.methods import (
    ar1_star,
    ewc_fr_replay,
    lucir_family,
    mnemonics,
    rerelrp,
)

METHODS = (
    *lucir_family.METHODS,
    *mnemonics.METHODS,
    *ewc_fr_replay.METHODS,
    *ar1_star.METHODS,
    *rerelrp.METHODS,
)
