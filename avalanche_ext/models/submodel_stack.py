"""The submodels of all experiences in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_ext.functional.functional_prior import MASKED
from avalanche_ext.models.feature_classifier import evaluating
from avalanche_ext.models.unit_layers import (
    Keep,
    along_units,
    off_units,
    require_keep,
    unit_axis,
    unit_counts,
)


class SubmodelStack(nn.Module):
    """All submodels of a shared network, whose batch is repeated for each of them.

    The same functions as one `Submodel` each, but for rounding, of the live network:
    nothing is copied. Each call is made in evaluation mode and puts the modes back.
    The network may carry hooks of others, such as those of relevance propagation, and
    gradients pass. Its layers are named ``network.<name>`` here.

    Args:
        model: The shared network; is not copied.
        keeps: One for each submodel, see `require_keep`.
        classes: Classes of each, in rising order, rows of the head.
        head: Name of the layer that gives the logits.
        sites: See `mask_sites`.

    Attributes:
        network: The model.
        classes, head, sites: As given.

    Raises:
        ValueError: If names, types or shapes do not fit the model, or there are not
            as many masks as class lists, at least one.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
        >>> keeps = [{"0": torch.tensor([True, True, False])}, {}]
        >>> sites = {"0": "0", "2": "2"}
        >>> stack = SubmodelStack(net, keeps, [(0, 1), (2, 3)], head="2", sites=sites)
        >>> (stack(torch.ones(1, 2)) == -1000).tolist()
        [[False, False, True, True], [True, True, False, False]]
    """

    def __init__(
        self,
        model: nn.Module,
        keeps: Sequence[Keep],
        classes: Sequence[Sequence[int]],
        *,
        head: str,
        sites: Mapping[str, str],
    ) -> None:
        if not keeps or len(keeps) != len(classes):
            raise ValueError(
                f"{len(keeps)} masks for {len(classes)} lists of classes; wanted as "
                "many, at least one"
            )
        for keep, own in zip(keeps, classes, strict=True):
            require_keep(keep, unit_counts(model, own, head=head, sites=sites))
        super().__init__()
        self.network, self.head, self.sites = model, head, dict(sites)
        self.classes = tuple(map(tuple, classes))
        offs = [
            off_units(model, keep, own, head=head)
            for keep, own in zip(keeps, classes, strict=True)
        ]
        self._off: dict[str, Tensor] = {}  # site -> (T, C), True: set to 0
        for name in dict.fromkeys(name for off in offs for name in off):
            whole = torch.zeros_like(next(off[name] for off in offs if name in off))
            masks = torch.stack([off.get(name, whole) for off in offs])
            if masks.any():
                self._off[sites[name]] = masks

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every submodel for the whole batch.

        Args:
            x: Inputs, first axis B.

        Returns:
            Shape ``(T * B, K)``, all of the first submodel, then all of the second;
            -1000 for classes that are not the submodel's own.
        """
        gradients = torch.is_grad_enabled()
        n = len(self.classes)
        with ExitStack() as stack:
            stack.enter_context(evaluating(self.network))
            stack.enter_context(torch.set_grad_enabled(gradients))
            for site, off in self._off.items():
                module = self.network.get_submodule(site)
                stack.enter_context(module.register_forward_hook(_masking(off)))
            logits: Tensor = self.network(x.repeat(n, *(1,) * (x.ndim - 1)))
        own = torch.zeros(n, logits.shape[1], dtype=torch.bool)
        for row, classes in zip(own, self.classes, strict=True):
            row[list(classes)] = True
        others = ~own.to(logits.device)[:, None]
        each = logits.reshape(n, len(x), logits.shape[1])
        return each.masked_fill(others, MASKED).flatten(0, 1)


def _masking(off: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        n = len(off)
        each = output.reshape(n, len(output) // n, *output.shape[1:])
        grown = output.shape[unit_axis(module)] - off.shape[1]  # of a growing head
        mask = nn.functional.pad(off, (0, grown)).to(output.device)
        mask = along_units(mask, module, output)
        return each.masked_fill(mask, 0).flatten(0, 1)

    return hook
