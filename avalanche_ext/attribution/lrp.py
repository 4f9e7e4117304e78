"""Relevance of every unit of a network for single samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from zennit.canonizers import Canonizer
from zennit.core import Composite

from avalanche_ext._checks import require_choice
from avalanche_ext.attribution.propagation import propagate
from avalanche_ext.attribution.rules import CompositeName, named_composite
from avalanche_ext.attribution.support import (
    require_conservation,
    require_finite_logits,
    require_layers,
    require_merged_norms,
    require_same_logits,
)
from avalanche_ext.functional.relevance import normalised_relevance

# Samples of the first pass, and bytes that a layer's output should have in later ones:
# larger ones cost more time each on a CPU, where the allocator gives them back at once.
_FIRST_PASS = 16
_PASS_BYTES = {"cpu": 2**23, "cuda": 2**28}


class UnitRelevance(NamedTuple):
    r"""What a pass of `LRP` gives.

    Attributes:
        logits: Of the model in evaluation mode, ``(B, K)``; with batch normalisation,
            up to about 1e-4 of their size off, see `merge_norms`.
        units: :math:`\hat r` of each convolution and linear layer by its name, in the
            order in which they ran: ``(B, C_l)``, the absolute values of a row sum to 1
            (to 0 where a layer has no relevance).
        heatmap: Relevance of the inputs, of their shape, not normalised; None if not
            asked for.
    """

    logits: Tensor
    units: dict[str, Tensor]
    heatmap: Tensor | None


class LRP:
    r"""Layer-wise relevance propagation to the outputs of all layers.

    A logit is handed down from layer to layer, to each input in proportion to its
    contribution. With inputs a, weights W, outputs z and :math:`\epsilon = 10^{-6}`,
    by the default composite,

    .. math:: R_i = \sum_c \frac{a_i W_{ci} R_c}{z_c + \epsilon \,\mathrm{sign} z_c}
        \ \text{(linear)}, \qquad
        R_i = \sum_c \frac{(a_i^+ W_{ci}^+ + a_i^- W_{ci}^-) R_c}
        {\sum_j (a_j^+ W_{cj}^+ + a_j^- W_{cj}^-) + b_c^+ + \epsilon}
        \ \text{(convolution)}

    activations hand on what they get, average pooling and residual sums hand down in
    proportion to their inputs, max-pooling to the largest. Then, sample by sample,
    `normalised_relevance` of each layer.

    Norms are merged into the layers they follow (`BatchRenorm` as well), and sums
    ``a + b`` need no module: ResNets of torchvision, Avalanche and this package, VGGs
    and plain networks work as they are. Models may be in any mode and under
    `torch.no_grad`; each is found as it was, bit by bit, also after an error.

    Args:
        composite: Rules by name: z+ for convolutions and epsilon for linear layers
            (``"epsilon_plus"``), :math:`\alpha_2 \beta_1` in the place of z+
            (``"epsilon_alpha2_beta1"``), or the same for both and, as published, the
            gradient for pooling, sums and activations (``"epsilon"``, ``"zplus"``).
            ``"_flat"`` spreads the first layer's relevance evenly: of units nothing
            changes, of heatmaps all. Or a zennit composite, one model at a time.
        canonizers: zennit's, where models need others than chosen here: norms are then
            theirs to merge. None: those of a zennit composite, if it has any, or the
            choice here.
        start: ``"logit"``: with the logit, as published; where it is negative, all
            relevances change sign. ``"one"``: with 1.

    Raises:
        ValueError: If an argument is none of these.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> _ = nn.init.eye_(model[0].weight), nn.init.ones_(model[2].weight)
        >>> _ = nn.init.zeros_(model[0].bias), nn.init.zeros_(model[2].bias)
        >>> LRP()(model, torch.tensor([[3.0, 1.0]])).units["0"]  # of a logit of 4
        tensor([[0.7500, 0.2500]])

    References:
        Bach et al., PLOS ONE 2015. As a measure of what an experience needs: Bogacka et
        al., 2025 (ReReLRP).
    """

    def __init__(
        self,
        *,
        composite: CompositeName | Composite = "epsilon_plus_flat",
        canonizers: Sequence[Any] | None = None,
        start: Literal["logit", "one"] = "logit",
    ) -> None:
        if not isinstance(composite, Composite):
            require_choice(get_args(CompositeName), composite=composite)
        require_choice(("logit", "one"), start=start)
        if not isinstance(canonizers, Sequence | None):
            raise ValueError(  # noqa: TRY004
                f"canonizers is {canonizers!r}; wanted a list of zennit's, or None"
            )
        for canonizer in canonizers or ():
            if not isinstance(canonizer, Canonizer):
                raise ValueError(  # noqa: TRY004
                    f"canonizers has {canonizer!r}; wanted zennit's, each an object"
                )
        self.composite = composite
        self.canonizers = canonizers
        self.start = start

    def require_supported(self, model: nn.Module, x: Tensor) -> None:
        """Refuse a model whose relevances would be wrong.

        Runs the model a few times. Whether relevance is conserved is not asked of a
        zennit composite, nor whether norms are merged of one's own canonizers; that
        they leave the logits alone is.

        Args:
            model: Any model; found as it was.
            x: Some inputs, shape ``(B, ...)``.

        Raises:
            ValueError: Naming the layer and the reason: a norm other than BatchNorm
                and `BatchRenorm`, or not right behind a Conv2d or Linear layer; other
                layers with parameters (attention, recurrent, transposed, 1d, 3d);
                pruned or parametrised weights; a layer that runs not just once;
                relevance lost or made on the way. Or if the inputs are no tensor, the
                logits are not finite, or they differ from run to run.
        """
        _require_batch(x)
        own = self.composite if isinstance(self.composite, Composite) else None
        canonizers = self.canonizers
        if canonizers is None and own is not None:
            canonizers = own.canonizers or None
        require_layers(model, own, canonizers)
        if canonizers is None:
            require_merged_norms(model, x)
        require_same_logits(model, x, self._rules(), self.canonizers)
        if own is None:
            require_conservation(model, x, canonizers)

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        targets: Tensor | None = None,
        *,
        heatmap: bool = False,
    ) -> UnitRelevance:
        """Relevances of a batch, each sample for itself.

        Large batches take several passes, each of a size that memory is quick with.

        Args:
            model: As `require_supported` accepts it; it is not asked again.
            x: Inputs, shape ``(B, ...)``.
            targets: Logit of each sample to start from, int64, ``(B,)``, in
                ``[0, K)``; None: the largest.
            heatmap: Whether the inputs' relevance is wanted too.

        Returns:
            Relevances and logits, without graph.

        Raises:
            ValueError: If inputs or targets are no tensors or do not fit, or the model
                gives no logits ``(B, K)``. On a CPU, if a logit is not finite; to look
                at them on a GPU would be to wait for it.
        """
        _require_batch(x)
        if targets is not None:
            _require_targets(targets, len(x))
        target = _PASS_BYTES.get(x.device.type, _PASS_BYTES["cuda"])
        found: list[UnitRelevance] = []
        done, n = 0, min(len(x), _FIRST_PASS)
        while done < len(x) or not found:
            here = slice(done, done + n)
            own = None if targets is None else targets[here]
            part, largest = self._pass(model, x[here], own, heatmap)
            found.append(part)
            done += n
            n = max(1, target * max(1, len(x[here])) // max(1, largest))
        copies = len(found[0].logits) // max(1, len(x[:_FIRST_PASS]))
        return found[0] if len(found) == 1 else _joined(found, copies)

    def _pass(
        self, model: nn.Module, x: Tensor, targets: Tensor | None, heatmap: bool
    ) -> tuple[UnitRelevance, int]:
        """Relevances of a batch in one pass, and bytes of the largest output."""

        def start(logits: Tensor) -> Tensor:
            rows = logits.argmax(1) if targets is None else _in_range(targets, logits)
            chosen = torch.zeros_like(logits).scatter_(1, rows[:, None], 1.0)
            return chosen * logits if self.start == "logit" else chosen

        found = propagate(
            model,
            x,
            start,
            composite=self._rules(),
            canonizers=self.canonizers,
            heatmap=heatmap,
        )
        if found.logits.device.type == "cpu":
            require_finite_logits(found.logits, model)
        units = {name: normalised_relevance(r) for name, r in found.units.items()}
        return UnitRelevance(found.logits, units, found.heatmap), found.largest

    def _rules(self) -> Composite:
        if isinstance(self.composite, Composite):
            return self.composite
        return named_composite(self.composite)


def _require_batch(x: Any) -> None:
    if not isinstance(x, Tensor) or not x.ndim:
        seen = "a number" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"x is {seen}; wanted a torch.Tensor of shape (B, ...)")


def _require_targets(targets: Any, n: int) -> None:
    wanted = f"wanted a tensor, torch.int64 of shape ({n},)"
    if not isinstance(targets, Tensor):
        raise ValueError(  # noqa: TRY004
            f"targets are a {type(targets).__name__}; {wanted}"
        )
    if targets.dtype != torch.long or targets.shape != (n,):
        raise ValueError(
            f"targets are {targets.dtype} of shape {tuple(targets.shape)}; {wanted}"
        )


def _in_range(targets: Tensor, logits: Tensor) -> Tensor:
    targets, k = targets.to(logits.device), logits.shape[1]
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < k:
        raise ValueError(
            f"targets go from {int(targets.min())} to {int(targets.max())}; wanted "
            f"rows of the {k} logits"
        )
    return targets


def _joined(parts: Sequence[UnitRelevance], copies: int) -> UnitRelevance:
    """Passes of one batch put together; a stack gives all of each submodel in turn."""

    def join(tensors: Sequence[Tensor], n: int) -> Tensor:
        return torch.cat([t.reshape(n, -1, *t.shape[1:]) for t in tensors], 1).flatten(
            0, 1
        )

    logits, units, heatmaps = zip(*parts, strict=True)
    whole = {name: join([each[name] for each in units], copies) for name in units[0]}
    maps = None if heatmaps[0] is None else join(heatmaps, 1)
    return UnitRelevance(join(logits, copies), whole, maps)
