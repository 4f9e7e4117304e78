"""Rows of a model's weights that no training moves."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from itertools import chain

import torch
from torch import Tensor, nn


class FrozenRows:
    """The values of some rows of parameters, to be put back after each step.

    Gradients of 0 alone do not hold a row: weight decay and old momenta move it.

    Args:
        model: Any model.
        rows: By the name of a module, which rows of its own parameters and buffers
            are frozen, bool ``(C,)``; or ``()``: all or none.
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
            parameters = layer.named_parameters(recurse=False)
            for key, tensor in chain(parameters, layer.named_buffers(recurse=False)):
                each = frozen.expand(tensor.shape[:1]).reshape(-1)
                index = each.nonzero().flatten().to(tensor.device)
                values = tensor.detach().index_select(0, index)
                self._kept[f"{name}.{key}".lstrip(".")] = index, values

    def hold_still(self) -> None:
        """Put the resting modules in evaluation mode, whatever was done to them."""
        for module in self._resting:
            module.training = False

    def zero_gradients(self, model: nn.Module) -> None:
        """Take the rows out of the gradients, so that clipping does not see them.

        Args:
            model: The same model; its parameters may have grown.
        """
        for name, (index, _) in self._kept.items():
            gradient = _tensor(model, name).grad
            if gradient is not None:
                gradient.index_fill_(0, index, 0)

    @torch.no_grad()
    def write_back(self, model: nn.Module) -> None:
        """Give the rows their values back.

        Args:
            model: The same model; its parameters may have grown.
        """
        for name, (index, values) in self._kept.items():
            _tensor(model, name).index_copy_(0, index, values)

    def release(self, model: nn.Module) -> None:
        """Put the resting modules in training mode; a last look at the rows.

        Rows that do not have their values get them back, with a warning.

        Args:
            model: The same model; its parameters may have grown.
        """
        for module in self._resting:
            module.training = True
        moved = [
            name
            for name, (index, values) in self._kept.items()
            if not torch.equal(_tensor(model, name).index_select(0, index), values)
        ]
        if moved:
            self.write_back(model)
            warnings.warn(
                f"something but the optimizer has changed frozen weights, {moved[0]} "
                f"and {len(moved) - 1} more; they are put back",
                stacklevel=3,
            )


def _tensor(model: nn.Module, name: str) -> Tensor:
    """A parameter or buffer."""
    owner, _, key = name.rpartition(".")
    return getattr(model.get_submodule(owner), key)  # type: ignore[no-any-return]


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
