"""Plain gradient descent on exemplars, and its derivative in the exemplars."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from avalanche_ext.functional.undisturbed import own

#: Inputs, targets, and the number of examples their sum of losses is divided by.
_Part = tuple[Tensor, Tensor, int]
_Tensors = list[Tensor] | tuple[Tensor, ...]


class Derivative(NamedTuple):
    """What `InnerLoop` gives back; as `Hypergradient`, the parameters by position."""

    outer_loss: Tensor
    gradient: Tensor
    inner_losses: Tensor
    parameters: _Tensors


def constants(model: nn.Module) -> dict[str, Tensor]:
    """All parameters, detached, and copies of the buffers, which a pass may change."""
    state = {name: own(p) for name, p in model.named_parameters()}
    return state | {name: b.detach().clone() for name, b in model.named_buffers()}


class InnerLoop:
    r"""S steps :math:`\Theta \leftarrow \Theta - \alpha_s \nabla L(\Theta; E)`.

    Args:
        model: Maps inputs to logits; in the mode it is to be used in.
        names: Parameters that take part.
        targets: Class ids of the exemplars, ``(M,)``.
        rates: :math:`\alpha_s`, one a step.
        rows: Exemplars each step sees, one int64 tensor a step.
        free: Number of last steps in which the exemplars count as variable.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Collection[str],
        targets: Tensor,
        rates: Sequence[float],
        rows: Sequence[Tensor],
        free: int,
    ) -> None:
        self.model, self.names, self.targets = model, list(names), targets
        self.rates, self.rows = rates, rows
        self.first = len(rates) - free
        self.checked = False
        self.constants = constants(model)
        self.start = [self.constants.pop(n).requires_grad_() for n in self.names]

    def reverse(
        self, exemplars: Tensor, batches: Sequence[_Part], chunk: int | None
    ) -> Derivative:
        r"""By the recursion from the last step to the first, with stored parameters.

        .. math:: v_S = \nabla L_{out}, \quad \nabla_E \mathrel{-}= \alpha_s
            \Big[\frac{\partial^2 L_s}{\partial E \, \partial \Theta}\Big]^T v_{s+1},
            \quad v_s = v_{s+1} - \alpha_s \nabla^2_\Theta L_s \, v_{s+1}
        """
        theta: _Tensors = self.start
        path: list[_Tensors] = []
        losses: list[Tensor] = []
        for step in range(len(self.rates)):
            if step >= self.first:
                path.append(theta)
            loss, slope = self._slope(theta, self._inner(exemplars, step, chunk))
            theta = self._descended(theta, slope, step)
            losses.append(loss)
        v: _Tensors
        outer, v = self._slope(theta, _split(batches, chunk))
        gradient = torch.zeros_like(exemplars)
        for step in reversed(range(self.first, len(self.rates))):
            before, curved = path.pop(), [torch.zeros_like(each) for each in v]
            # v ends where the exemplars are constant
            wanted = list(before) if step > self.first else []
            for rows in _rows(self.rows[step], chunk):
                e = exemplars.index_select(0, rows).requires_grad_()
                part = (e, self.targets[rows], len(self.rows[step]))
                curve = self._curved_slope(self._loss(before, *part), before)
                mixed, *hessian = _gradients(curve, [e, *wanted], v)
                gradient.index_add_(0, rows, mixed, alpha=-self.rates[step])
                if hessian:
                    torch._foreach_add_(curved, hessian)
            v = torch._foreach_add(v, curved, alpha=-self.rates[step])
        return self._derivative(outer, gradient, losses, theta)

    def unrolled(
        self, exemplars: Tensor, batches: Sequence[_Part], checkpointed: bool
    ) -> Derivative:
        """By one graph through all steps; checkpointed, it holds one step at a time."""
        exemplars = exemplars.detach().requires_grad_()
        theta: _Tensors = self.start
        losses: list[Tensor] = []
        for step in range(len(self.rates)):
            if step < self.first:
                parts = self._inner(exemplars.detach(), step, None)
                loss, slope = self._slope(theta, parts)
                theta = self._descended(theta, slope, step)
            elif checkpointed:
                loss, *theta = checkpoint(
                    self._step,
                    *(step, exemplars, *theta),
                    use_reentrant=False,
                    preserve_rng_state=False,  # nothing is drawn
                )
            else:
                loss, *theta = self._step(step, exemplars, *theta)
            losses.append(loss.detach())
        outer = torch.stack([self._loss(theta, *part) for part in batches]).sum()
        (gradient,) = _gradients([outer], [exemplars])
        return self._derivative(outer, gradient, losses, theta)

    def _step(self, step: int, exemplars: Tensor, *theta: Tensor) -> list[Tensor]:
        """Loss before an inner step and parameters after it, with their graph."""
        (part,) = self._inner(exemplars, step, None)
        loss = self._loss(theta, *part)
        slope = self._curved_slope(loss, theta)
        return [loss, *torch._foreach_add(theta, slope, alpha=-self.rates[step])]

    def _curved_slope(self, loss: Tensor, theta: _Tensors) -> _Tensors:
        """Gradient in the parameters, with its graph."""
        slope = _gradients([loss], theta, graph=True)
        if not self.checked:
            _require_second_derivatives(slope)
            self.checked = True
        return slope

    def _descended(self, theta: _Tensors, slope: _Tensors, step: int) -> _Tensors:
        """Parameters after an inner step, without graph."""
        values = [each.detach() for each in theta]
        new = torch._foreach_add(values, slope, alpha=-self.rates[step])
        return [each.requires_grad_() for each in new]

    def _slope(
        self, theta: _Tensors, parts: Iterable[_Part]
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss over all parts and its gradient in the parameters, without graph."""
        losses, total = [], [torch.zeros_like(each) for each in theta]
        for part in parts:
            loss = self._loss(theta, *part)
            torch._foreach_add_(total, _gradients([loss], theta))
            losses.append(loss.detach())
        return torch.stack(losses).sum(), total

    def _loss(self, theta: _Tensors, x: Tensor, y: Tensor, n: int) -> Tensor:
        state = self.constants | dict(zip(self.names, theta, strict=True))
        return (
            cross_entropy(functional_call(self.model, state, x), y, reduction="sum") / n
        )

    def _inner(self, e: Tensor, step: int, chunk: int | None) -> Iterator[_Part]:
        """What an inner step sees."""
        for rows in _rows(self.rows[step], chunk):
            yield e.index_select(0, rows), self.targets[rows], len(self.rows[step])

    def _derivative(
        self, outer: Tensor, gradient: Tensor, losses: list[Tensor], theta: _Tensors
    ) -> Derivative:
        inner = torch.stack(losses) if losses else outer.new_empty(0)
        end = [each.detach() for each in theta]
        if not losses:  # still the model's own
            end = [each.clone() for each in end]
        return Derivative(outer.detach(), gradient, inner, end)


def pulled_back(
    extractor: nn.Module, inputs: Tensor, slopes: Tensor, chunk: int | None
) -> Tensor:
    r"""Gradient in the inputs from that in the features, :math:`J^T g`.

    Args:
        extractor: Maps inputs to features.
        inputs: ``(M, ...)``.
        slopes: Gradient in the features, ``(M, D)``.
        chunk: Inputs at once; None for all.

    Returns:
        Like the inputs.
    """
    state = constants(extractor)
    parts: list[Tensor] = []
    for rows in _rows(torch.arange(len(inputs), device=inputs.device), chunk):
        x = inputs.index_select(0, rows).requires_grad_()
        features = functional_call(extractor, state, x)
        parts += _gradients([features], [x], [slopes[rows]])
    return torch.cat(parts)


@torch.no_grad()
def features_of(extractor: nn.Module, x: Tensor, chunk: int | None) -> Tensor:
    """Features of inputs, without graph.

    Args:
        extractor: Maps inputs to features.
        x: ``(B, ...)``.
        chunk: Inputs at once; None for all.

    Returns:
        Shape ``(B, D)``.
    """
    state = constants(extractor)
    return torch.cat(
        [
            functional_call(extractor, state, part)
            for part in torch.split(x, chunk or len(x))
        ]
    )


@contextmanager
def explained() -> Iterator[None]:
    """Say which operation has no second derivative, and what to do."""
    try:
        yield
    except RuntimeError as error:
        missing = re.search(r"derivative for (\S+) is not implemented", str(error))
        if missing is None and "once_differentiable" not in str(error):
            raise
        operation = missing[1] if missing else "a function that is once_differentiable"
        raise RuntimeError(
            f"{operation} has no derivative, which the gradient of an inner loop "
            "through it needs: replace the layer that uses it, let the inner loop train "
            "the classifier only (parameters='head'), or take another objective"
        ) from error


def _require_second_derivatives(slope: _Tensors) -> None:
    """Refuse a graph that ends at a function that is once_differentiable.

    Its node would raise if it were reached. With named inputs autograd goes around it,
    and what runs through the function would be missing from the gradient.
    """
    nodes = [each.grad_fn for each in slope if each.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("a function in the model is once_differentiable")
        before = {n for n, _ in node.next_functions if n is not None} - seen
        seen |= before
        nodes += before


def _rows(rows: Tensor, chunk: int | None) -> list[Tensor]:
    return list(torch.split(rows, chunk or len(rows)))


def _split(batches: Sequence[_Part], chunk: int | None) -> Iterator[_Part]:
    for x, y, n in batches:
        size = chunk or len(x)
        for part, of_part in zip(
            torch.split(x, size), torch.split(y, size), strict=True
        ):
            yield part, of_part, n


def _gradients(
    outputs: _Tensors,
    inputs: _Tensors,
    weights: _Tensors | None = None,
    *,
    graph: bool = False,
) -> tuple[Tensor, ...]:
    """Gradients of the (weighted) outputs; 0 for inputs that none depends on."""
    used = [i for i, output in enumerate(outputs) if output.requires_grad]
    if not used:
        return tuple(torch.zeros_like(each) for each in inputs)
    return torch.autograd.grad(
        [outputs[i] for i in used],
        inputs,
        None if weights is None else [weights[i] for i in used],
        create_graph=graph,
        materialize_grads=True,
    )
