"""Whether relevance is right for a model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor, nn
from zennit.canonizers import Canonizer
from zennit.core import Composite

from avalanche_ext.attribution.canonizers import (
    Norm,
    average_everywhere,
    norm_pairs,
)
from avalanche_ext.attribution.propagation import propagate
from avalanche_ext.attribution.restored import restored
from avalanche_ext.attribution.rules import named_composite
from avalanche_ext.models.cut_inputs import require_eager
from avalanche_ext.models.cut_points import same_outputs
from avalanche_ext.models.feature_classifier import evaluating
from avalanche_ext.models.unit_layers import UnitLayer

_OTHER_NORMS = (
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
    nn.CrossMapLRN2d,
    nn.modules.instancenorm._InstanceNorm,
    nn.BatchNorm3d,
)
_WAY_OUT = "pass canonizers= that rewrite it, or a composite= with a rule for it"


def require_layers(
    model: nn.Module,
    composite: Composite | None = None,
    canonizers: Sequence[Canonizer] | None = None,
) -> None:
    """Refuse layers that no rule is for.

    Args:
        model: Any model.
        composite: The user's own; what it has a hook for is accepted.
        canonizers: The user's own; with them, norms are the user's business.

    Raises:
        ValueError: For the first such layer.
    """
    require_eager(model)
    # attention first: what is around it has parameters of its own for its sake
    modules = sorted(model.named_modules(), key=lambda pair: not _attends(pair[1]))
    for name, module in modules:
        reason = _why_not(module)
        if not reason:
            continue
        if isinstance(module, (Norm, *_OTHER_NORMS)) and canonizers is not None:
            continue
        known = isinstance(module, UnitLayer | Norm) or composite is None
        # a rule of its own would not make its layers run
        known = known or (_attends(module) and canonizers is None)
        if not known and composite.module_map({}, name, module):  # type: ignore[union-attr]
            continue
        raise ValueError(f"{_called(name, module)} {reason}")


def require_merged_norms(model: nn.Module, x: Tensor) -> None:
    """Refuse norms that `merge_norms` would miss, and layers that run not just once.

    Args:
        model: Any model; found as it was.
        x: Inputs.

    Raises:
        ValueError: For the first such layer.
    """
    runs: dict[nn.Module, int] = {}
    layer_of: dict[int, nn.Module] = {}
    fed_by: dict[nn.Module, nn.Module | None] = {}
    kept: list[Tensor] = []

    def ended(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        runs[module] = runs.get(module, 0) + 1
        if isinstance(module, UnitLayer):
            kept.append(output)  # else another tensor may get its id
            layer_of[id(output)] = module
        else:
            fed_by[module] = layer_of.get(id(args[0]))

    with restored(model), evaluating(model):
        for module in model.modules():
            if isinstance(module, UnitLayer | Norm):
                module.register_forward_hook(ended)
        model(x)
    layer_before: dict[nn.Module, nn.Module]
    layer_before = {norm: layer for layer, norm in norm_pairs(model)}
    for name, module in model.named_modules():
        if not isinstance(module, UnitLayer | Norm):
            continue
        if runs.get(module) != 1:
            raise ValueError(
                f"{_called(name, module)} runs {runs.get(module, 0)} times in a "
                "forward pass; wanted once: register it once for each use"
            )
        if module not in fed_by:
            continue
        if fed_by[module] is None or fed_by[module] is not layer_before.get(module):
            raise ValueError(
                f"{_called(name, module)} does not take the very output of the Conv2d "
                "or Linear layer declared right before it, so it cannot be merged into "
                "that; pass canonizers= that merge it (zennit's NamedMergeBatchNorm)"
            )


def require_conservation(
    model: nn.Module, x: Tensor, canonizers: Sequence[Canonizer] | None = None
) -> None:
    """Refuse a model in which relevance is lost or made on its way.

    Biases absorb relevance, and the z+ rule loses that of negative outputs; so the
    test is made on a copy in which all units average positive inputs. By the rules of
    "epsilon_plus" what arrives at the first layers is there what the pass started with,
    unless branches are joined in a way that no rule is for: such an addition doubles
    it. The input's relevance would show nothing: the first rule makes it up.

    Args:
        model: Any model; found as it was.
        x: Inputs.
        canonizers: The user's own.

    Raises:
        ValueError: If more than 1 % is lost or made.
    """

    def one(logits: Tensor) -> Tensor:
        return torch.zeros_like(logits).scatter_(1, logits.argmax(1, True), 1.0)

    # where most of a window is padding, each layer makes values several times smaller:
    # what is added to denominators must stay far below them
    composite = named_composite("epsilon_plus", stabilizer=1e-30)
    with restored(model):
        average_everywhere(model)
        x = x.abs() + 1
        found = propagate(model, x, one, composite=composite, canonizers=canonizers)
    total = {name: r.sum(1).mean() for name, r in found.units.items()}
    arrived = float(torch.stack([total[name] for name in found.first]).sum())
    if abs(arrived - 1) <= 0.01:
        return
    # in a branch there may be less, but nowhere more
    grown = [name for name, value in total.items() if not value < 1.01]
    where = f"; the last layer with too much is {grown[-1]!r}" if grown else ""
    less = [name for name, _ in takewhile(lambda pair: pair[1] < 0.99, total.items())]
    if less and not grown:
        where = f"; the layers with too little are all up to {less[-1]!r}"
    raise ValueError(
        f"{type(model).__name__} does not conserve relevance: of 1 at the logits, "
        f"{arrived:.3g} arrives at the first layers{where}. Branches that are joined "
        "otherwise than by a + b or torch.cat, and functions that are no ReLU or "
        f"pooling, have no rule; {_WAY_OUT}"
    )


def require_same_logits(
    model: nn.Module,
    x: Tensor,
    composite: Composite,
    canonizers: Sequence[Canonizer] | None = None,
) -> None:
    """Refuse a model that is random, or that canonizers make another one of.

    Args:
        model: Any model; found as it was.
        x: Inputs.
        composite: Rules.
        canonizers: As in `propagate`.

    Raises:
        ValueError: If the logits differ, or are not finite.
    """
    with restored(model), evaluating(model):
        wanted, again = model(x), model(x)
    rewritten = propagate(
        model, x, torch.zeros_like, composite=composite, canonizers=canonizers
    )
    require_finite_logits(wanted, model)
    called = type(model).__name__
    if not same_outputs(again, wanted):
        raise ValueError(
            f"in evaluation mode, {called} gives other logits when it runs again; "
            "wanted the same: is there a dropout that is always on "
            "(F.dropout without training=self.training)?"
        )
    if not same_outputs(rewritten.logits, wanted):
        raise ValueError(
            f"with its norms merged, {called} gives other logits; wanted the same: the "
            "output of a layer goes elsewhere than into its norm; pass canonizers= that "
            "fit the model"
        )


def require_finite_logits(logits: Tensor, model: nn.Module) -> None:
    """Refuse logits of which no relevance could be told.

    Args:
        logits: Shape ``(B, K)``.
        model: Whose logits.

    Raises:
        ValueError: If one is not finite.
    """
    if not bool(logits.isfinite().all()):
        raise ValueError(
            f"the logits of {type(model).__name__} are not finite; wanted finite "
            "numbers: did training diverge, or do the inputs have nan or infinity?"
        )


def _why_not(module: nn.Module) -> str:
    """Why relevance would be wrong; empty if it is right."""
    if isinstance(module, UnitLayer):
        if set(module._parameters) != {"weight", "bias"}:
            return (
                "has a weight that is computed from others (pruning or a "
                "parametrization); wanted a plain one: make it permanent first, "
                "neither canonizers= nor composite= can help"
            )
        return ""
    if isinstance(module, Norm):
        if module.weight is None or module.running_mean is None:
            return (
                "has no affine parameters or no running statistics; wanted both: it is "
                f"no fixed scale and shift of each unit; {_WAY_OUT}"
            )
        return ""
    if isinstance(module, _OTHER_NORMS):
        return f"is a norm other than BatchNorm1d or 2d; {_WAY_OUT}"
    if _attends(module):
        return (
            "is attention, of functions that no rule is for; pass canonizers= that "
            "rewrite it and a composite= with a rule for it"
        )
    own = any(True for _ in module.parameters(recurse=False))
    if own and not isinstance(module, nn.PReLU):
        return (
            "has parameters of its own; wanted them in Conv2d, Linear and BatchNorm "
            f"layers only: there is no rule for it; {_WAY_OUT}"
        )
    return ""


def _attends(module: nn.Module) -> bool:
    return isinstance(module, nn.MultiheadAttention)


def _called(name: str, module: nn.Module) -> str:
    return f"{name or 'the model'!r}, a {type(module).__name__},"
