"""Diagonals of the Fisher information and of the Gauss-Newton matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy, pad

from avalanche_ext._checks import require_choice, require_whole

FisherKind = Literal["empirical", "ggn"]

_Named = dict[str, Tensor]
_Layer = nn.Linear | nn.Conv2d


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
    numbers; of plain 2-d convolutions they are products of patches and gradients.

    Args:
        model: Maps ``(B, ...)`` to logits ``(B, K)``, each example by itself: in
            evaluation mode. It is left as found.
        inputs: Shape ``(N, ...)``.
        targets: Class ids, int64, shape ``(N,)``; of ``"ggn"`` unused.
        kind: ``"empirical"`` takes the labels there are, ``"ggn"`` the mean over the
            model's own.
        chunk: Examples at once, >= 1.
        arguments: Further arguments of the model, the same for every example, e.g.
            the task label of all of them.

    Returns:
        By name of each parameter that requires gradients, its sum, in its shape; 0
        for those that no logit depends on.

    Raises:
        ValueError: If inputs and targets differ in number, or an argument is out of
            its range.

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
    require_choice(("empirical", "ggn"), kind=kind)
    require_whole(1, chunk=chunk)
    engine = _SquaredGradients(model, arguments)
    if not len(inputs):
        return engine.zeros()
    total = engine.zeros()
    chunks = zip(torch.split(inputs, chunk), torch.split(targets, chunk), strict=True)
    with _attributes_kept(model):
        engine.take_shortcuts(inputs[:1], targets[:1])
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
        self.layers: dict[str, _Layer] = {}
        self.signals: _Named = {}

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

    def take_shortcuts(self, x: Tensor, y: Tensor) -> None:
        """Let those layers go by inputs and output gradients for which it is right.

        It is not for a layer that is used twice, on a sequence, or whose weight is
        used without the layer: one call and one place are looked for, and one example
        is tried.
        """
        self._forget_unused(x)
        layers = self._candidates()
        shapes = self._output_shapes(layers, x)
        layers = {n: m for n, m in layers.items() if n in shapes}
        self.signals = {n: m.weight.new_zeros(shapes[n]) for n, m in layers.items()}
        (whole, g), a = grad(self._loss, argnums=(0, 1), has_aux=True)(
            self.direct, self.signals, x[0], y[0]
        )
        for name, layer in layers.items():
            ours = _layer_gradients(layer, a[name][0][None], g[name][None])
            pairs = list(zip(_names(name, layer), ours, strict=False))
            if all(torch.allclose(whole[n], o[0], 1e-3, 1e-6) for n, o in pairs):
                self.layers[name] = layer
                for n, _ in pairs:
                    del self.direct[n]
        self.signals = {n: self.signals[n] for n in self.layers}

    def _forget_unused(self, x: Tensor) -> None:
        """Leave out parameters that no logit depends on, as heads of other tasks."""
        with torch.enable_grad():
            logits = self.model(x, *self.arguments)
        if not logits.requires_grad:
            return
        named = {n: p for n, p in self.model.named_parameters() if n in self.direct}
        found = torch.autograd.grad(
            logits.sum(), list(named.values()), allow_unused=True
        )
        for name, gradient in zip(named, found, strict=True):
            if gradient is None:
                del self.direct[name], self.state[name]

    def sum_of_squares(self, x: Tensor, y: Tensor, weights: Tensor | None) -> _Named:
        """By parameter, for one label an example."""
        per_example = vmap(
            grad(self._loss, argnums=(0, 1), has_aux=True), in_dims=(None, None, 0, 0)
        )
        (direct, g), a = per_example(self.direct, self.signals, x, y)
        one = torch.ones(len(x), device=x.device) if weights is None else weights
        sums = {n: torch.tensordot(one.to(d), d.square(), 1) for n, d in direct.items()}
        for name, layer in self.layers.items():
            both = _layer_squares(layer, a[name][0], g[name], one.to(g[name]))
            sums |= dict(zip(_names(name, layer), both, strict=False))
        return sums

    def _candidates(self) -> dict[str, _Layer]:
        """Layers whose parameters are trained and stand in one place."""
        every = self.model.named_parameters(remove_duplicate=False)
        places = Counter(id(p) for _, p in every)
        once = {n for n, p in self.model.named_parameters() if places[id(p)] == 1}
        return {
            name: layer
            for name, layer in self.model.named_modules()
            if (type(layer) is nn.Linear or _is_plain_convolution(layer))
            and all(n in once & self.direct.keys() for n in _names(name, layer))
        }

    def _output_shapes(self, layers: dict[str, _Layer], x: Tensor) -> dict[str, Any]:
        """Of one example, for layers that get one input of the usual rank."""
        seen: dict[str, list[Any]] = {name: [] for name in layers}

        def note(name: str, rank: int) -> Any:
            def hook(layer: nn.Module, args: Any, output: Tensor) -> None:
                usual = args[0].ndim == rank and len(args[0]) == 1
                seen[name].append(output.shape[1:] if usual else None)

            return hook

        handles = [
            layer.register_forward_hook(note(n, 2 if type(layer) is nn.Linear else 4))
            for n, layer in layers.items()
        ]
        try:
            with torch.no_grad():
                self.model(x, *self.arguments)
        finally:
            for handle in handles:
                handle.remove()
        return {n: s[0] for n, s in seen.items() if len(s) == 1 and s[0] is not None}

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


def _is_plain_convolution(layer: nn.Module) -> bool:
    return (
        type(layer) is nn.Conv2d
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _layer_gradients(layer: _Layer, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Per-example gradients of weight and bias, from inputs and output gradients."""
    if isinstance(layer, nn.Linear):
        return g[:, :, None] * a[:, None, :], g
    height, width = (int(side) for side in layer.padding)  # "same" is not plain
    patches = pad(a, (width, width, height, height))
    for axis, (size, step) in enumerate(
        zip(layer.kernel_size, layer.stride, strict=True)
    ):
        patches = patches.unfold(2 + axis, size, step)
    # (B, C, H', W', h, w): copying rows of W' is faster than torch's unfold
    patches = patches.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)
    g = g.flatten(2)
    weight = torch.bmm(g, patches.transpose(1, 2))
    return weight.view(-1, *layer.weight.shape), g.sum(2)


def _layer_squares(
    layer: _Layer, a: Tensor, g: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Their weighted sums of squares."""
    if isinstance(layer, nn.Linear):
        squares = g.square() * weights[:, None]
        return squares.T @ a.square(), squares.sum(0)
    weight, bias = _layer_gradients(layer, a, g)
    # in place: gradients of examples are in memory once
    squares, of_bias = (
        torch.tensordot(weights, d.square_(), 1) for d in (weight, bias)
    )
    return squares, of_bias


def _names(name: str, layer: _Layer) -> list[str]:
    """Names of a layer's parameters, the weight first."""
    prefix = f"{name}." if name else ""
    return [f"{prefix}weight", *([f"{prefix}bias"] if layer.bias is not None else [])]
