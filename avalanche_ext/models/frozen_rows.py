"""Rows of a model's weights that no training moves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class FrozenRows:
    """The values of some rows of parameters, to be put back after each step.

    Gradients of 0 alone do not hold a row: weight decay and old momenta move it.

    Args:
        model: Any model.
        rows: By the name of a layer, which rows of its weight and bias are frozen,
            bool ``(C,)``; or ``()``: all or none.
        resting: Modules to be kept in evaluation mode, such as normalisation.

    Example:
        >>> layer = nn.Sequential(nn.Linear(2, 2))
        >>> frozen = FrozenRows(layer, {"0": torch.tensor([True, False])})
        >>> before = layer[0].weight.detach().clone()
        >>> _ = layer[0].weight.data.add_(1.0)
        >>> frozen.write_back(layer)
        >>> torch.equal(layer[0].weight[0], before[0])
        True
    """

    def __init__(
        self,
        model: nn.Module,
        rows: Mapping[str, Tensor],
        resting: Iterable[nn.Module] = (),
    ) -> None:
        self._resting = list(resting)
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}
        for name, frozen in rows.items():
            layer = model.get_submodule(name)
            for key, parameter in layer.named_parameters(recurse=False):
                each = frozen.expand(parameter.shape[:1]).reshape(-1)
                index = each.nonzero().flatten().to(parameter.device)
                values = parameter.detach().index_select(0, index)
                self._kept[f"{name}.{key}".lstrip(".")] = index, values

    def hold_still(self) -> None:
        """Put the resting modules in evaluation mode, whatever was done to them."""
        for module in self._resting:
            module.training = False

    def release(self) -> None:
        """Put the resting modules in training mode."""
        for module in self._resting:
            module.training = True

    def zero_gradients(self, model: nn.Module) -> None:
        """Take the rows out of the gradients, so that clipping does not see them.

        Args:
            model: The same model; its parameters may have grown.
        """
        for name, (index, _) in self._kept.items():
            gradient = model.get_parameter(name).grad
            if gradient is not None:
                gradient.index_fill_(0, index, 0)

    @torch.no_grad()
    def write_back(self, model: nn.Module) -> None:
        """Give the rows their values back.

        Args:
            model: The same model; its parameters may have grown.
        """
        for name, (index, values) in self._kept.items():
            model.get_parameter(name).index_copy_(0, index, values)


@torch.no_grad()
def reinitialize_rows(
    layer: nn.Conv2d | nn.Linear, rows: Tensor, generator: torch.Generator | None = None
) -> None:
    """Draw rows of weight and bias as torch does for a new layer.

    Args:
        layer: Changed in place.
        rows: Which, bool ``(C,)``.
        generator: On the CPU; None for torch's default.
    """
    weight = torch.empty_like(layer.weight, device="cpu")
    nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)
    index = rows.nonzero().flatten().to(layer.weight.device)
    layer.weight[index] = weight.to(layer.weight.device)[index]
    if layer.bias is not None:
        bound = layer.weight[0].numel() ** -0.5
        bias = torch.empty_like(layer.bias, device="cpu")
        bias.uniform_(-bound, bound, generator=generator)
        layer.bias[index] = bias.to(layer.bias)[index]
