"""Diagonals of the Fisher information and of the Gauss-Newton matrix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

FisherKind = Literal["empirical", "ggn"]

_Named = dict[str, Tensor]


def diagonal_fisher(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    kind: FisherKind = "empirical",
    chunk: int = 32,
    arguments: tuple[Any, ...] = (),
) -> dict[str, Tensor]:
    r"""Sum over examples of squared gradients, each example by itself.

    .. math:: F_p = \sum_i \Big(\frac{\partial \ell(y_i, f_w(x_i))}{\partial w_p}\Big)^2,
        \qquad G_p = \sum_i \sum_c h_{ic} \Big(
        \frac{\partial \ell(c, f_w(x_i))}{\partial w_p}\Big)^2

    with :math:`\ell` the softmax cross-entropy and :math:`h = \mathrm{softmax}(f)`.
    :math:`G` is the diagonal of :math:`\sum_i J_i^T (\mathrm{diag}\,h_i - h_i h_i^T)
    J_i`. Results of disjoint sets of examples add up.

    Of a linear layer that sees one vector an example, :math:`\partial\ell/\partial W`
    is an outer product :math:`g a^T`, hence :math:`\sum_i (g_i^2)(a_i^2)^T`: no
    gradient of an example is ever made. All other parameters take ``chunk x P``
    numbers.

    Args:
        model: Maps ``(B, ...)`` to logits ``(B, K)``, each example by itself: in
            evaluation mode. It is left as found.
        inputs: Shape ``(N, ...)``.
        targets: Class ids, int64, shape ``(N,)``; of ``"ggn"`` unused.
        kind: ``"empirical"`` takes the labels there are, ``"ggn"`` the mean over the
            model's own.
        chunk: Examples at once, >= 1.
        arguments: Further arguments of the model, e.g. a task label.

    Returns:
        By name of each parameter that requires gradients, its sum, in its shape; 0
        for those that no logit depends on.

    Raises:
        ValueError: If inputs and targets differ in number, or ``chunk`` is below 1.

    Example:
        One example, two classes at probability 1/2 each:

        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> x, y = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
        >>> diagonal_fisher(model, x, y)["weight"]  # (h - onehot)^2 x^2
        tensor([[1., 0.],
                [1., 0.]])

    References:
        Daxberger et al., TMLR 2023; Kirkpatrick et al., PNAS 2017 (EWC).
    """
    if len(inputs) != len(targets):
        raise ValueError(
            f"{len(targets)} targets for {len(inputs)} inputs; wanted as many"
        )
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; wanted at least 1")
    engine = _SquaredGradients(model, arguments)
    if not len(inputs):
        return engine.zeros()
    total = engine.zeros()
    chunks = zip(torch.split(inputs, chunk), torch.split(targets, chunk), strict=True)
    with _attributes_kept(model):
        engine.take_outer_products(inputs[:1], targets[:1])
        for x, y in chunks:
            for labels, weights in engine.labels(x, y, kind):
                for name, squares in engine.sum_of_squares(x, labels, weights).items():
                    total[name] += squares
    return total


@contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """What modules note of a batch, as its features, would be torch.func's wrappers."""
    found = [(vars(module), dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for now, before in found:
            now.clear()
            now.update(before)


class _SquaredGradients:
    """Weighted sums of the squared per-example gradients of one model."""

    def __init__(self, model: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.model, self.arguments = model, arguments
        self.state = {n: p.detach() for n, p in model.named_parameters()}
        self.state |= {n: b.detach() for n, b in model.named_buffers()}
        self.direct = {
            n: p.detach() for n, p in model.named_parameters() if p.requires_grad
        }
        self.linear: dict[str, nn.Linear] = {}

    def zeros(self) -> _Named:
        named = self.model.named_parameters()
        return {n: torch.zeros_like(p) for n, p in named if p.requires_grad}

    def labels(
        self, x: Tensor, y: Tensor, kind: FisherKind
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Labels to take, each set with the weights of its examples."""
        if kind == "empirical":
            yield y, None
            return
        with torch.no_grad():
            probabilities = self.model(x, *self.arguments).softmax(1)
        for c, weights in enumerate(probabilities.unbind(1)):
            if bool(weights.any()):  # not for a masked unit
                yield torch.full_like(y, c), weights

    def take_outer_products(self, x: Tensor, y: Tensor) -> None:
        """Let the linear layers go by the product of squares for which it holds.

        It does not for a layer that is used twice, on a sequence, or whose weight is
        used without the layer: one call and one place are looked for, and one example
        is tried.
        """
        places = [p for _, p in self.model.named_parameters(remove_duplicate=False)]
        once = {
            n
            for n, p in self.model.named_parameters()
            if sum(p is q for q in places) == 1
        }
        layers = {
            name: layer
            for name, layer in self.model.named_modules()
            if type(layer) is nn.Linear
            and all(n in once & self.direct.keys() for n in _names(name, layer))
        }
        signals = _signals(layers)
        (whole, g), a = grad(self._loss, argnums=(0, 1), has_aux=True)(
            self.direct, signals, x[0], y[0]
        )
        for name, layer in layers.items():
            if len(a[name]) == 1 and a[name][0].shape == (layer.in_features,):
                outer = [torch.outer(g[name], a[name][0]), g[name]]
                pairs = zip(_names(name, layer), outer, strict=False)
                if all(torch.allclose(whole[n], o, 1e-3, 1e-6) for n, o in pairs):
                    self.linear[name] = layer
        of_linear = {
            n for name, layer in self.linear.items() for n in _names(name, layer)
        }
        self.direct = {n: p for n, p in self.direct.items() if n not in of_linear}

    def sum_of_squares(self, x: Tensor, y: Tensor, weights: Tensor | None) -> _Named:
        """By parameter, for one label an example."""
        per_example = vmap(
            grad(self._loss, argnums=(0, 1), has_aux=True), in_dims=(None, None, 0, 0)
        )
        (direct, g), a = per_example(self.direct, _signals(self.linear), x, y)
        one = torch.ones(len(x), device=x.device) if weights is None else weights
        sums = {n: torch.tensordot(one.to(d), d.square(), 1) for n, d in direct.items()}
        for name, layer in self.linear.items():
            squares = g[name].square() * one.to(g[name])[:, None]
            both = squares.T @ a[name][0].square(), squares.sum(0)
            sums |= dict(zip(_names(name, layer), both, strict=False))
        return sums

    def _loss(
        self, direct: _Named, signals: _Named, x: Tensor, y: Tensor
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Loss of one example, and what each layer that gets a signal was given."""
        given: dict[str, list[Tensor]] = {name: [] for name in signals}

        def add(name: str) -> Any:
            def hook(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
                given[name].append(args[0].squeeze(0))
                return output + signals[name]

            return hook

        modules = dict(self.model.named_modules())
        handles = [modules[n].register_forward_hook(add(n)) for n in signals]
        try:
            state, arguments = {**self.state, **direct}, (x[None], *self.arguments)
            logits = functional_call(self.model, state, arguments)
        finally:
            for handle in handles:
                handle.remove()
        return cross_entropy(logits, y[None]), given


def _signals(layers: dict[str, nn.Linear]) -> _Named:
    """Zeros to add to the outputs: their gradient is that of the outputs."""
    return {n: m.weight.detach().new_zeros(m.out_features) for n, m in layers.items()}


def _names(name: str, layer: nn.Linear) -> list[str]:
    """Names of a layer's parameters, the weight first."""
    prefix = f"{name}." if name else ""
    return [f"{prefix}weight", *([f"{prefix}bias"] if layer.bias is not None else [])]
