"""All figures of parts."""

from __future__ import annotations

from timings import (
    ar1_star,
    bdr_cwd,
    evaluation,
    ewc_fr_replay,
    foundation,
    mnemonics,
    pruning,
    rerelrp,
)

ENTRIES = (
    *foundation.ENTRIES,
    *evaluation.ENTRIES,
    *bdr_cwd.ENTRIES,
    *ewc_fr_replay.ENTRIES,
    *ar1_star.ENTRIES,
    *pruning.ENTRIES,
    *rerelrp.ENTRIES,
    *mnemonics.ENTRIES,
)
