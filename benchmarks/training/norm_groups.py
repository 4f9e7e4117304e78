"""Weight decay for all but the normalisations.

Imports torch: recipes load it when a strategy is made.
"""

from __future__ import annotations

from typing import Any

from torch import nn

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def without_norm_decay(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters in groups for an optimizer.

    Args:
        model: The model.

    Returns:
        All others; then the normalisations', if there are any, with weight decay 0.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        >>> [(len(g["params"]), g.get("weight_decay")) for g in without_norm_decay(model)]
        [(2, None), (2, 0.0)]
    """
    norms = [m for m in model.modules() if isinstance(m, _NORMS)]
    spared = {id(p): p for norm in norms for p in norm.parameters()}
    others = [p for p in model.parameters() if id(p) not in spared]
    groups: list[dict[str, Any]] = [{"params": others}]
    if spared:
        groups.append({"params": list(spared.values()), "weight_decay": 0.0})
    return groups
