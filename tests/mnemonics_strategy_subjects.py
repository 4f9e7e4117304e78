"""Mnemonics as subjects of the contract."""

from __future__ import annotations

from typing import Any

import torch
from mnemonics_hosts import mnemonics, quick


def mnemonics_icarl(**options: Any) -> Any:
    """The other loss, classifier and budget."""
    return mnemonics(
        distillation="icarl",
        decay_to_one=True,
        predict="nearest_mean",
        memory_size=20,
        storage_dtype="uint8",
        generator=torch.Generator().manual_seed(3),
        **options,
    )


def mnemonics_everything(**options: Any) -> Any:
    """Another objective, without transfer and tuning."""
    return mnemonics(
        optimization=quick(
            objective="ncm", optimizer="sgd", weight_decay=1e-3, augment_outer=True
        ),
        selection="herding",
        weight_transfer=False,
        finetuning_epochs=0,
        second_view=None,
        imprint=False,
        buffer_transform=None,
        **options,
    )


def mnemonics_bounded(**options: Any) -> Any:
    """The paper's loop over exemplars, its gradient cut short and recomputed."""
    return mnemonics(
        optimization=quick(
            mode="checkpoint",
            truncate=2,
            steps=None,
            epochs=1,
            decay_epochs=1,
            inner_steps=None,
            inner_epochs=4,
            inner_lr=0.3,
            inner_batch_size=6,
            parameters="all",
            adjust_old="simultaneous",
            chunk=5,
        ),
        **options,
    )


MNEMONICS = {
    "Mnemonics": mnemonics,
    "Mnemonics-icarl": mnemonics_icarl,
    "Mnemonics-everything": mnemonics_everything,
    "Mnemonics-bounded": mnemonics_bounded,
}
