"""Where a model can be cut in two, and where best."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches
from itertools import islice
from typing import Any

import torch
from avalanche.models import MultiTaskModule
from torch import Tensor, nn

from avalanche_ext._checks import require_fraction, require_kind
from avalanche_ext.models.cut_inputs import (
    Example,
    probe_inputs,
    task_labels_for,
)
from avalanche_ext.models.cut_trace import (
    NotRunnableError,
    Trace,
    ended_modules,
    run,
    trace,
    untouched,
)

#: More names than this are not listed in a message.
_LISTED = 12


def require_layer(
    model: nn.Module, layer: str, x: Tensor, t: Tensor | None
) -> nn.Module:
    """A module by its name.

    Args:
        model: Any model.
        layer: Dotted name.
        x: Inputs, shape ``(3, ...)``.
        t: Task labels, or None.

    Returns:
        The module.

    Raises:
        ValueError: If there is none: the message lists close names and, if the model
            can run on the inputs, valid cuts near the first of them.
    """
    require_kind(str, latent_layer=layer)
    modules: dict[str, nn.Module]
    modules = {n: m for n, m in model.named_modules(remove_duplicate=False) if n}
    if layer in modules:
        return modules[layer]
    close = get_close_matches(layer, modules, n=5, cutoff=0.4)
    names = close or list(modules)[:_LISTED]
    message = (
        f"latent_layer is {layer!r}, which {type(model).__name__} does not have; "
        f"{'close names are' if close else 'wanted one of'} {', '.join(names)}"
    )
    with suppress(NotRunnableError):
        near = valid_cuts_near(model, names[0], x, t) if names else ""
        message += f"; the model can be cut at {near}" if near else ""
    raise ValueError(message)


def valid_cuts(model: nn.Module, example: Example) -> list[str]:
    """Names of all modules where a model can be cut.

    Runs the model twice for each of its modules.

    Args:
        model: Any model; found as it was.
        example: See `LatentCut`.

    Returns:
        The names, in the order in which the modules end.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> valid_cuts(net, (4,))
        ['0', '1']
    """
    x = probe_inputs(model, example)
    t = task_labels_for(model, x)
    ended = dict.fromkeys(n for n, _ in ended_modules(model, x, t) if n)
    return [name for name in ended if _is_valid(model, name, x, t)]


def suggest_latent_layer(model: nn.Module, example: Example, share: float = 0.3) -> str:
    """The valid cut with about so much of the work above it.

    Args:
        model: Any model; found as it was.
        example: See `LatentCut`.
        share: Of the multiply-accumulates that should be above the cut.

    Returns:
        Name of the module whose share is nearest; of several, the last one to end,
        which is behind norm layer and ReLU.

    Raises:
        ValueError: If the share is not in ``[0, 1]``, or there is no valid cut.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> suggest_latent_layer(net, (4,))
        '1'
    """
    require_fraction(share=share)
    x = probe_inputs(model, example)
    t = task_labels_for(model, x)
    ended = ended_modules(model, x, t)
    total = ended[-1][1]
    away = {
        name: (abs((total - done) / (total or 1) - share), -place)
        for place, (name, done) in enumerate(ended)
        if name
    }
    for name in sorted(away, key=away.__getitem__):
        if _is_valid(model, name, x, t):
            return name
    raise ValueError(f"{type(model).__name__} can be cut nowhere; wanted another model")


def _is_valid(model: nn.Module, name: str, x: Tensor, t: Tensor | None) -> bool:
    module = model.get_submodule(name)
    return not why_not(model, module, trace(model, module, x, t), x, t)


def valid_cuts_near(model: nn.Module, layer: str, x: Tensor, t: Tensor | None) -> str:
    """A few valid cuts at, before and behind a module, to list in a message.

    Args:
        model: Any model; found as it was.
        layer: Name of the module.
        x: Inputs, shape ``(3, ...)``.
        t: Task labels, or None.

    Returns:
        Their names.
    """
    module = model.get_submodule(layer)
    ended = list(dict.fromkeys(n for n, _ in ended_modules(model, x, t) if n))
    own = [i for i, n in enumerate(ended) if model.get_submodule(n) is module]
    at = own[0] if own else 0
    before = (n for n in reversed(ended[:at]) if _is_valid(model, n, x, t))
    behind = (n for n in ended[at:] if _is_valid(model, n, x, t))
    half = _LISTED // 2
    near = [*reversed([*islice(before, half)]), *islice(behind, half)]
    return ", ".join(near) or "none: it can be cut nowhere"


def why_not(
    model: nn.Module, module: nn.Module, found: Trace, x: Tensor, t: Tensor | None
) -> str:
    """Why the model cannot be cut at the module.

    Args:
        model: Any model; found as it was.
        module: One of its modules.
        found: Of that module, see `trace`.
        x: Inputs that were traced, shape ``(3, ...)``.
        t: Task labels that were traced, or None.

    Returns:
        The reason; empty if it can.
    """
    if getattr(type(model), "forward", None) is MultiTaskModule.forward:
        return (
            f"{type(model).__name__} takes the batch apart by task label before its "
            "first layer; override forward() to hand task labels to the head only"
        )
    if found.calls != 1:
        return f"it runs {found.calls} times in a forward pass, not once"
    if found.latents is None:
        return "its output is no tensor"
    if found.latents.ndim < 1 or len(found.latents) != len(x):
        shape = tuple(found.latents.shape)
        return f"its output {shape} does not have the samples on its first axis"
    if not found.reached or not found.parameters_above:
        return "there is nothing to train above it"
    if found.bypassed:
        return "the output depends on the input also by a way around it"
    if shared := _on_both_sides(model, found):
        return f"{shared} is used both below and above it"
    latents = found.latents

    def join(m: nn.Module, args: Any, output: Tensor) -> Tensor:
        return torch.cat([output, latents[2:]])

    with untouched(model):
        handle = module.register_forward_hook(join)
        try:
            output = run(model, x[:2], t)
        except NotRunnableError as error:
            return f"latents cannot join the batch there ({error.__cause__})"
        finally:
            handle.remove()
    if not same_outputs(output, found.output):
        return "with a latent in the batch the model gives other outputs"
    return ""


def _on_both_sides(model: nn.Module, found: Trace) -> str:
    """Name of something with state or randomness that is on both sides."""
    shared = found.parameters_below & found.parameters_above
    names = [n for n, p in model.named_parameters() if p in shared]
    both = set(found.below) & set(found.above)
    random = nn.modules.dropout._DropoutNd
    names += [
        n
        for n, m in model.named_modules()
        if m in both and (isinstance(m, random) or any(m.buffers(recurse=False)))
    ]
    return names[0] if names else ""


def same_outputs(ours: Tensor, wanted: Tensor) -> bool:
    """Equal, but for rounding in batches of another size.

    Args:
        ours: Outputs.
        wanted: Outputs.

    Returns:
        Whether they are.
    """
    if ours.shape != wanted.shape:
        return False
    tolerance = 1e-3 * float(wanted.abs().max()) if wanted.numel() else 0.0
    return torch.allclose(ours, wanted, rtol=1e-3, atol=tolerance)
