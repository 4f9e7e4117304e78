"""Which rule each layer follows, by the names of the published code."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from zennit.composites import SpecialFirstLayerMapComposite, layer_map_base
from zennit.core import BasicHook, Composite
from zennit.rules import AlphaBeta, Epsilon, Flat, ZPlus
from zennit.types import BatchNorm, Convolution, Linear

from avalanche_ext._checks import require_choice

CompositeName = Literal[
    "epsilon_plus_flat",
    "epsilon_plus",
    "epsilon_alpha2_beta1_flat",
    "epsilon_alpha2_beta1",
    "epsilon_flat",
    "epsilon",
    "zplus_flat",
    "zplus",
]


def named_composite(name: CompositeName, *, stabilizer: float = 1e-6) -> Composite:
    """Rules of all layers.

    Args:
        name: What convolutions and linear layers follow. ``"epsilon_plus"``: z+ and
            epsilon; ``"epsilon_alpha2_beta1"``: alpha-beta and epsilon;
            ``"epsilon"`` and ``"zplus"``: that one for both, and as published none
            for pooling, sums and activations. ``"_flat"``: the first layer spreads its
            relevance evenly, which only a heatmap shows.
        stabilizer: Added to the size of each denominator, > 0.

    Returns:
        A zennit composite, to be used for one model at a time.

    Raises:
        ValueError: If there is no such name.
    """
    require_choice(get_args(CompositeName), composite=name)
    epsilon, kind = _Epsilon(stabilizer), name.removesuffix("_flat")
    layers: list[tuple[Any, BasicHook | None]]
    if kind == "epsilon":
        layers = [(Linear, epsilon)]
    elif kind == "zplus":
        layers = [(Linear, _ZPlus(stabilizer))]
    else:
        plus = kind == "epsilon_plus"
        rule = _ZPlus(stabilizer) if plus else _AlphaBeta(2, 1, stabilizer)
        # what a ReLU or a merged norm passes on is its gradient: units that are off
        # have no relevance. Hooks would copy each map
        base = [p for p in layer_map_base(stabilizer) if p[0] is not BatchNorm]
        layers = [(Convolution, rule), (nn.Linear, epsilon), (nn.ReLU, None), *base]
    first = [(Linear, Flat(stabilizer))] if name.endswith("_flat") else []
    return SpecialFirstLayerMapComposite(layers, first)


class _Direct(BasicHook):
    """A rule whose layer stays out of the graph.

    Hooks of a graph would let autograd work out the layer's own gradient first, a
    convolution for nothing.
    """

    def pre_forward(self, module: nn.Module, args: Any) -> Tensor:
        """Run the layer on a constant."""
        self._above = args[0]
        return args[0].detach()  # type: ignore[no-any-return]

    def post_forward(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Join input and output by the rule."""
        above = self._above
        del self._above
        if not above.requires_grad:
            return output
        return _Rule.apply(output, above, self, module)  # type: ignore[no-any-return]


class _Rule(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, output: Tensor, above: Tensor, hook: BasicHook, module: nn.Module
    ) -> Tensor:
        ctx.hook, ctx.module = hook, module
        ctx.mark_dirty(output)  # hands on the very tensor
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.hook.stored_tensors["input"]
        return None, *ctx.hook.backward(ctx.module, inputs, grads), None, None


class _HalfIfPositive(_Direct):
    """A rule of pairs of terms, the second of each pair for negative inputs.

    Behind a ReLU these second terms are exactly 0: leaving them out spares half of the
    convolutions.
    """

    def backward(
        self, module: nn.Module, grad_input: Any, grad_output: Any
    ) -> tuple[Tensor | None, ...]:
        """Relevance of the layer's input."""
        if (self.stored_tensors["input"][0] < 0).any():
            return super().backward(module, grad_input, grad_output)  # type: ignore[no-any-return]
        half = BasicHook(
            self.input_modifiers[::2],
            self.param_modifiers[::2],
            self.output_modifiers[::2],
            lambda grad, outputs: self.gradient_mapper(grad, _paired(outputs))[::2],
            lambda inputs, grads: self.reducer(_paired(inputs), _paired(grads)),
        )
        half.stored_tensors = self.stored_tensors
        return half.backward(module, grad_input, grad_output)  # type: ignore[no-any-return]


class _Epsilon(_Direct, Epsilon):
    pass


class _ZPlus(_HalfIfPositive, ZPlus):
    pass


class _AlphaBeta(_HalfIfPositive, AlphaBeta):
    pass


def _paired(first: Any) -> list[Any]:
    """Each followed by a 0."""
    return [value for each in first for value in (each, 0)]
