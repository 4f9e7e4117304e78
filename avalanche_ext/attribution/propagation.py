"""One forward pass and one backward pass of relevance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from zennit.canonizers import Canonizer
from zennit.core import Composite

from avalanche_ext.attribution.canonizers import merge_norms
from avalanche_ext.attribution.functional_rules import FunctionalRules
from avalanche_ext.attribution.restored import restored
from avalanche_ext.models.unit_layers import UnitLayer

#: From logits ``(B, K)`` to the relevance to start with.
Start = Callable[[Tensor], Tensor]


class Propagation(NamedTuple):
    """What a pass gives.

    Attributes:
        logits: ``(B, K)``.
        units: Relevance at the output of each layer, summed over space, ``(B, C_l)``,
            in the order in which the layers ran.
        first: Layers that no other one comes before; with a heatmap, none.
        heatmap: Relevance of the inputs, of their shape; None if not asked for.
        largest: Bytes of the largest output of a layer.
    """

    logits: Tensor
    units: dict[str, Tensor]
    first: list[str]
    heatmap: Tensor | None
    largest: int


def propagate(
    model: nn.Module,
    x: Tensor,
    start: Start,
    *,
    composite: Composite,
    canonizers: Sequence[Canonizer] | None = None,
    heatmap: bool = False,
) -> Propagation:
    """Relevance of all units and, if asked for, of the inputs.

    Args:
        model: Any model; found as it was.
        x: Inputs, first axis B.
        start: The relevance to start with.
        composite: Rules.
        canonizers: None: the composite's own or, without any, `merge_norms`.
        heatmap: Whether the relevance goes down to the inputs.

    Returns:
        The relevances.

    Raises:
        ValueError: If the model gives no logits ``(B, K)``, or they depend on no layer.
    """
    found: dict[str, Tensor] = {}
    leaves: dict[str, Tensor] = {}
    sizes: list[int] = []
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        _prepared(model, composite, canonizers),
    ):
        # a tensor of inference cannot be differentiated, nor one be changed in place
        x = x.detach().clone().requires_grad_(heatmap)
        names = {m: n for n, m in model.named_modules() if isinstance(m, UnitLayer)}
        for module, name in names.items():
            module.register_forward_hook(_watch(name, found, leaves, sizes))
        with FunctionalRules(composite) as rules:
            logits: Any = model(x)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            seen = getattr(logits, "shape", type(logits).__name__)
            raise ValueError(f"the model returned {seen}; wanted logits (B, K)")
        if not logits.requires_grad:
            raise ValueError(
                f"the logits of {type(model).__name__} depend on no layer; wanted "
                "Conv2d or Linear layers"
            )
        ends = [x] if heatmap else list(leaves.values())
        detached = logits.detach()
        try:
            below = torch.autograd.grad(
                logits, ends, start(detached), allow_unused=True
            )
        finally:
            rules.remove()
    inputs = below[0] if heatmap else None
    return Propagation(detached, found, list(leaves), inputs, max(sizes))


@contextmanager
def _prepared(
    model: nn.Module, composite: Composite, canonizers: Sequence[Canonizer] | None
) -> Iterator[None]:
    """Evaluation mode, no parameter with a gradient, norms merged, rules at work."""
    applied = []
    with restored(model):
        try:
            model.eval()
            if canonizers is None and not composite.canonizers:
                merge_norms(model)
            for canonizer in canonizers or ():
                applied += canonizer.apply(model)
            composite.register(model)
            for parameter in model.parameters():  # also new ones, of canonizers
                parameter.requires_grad_(False)
            yield
        finally:
            composite.remove()
            for instance in applied:
                instance.remove()


def _watch(
    name: str, found: dict[str, Tensor], leaves: dict[str, Tensor], sizes: list[int]
) -> Any:
    """A forward hook that notes the relevance of a layer's units."""

    def ended(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        sizes.append(output.nbytes)
        # where no logit depends on the layer, it stays at that
        found[name] = output.new_zeros(len(output), len(module.weight))
        if not output.requires_grad:
            # nothing below could want relevance: the pass ends here, and the rule of
            # the first layer is never worked out
            leaves[name] = output.detach().requires_grad_()
            output = leaves[name].clone()  # what follows may write into it
        # a hook on the tensor keeps to this version of it if a ReLU writes into it
        output.register_hook(  # type: ignore[no-untyped-call]
            lambda grad: found.__setitem__(name, _per_unit(module, grad.detach()))
        )
        return output

    return ended


def _per_unit(module: nn.Module, relevance: Tensor) -> Tensor:
    """Sum over space, ``(B, C)``; a linear layer has its units last."""
    if relevance.ndim == 2:
        return relevance
    if isinstance(module, nn.Linear):
        return relevance.flatten(1, -2).sum(1)
    return relevance.flatten(2).sum(2)
