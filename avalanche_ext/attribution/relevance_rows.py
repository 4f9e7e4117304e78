"""One row of unit relevances for each sample and submodel."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from avalanche_ext.attribution.canonizers import norm_pairs
from avalanche_ext.attribution.lrp import LRP
from avalanche_ext.models.submodel import Submodel
from avalanche_ext.models.submodel_stack import SubmodelStack

Network = Sequence[Submodel] | SubmodelStack


def relevance_rows(
    lrp: LRP, submodels: Network, x: Tensor, layers: Sequence[str] | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Logits of each submodel, and the relevances behind the class it predicts.

    Args:
        lrp: How relevance is computed.
        submodels: Networks of T experiences, or all of them as one: then in one pass.
        x: Samples, ``(B, ...)``.
        layers: Names of the layers that count, at least one; None: all.

    Returns:
        For each submodel its logits ``(B, n)`` and rows ``(B, F)``: normalised
        relevances of its units, layers in the order of their names, each with units of
        its own, of the head those of its classes. Pruned units have exactly 0, but
        for one case: by ``"epsilon"`` and ``"zplus"``, which have no rule for ``a + b``,
        networks given one by one have some at the end of a branch, as published.

    Raises:
        ValueError: If there is no layer of a name, or a stack masks units in front of
            their batch normalisation, which relevance merges into the layer: the
            constant it makes of a masked unit would be lost.
    """
    if layers is not None and not layers:
        raise ValueError("layers are none; wanted at least one, or None for all")
    if not isinstance(submodels, SubmodelStack):
        found = [lrp(own.network, x) for own in submodels]
        return [(each.logits, _joined(each.units, layers)) for each in found]
    _require_masked_norms(lrp, submodels)
    both = lrp(submodels, x)
    n = len(submodels.classes)
    logits = both.logits.chunk(n)
    units = {_inner(name): r.chunk(n) for name, r in both.units.items()}
    rows = []
    for m, classes in enumerate(submodels.classes):
        own = {name: r[m] for name, r in units.items()}
        own[submodels.head] = own[submodels.head][:, list(classes)]
        rows.append((logits[m][:, list(classes)], _joined(own, layers)))
    return rows


def _require_masked_norms(lrp: LRP, stack: SubmodelStack) -> None:
    if lrp.canonizers or getattr(lrp.composite, "canonizers", None):
        return  # norms are theirs to merge
    names = {module: name for name, module in stack.network.named_modules()}
    for layer, norm in norm_pairs(stack.network):
        if stack.sites[names[layer]] == names[layer]:
            raise ValueError(
                f"the stack masks units of {names[layer]!r} in front of the norm "
                f"{names[norm]!r}; wanted that behind it (mask_batchnorm=True), or "
                "each submodel for itself"
            )


def _inner(name: str) -> str:
    """Name of a layer of the stack as the model has it."""
    return name.partition(".")[2]


def _joined(units: Mapping[str, Tensor], layers: Sequence[str] | None) -> Tensor:
    """All relevances of a sample in one row."""
    for name in () if layers is None else layers:
        if name not in units:
            near = difflib.get_close_matches(name, units, n=5, cutoff=0)
            raise ValueError(
                f"layers have {name!r}; wanted names of convolutions and linear layers, "
                f"such as {', '.join(map(repr, near))}"
            )
    return torch.cat(
        [units[name] for name in sorted(units if layers is None else layers)], 1
    )
