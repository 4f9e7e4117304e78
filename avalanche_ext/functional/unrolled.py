"""Gradient of a loss after an inner training loop, in the data of that loop."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from avalanche_ext._checks import require_choice, require_kind, require_whole
from avalanche_ext.functional.inner_loop import (
    InnerLoop,
    explained,
    features_of,
    pulled_back,
)
from avalanche_ext.functional.undisturbed import own, undisturbed, unwrapped
from avalanche_ext.functional.unrolled_arguments import (
    InnerParameters,
    check_batch_statistics,
    check_batches,
    check_examples,
    feature_parts,
    free_steps,
    inner_names,
    inner_rates,
    inner_rows,
)

HypergradientMode = Literal["reverse", "unrolled", "checkpoint"]
BatchNormStatistics = Literal["eval", "batch"]


class Hypergradient(NamedTuple):
    r"""What `hypergradient` returns.

    Attributes:
        outer_loss: :math:`L_{out}(\Theta_S)`, at the end of the inner loop; a scalar.
        gradient: Its gradient in the exemplars, in their shape.
        inner_losses: Loss on the exemplars before each step, ``(S,)``.
        parameters: :math:`\Theta_S`, those that took part, by name, detached.
    """

    outer_loss: Tensor
    gradient: Tensor
    inner_losses: Tensor
    parameters: dict[str, Tensor]


def hypergradient(
    model: nn.Module,
    exemplars: Tensor,
    targets: Tensor,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    inner_lr: float | Sequence[float],
    inner_steps: int,
    rows: Sequence[Tensor] | None = None,
    mode: HypergradientMode = "reverse",
    truncate: int | None = None,
    parameters: InnerParameters = "trainable",
    batchnorm: BatchNormStatistics = "eval",
    chunk: int | None = 32,
) -> Hypergradient:
    r"""Differentiate the loss on data after training on exemplars, in the exemplars.

    .. math:: \Theta_{s+1} = \Theta_s - \alpha_s \nabla_\Theta L_c(\Theta_s; E), \qquad
        \nabla_E \, L_c(\Theta_S(E); D)

    :math:`L_c` is the mean cross-entropy over all logits. The gradient goes through
    all S steps. The model, its ``.grad``, modes and buffers, and the random state stay
    as they are; it works under ``no_grad`` and ``inference_mode`` as well. Dropout
    rests. Wrappers (``torch.compile``, data parallelism) are left aside.

    Where an activation has a kink, as ReLU, the gradient jumps with its sign, which
    rounding may turn: deep networks in float32 then give visibly different gradients
    for another mode, chunk or device. In float64, or without kinks, they agree.

    Args:
        model: Maps inputs to logits ``(B, K)``. :math:`\Theta_0` are its parameters.
        exemplars: :math:`E`, floating, ``(M, ...)``, in the space of model inputs.
        targets: Class ids of the exemplars, int64, ``(M,)``.
        batches: :math:`D`: pairs of inputs ``(B, ...)`` and class ids ``(B,)``; each
            sample of all of them has the same weight.
        inner_lr: :math:`\alpha \ge 0`, of all steps or one a step.
        inner_steps: S >= 0; with 0 the gradient is 0, with a warning.
        rows: Row numbers of the exemplars each step sees, S int64 tensors; by default
            all.
        mode: How, not what: ``"reverse"`` stores the parameters of each step and goes
            back by hand, with the graph of one chunk at a time; ``"unrolled"`` holds
            one graph of everything; ``"checkpoint"`` recomputes each step of it.
        truncate: Only the last of the steps, 1 to S of them, see the exemplars as
            variable; by default all.
        parameters: What the inner loop trains: the parameters that require gradients,
            all of them, all of ``model.train_classifier`` (``"head"``: features are
            computed once, which is much cheaper), or those of the given names.
        batchnorm: ``"eval"``: with the running statistics; ``"batch"``: with those of
            each batch, the running ones stay. Then ``chunk`` must be None.
        chunk: Examples at once in the ``"reverse"`` mode (and for features), of
            exemplars and data; None for all. It bounds the memory, nothing else.

    Returns:
        The loss, its gradient, and how the inner loop went.

    Raises:
        ValueError: If an argument is out of its range or does not fit the others.
        RuntimeError: If an operation of the model cannot be differentiated twice.

    Example:
        From :math:`W = 0` one step on the exemplar e = 1 leads to
        :math:`(e/2, -e/2)`, where the loss of x = 1 is :math:`\ln(1 + e^{-e})`:

        >>> import torch
        >>> model = nn.Linear(1, 2, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> one, label = torch.ones(1, 1), torch.tensor([0])
        >>> found = hypergradient(
        ...     model, one, label, [(one, label)], inner_lr=1.0, inner_steps=1
        ... )
        >>> found.outer_loss, found.gradient
        (tensor(0.3133), tensor([[-0.2689]]))

    References:
        Liu et al., CVPR 2020 (Mnemonics Training), Eq. 8-10; Maclaurin et al., ICML
        2015.
    """
    require_kind(nn.Module, model=model)
    require_whole(0, inner_steps=inner_steps)
    require_choice(("reverse", "unrolled", "checkpoint"), mode=mode)
    require_choice(("eval", "batch"), batchnorm=batchnorm)
    if chunk is not None:
        require_whole(1, chunk=chunk)
    check_examples("exemplars", exemplars, "targets", targets)
    check_batches(batches)
    rates = inner_rates(inner_lr, inner_steps)
    seen = inner_rows(rows, inner_steps, exemplars)
    free = free_steps(truncate, inner_steps)
    model = unwrapped(model)
    by_batch = batchnorm == "batch"
    if by_batch:
        check_batch_statistics(model, chunk, [*seen, *(y for _, y in batches)])
    names = inner_names(model, parameters)
    if inner_steps == 0:
        warnings.warn("inner_steps is 0: the gradient is 0", stacklevel=2)

    def loop(network: nn.Module, of: list[str], e: Tensor, data: list[Any]) -> Any:
        each = [own(step) for step in seen]
        steps = InnerLoop(network, of, own(targets), rates, each, free)
        if mode == "reverse":
            return steps.reverse(e, data, chunk)
        return steps.unrolled(e, data, checkpointed=mode == "checkpoint")

    with undisturbed(model, exemplars.device, batch_statistics=by_batch), explained():
        e, n = own(exemplars), sum(len(y) for _, y in batches)
        data = [(own(x), own(y), n) for x, y in batches]
        if parameters == "head" and not by_batch:
            extractor, head = feature_parts(model)
            data = [(features_of(extractor, x, chunk), y, n) for x, y, n in data]
            of = [name.removeprefix("train_classifier.") for name in names]
            found = loop(head, of, features_of(extractor, e, chunk), data)
            gradient = pulled_back(extractor, e, found.gradient, chunk)
            found = found._replace(gradient=gradient)
        else:
            found = loop(model, names, e, data)
    trained = dict(zip(names, found.parameters, strict=True))
    return Hypergradient(found.outer_loss, found.gradient, found.inner_losses, trained)
