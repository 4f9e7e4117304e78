"""Which layer of a model gives its logits."""

from __future__ import annotations

import difflib

from avalanche.models import MultiHeadClassifier
from torch import Tensor, nn

from avalanche_ext._checks import require_kind
from avalanche_ext.functional.functional_prior import MASKED
from avalanche_ext.models.feature_classifier import evaluating


def linear_head_name(model: nn.Module, head: str | None = None) -> str:
    """Dotted name of the linear layer that gives the logits.

    It is looked for in the order in which the layers were registered, as no data is
    at hand: the last layer with weights of its own must be linear, and no other
    linear layer may be as likely, one of as many outputs that could not feed it.

    Args:
        model: Any model.
        head: The name, to be checked only; None: look for it.

    Returns:
        The name, for ``model.get_submodule``; ``""`` if it is the model itself.

    Raises:
        ValueError: If there is no such layer, it is not linear or one of a
            `MultiHeadClassifier`, or, if it is looked for, there are several.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> linear_head_name(net)
        '2'
    """
    modules = dict(model.named_modules())
    linear = [n for n, m in modules.items() if isinstance(m, nn.Linear)]
    if head is None:
        head = _last_layer(modules, linear, type(model).__name__)
    elif head not in linear:
        near = difflib.get_close_matches(str(head), linear, n=3, cutoff=0) or linear
        raise ValueError(
            f"head is {head!r}; wanted the name of a linear layer of "
            f"{type(model).__name__}, such as {', '.join(map(repr, near)) or 'none'}"
        )
    parts = head.split(".")
    for above in (".".join(parts[:i]) for i in range(len(parts))):
        if isinstance(modules[above], MultiHeadClassifier):
            raise ValueError(  # noqa: TRY004
                f"the linear layer {head!r} is one of the heads of a "
                "MultiHeadClassifier; wanted one head for all classes"
            )
    return head


def linear_head(model: nn.Module, name: str) -> nn.Linear:
    """The layer of that name, which may be another object in each experience.

    Args:
        model: Any model.
        name: As `linear_head_name` gives it.

    Returns:
        The layer.

    Raises:
        ValueError: If it is not linear.
    """
    layer = model.get_submodule(name)
    require_kind(nn.Linear, **{name or "model": layer})
    assert isinstance(layer, nn.Linear)
    return layer


def require_logits_of(model: nn.Module, name: str, x: Tensor) -> None:
    """Refuse a layer whose output is not what the model gives.

    Args:
        model: Any model; found as it was.
        name: As `linear_head_name` gives it.
        x: Some inputs.

    Raises:
        ValueError: If the model gives another number of logits, or others. Those that
            Avalanche's `IncrementalClassifier` masks are not compared.
    """
    found: list[Tensor] = []
    handle = linear_head(model, name).register_forward_hook(
        lambda layer, args, output: found.append(output.clone())
    )
    try:
        with evaluating(model):
            logits = model(x)
    finally:
        handle.remove()
    same = len(found) == 1 and found[0].shape == getattr(logits, "shape", None)
    if not same or not bool(((logits == found[0]) | (logits == MASKED)).all()):
        raise ValueError(
            f"head is {name!r}, whose output is not what {type(model).__name__} gives; "
            "wanted the layer that gives the logits"
        )


def _last_layer(modules: dict[str, nn.Module], linear: list[str], model: str) -> str:
    """Name of the last layer, which must be linear and without rivals."""
    filled = [n for n, m in modules.items() if any(True for _ in m.parameters(False))]
    name = filled[-1] if filled else ""
    last = modules[name]
    if not isinstance(last, nn.Linear):
        raise ValueError(  # noqa: TRY004
            f"the last layer of {model} with weights is {name!r}, a "
            f"{type(last).__name__}; wanted a linear one: name it, if there is one"
        )
    rivals = []
    for other in linear:
        layer = modules[other]
        assert isinstance(layer, nn.Linear)
        width = layer.out_features
        if width == last.out_features and width != last.in_features:
            rivals.append(other)
    if len({*rivals, name}) > 1:
        raise ValueError(
            f"{model} has several linear layers with {last.out_features} outputs, "
            f"{', '.join(map(repr, rivals))}; wanted the name of the one that gives "
            "the logits"
        )
    return name
