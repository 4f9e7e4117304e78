"""Some parameters of a model as one vector, for priors and importances."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from avalanche_ext.models.linear_head import linear_head_name

#: Classes of normalisation layers, of any library: BatchRenorm2D, RMSNorm, ...
_NORM = re.compile("(batch|layer|group|instance|rms)_?(re)?norm", re.IGNORECASE)


def shared_parameters(
    model: nn.Module, exclude: Sequence[str] | None = None
) -> dict[str, nn.Parameter]:
    """Parameters outside of normalisation layers and head, frozen ones included.

    Args:
        model: Any model.
        exclude: Dotted names of modules and parameters to leave out, with all below
            them. None: the last linear layer, see `linear_head_name`.

    Returns:
        By name.

    Raises:
        ValueError: If a name is not found, or nothing is left.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3))
        >>> list(shared_parameters(net))
        ['0.weight', '0.bias']
    """
    if exclude is None:
        exclude = [linear_head_name(model)]
    modules, named = dict(model.named_modules()), dict(model.named_parameters())
    left_out: set[int] = set()
    for name in exclude:
        if name in named:
            left_out.add(id(named[name]))
        elif name in modules:
            left_out |= {id(p) for p in modules[name].parameters()}
        else:
            raise ValueError(
                f"{name!r} is to be excluded; wanted the name of a module or parameter "
                f"of {type(model).__name__}, such as {list(named)[-1:]}"
            )
    for module in modules.values():
        if any(_NORM.search(kind.__name__) for kind in type(module).__mro__):
            left_out |= {id(p) for p in module.parameters(recurse=False)}
    kept = {n: p for n, p in named.items() if id(p) not in left_out}
    if not kept:
        raise ValueError(
            f"no parameter of {type(model).__name__} is left outside of normalisation "
            f"layers and {', '.join(map(repr, exclude))}; wanted at least one"
        )
    return kept


class FlatWeights:
    """Parameters as one vector of P numbers, float32 at least.

    Args:
        parameters: By name; may be none.

    Example:
        >>> flat = FlatWeights(dict(nn.Linear(2, 3).named_parameters()))
        >>> flat.weights().shape, flat.by_name(torch.zeros(9))["bias"]
        (torch.Size([9]), tensor([0., 0., 0.]))
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.parameters = dict(parameters)

    def weights(self) -> Tensor:
        """The weights, a copy that gradients go through.

        Returns:
            Shape ``(P,)``.
        """
        return _joined(list(self.parameters.values()))

    def gradients(self) -> Tensor:
        """Their gradients, a copy; 0 for those that have none.

        Returns:
            Shape ``(P,)``.
        """
        every = self.parameters.values()
        return _joined(
            [torch.zeros_like(p) if p.grad is None else p.grad for p in every]
        )

    def set_gradients(self, vector: Tensor) -> None:
        """Overwrite the gradients of those that have one.

        Args:
            vector: Shape ``(P,)``.
        """
        pairs = [
            (p.grad, new)
            for p, new in zip(
                self.parameters.values(), self._parts(vector), strict=True
            )
            if p.grad is not None
        ]
        if pairs:
            old, parts = map(list, zip(*pairs, strict=True))
            torch._foreach_copy_(old, parts)

    def by_name(self, vector: Tensor) -> dict[str, Tensor]:
        """Pieces of a vector, in the shapes of the parameters.

        Args:
            vector: Shape ``(P,)``.

        Returns:
            Views by name.
        """
        return dict(zip(self.parameters, self._parts(vector), strict=True))

    def vector(self, named: Mapping[str, Tensor]) -> Tensor:
        """A vector from pieces; 0 where there is none, or a parameter has grown.

        Args:
            named: By name, in the parameter's shape, or that which it had before.

        Returns:
            Shape ``(P,)``.

        Raises:
            ValueError: If a parameter is smaller than the piece.
        """
        full = torch.zeros_like(self.weights(), requires_grad=False)
        for name, part in self.by_name(full).items():
            if name in named:
                leading_part(part, named[name].shape, name).copy_(named[name])
        return full

    def _parts(self, vector: Tensor) -> list[Tensor]:
        shapes = [p.shape for p in self.parameters.values()]
        parts = torch.split(vector, [s.numel() for s in shapes])
        return [part.view(s) for part, s in zip(parts, shapes, strict=True)]


def leading_part(tensor: Tensor, shape: torch.Size, name: str) -> Tensor:
    """The part of a parameter that was there when it had that shape.

    Args:
        tensor: The parameter, or what has its shape.
        shape: The shape it had.
        name: For the message.

    Returns:
        A view.

    Raises:
        ValueError: If it was larger, or had other axes.

    Example:
        >>> leading_part(torch.arange(4), torch.Size([2]), "bias")
        tensor([0, 1])
    """
    if tensor.shape == shape:  # of hundreds of parameters, nearly all
        return tensor
    larger = any(old > new for old, new in zip(shape, tensor.shape, strict=False))
    if len(shape) != tensor.ndim or larger:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}; wanted one that grew from "
            f"{tuple(shape)}"
        )
    return tensor[tuple(map(slice, shape))]


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    if not tensors:
        return torch.zeros(0)
    flat = torch.cat([t.reshape(-1) for t in tensors])
    return flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat
