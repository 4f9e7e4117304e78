"""The units of a model, and where each is switched off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_ext._checks import require_kind, require_whole
from avalanche_ext.models.batch_renorm import BatchRenorm
from avalanche_ext.models.cut_inputs import require_eager
from avalanche_ext.models.cut_trace import run, untouched

UnitLayer = nn.Conv2d | nn.Linear
Keep = Mapping[str, Tensor]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, BatchRenorm)


def unit_layers(model: nn.Module) -> dict[str, UnitLayer]:
    """Layers that have units: output channels of `Conv2d`, outputs of `Linear`.

    Args:
        model: Any model.

    Returns:
        The layers by dotted name, in the order of registration.

    Raises:
        ValueError: If there is none, two share their weights, or weights are computed
            from other parameters: no single row is a unit's own then.

    Example:
        >>> list(unit_layers(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))))
        ['0', '2']
    """
    require_eager(model)
    found = {n: m for n, m in model.named_modules() if isinstance(m, UnitLayer)}
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no Conv2d or Linear layer; wanted at least one"
        )
    owners: dict[Tensor, str] = {}
    for name, layer in found.items():
        weight = layer._parameters.get("weight")
        if weight is None:
            raise ValueError(
                f"the weight of layer {name!r} is computed (parametrised or pruned); "
                "wanted a plain parameter"
            )
        if weight in owners:
            raise ValueError(
                f"layers {owners[weight]!r} and {name!r} share their weight; wanted "
                "each with its own"
            )
        owners[weight] = name
    return found


def mask_sites(
    model: nn.Module, x: Tensor, *, mask_batchnorm: bool = True
) -> dict[str, str]:
    r"""The module after whose output a unit that is switched off is set to 0.

    Behind batch normalisation a filter of zeros still gives a constant,
    :math:`\beta - \gamma \mu / \sigma`. So it is the norm layer (BatchNorm or
    `BatchRenorm`) where one takes the layer's output as it is, and nothing else does;
    else the layer. It is found by running the model, whatever the order in which
    modules were registered.

    Args:
        model: Any model; found as it was.
        x: A few inputs, shape ``(B, ...)``, on the model's device.
        mask_batchnorm: False: always the layer, as the authors' code.

    Returns:
        For each of the `unit_layers` the name of the site.

    Raises:
        ValueError: If a layer, or a norm layer that is a site, does not run exactly
            once, or the model does not run on x.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
        >>> mask_sites(net, torch.zeros(2, 4))
        {'0': '1', '2': '2'}
    """
    layers = unit_layers(model)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, _NORMS)}
    named: dict[str, nn.Module] = {**layers, **norms}
    names = {module: name for name, module in named.items()}
    calls = dict.fromkeys(names.values(), 0)
    made_by: dict[Any, str] = {}  # node of the graph -> the layer whose output it made
    pairs: dict[str, tuple[Any, str]] = {}  # layer -> node, norm layer

    def called(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        name = names[module]
        calls[name] += 1
        if name in layers:
            # of a sequence, a norm layer would take the steps for the channels
            if isinstance(module, nn.Conv2d) or output.ndim == 2:
                made_by[output.grad_fn] = name
        elif args and (layer := made_by.get(args[0].grad_fn)) is not None:
            pairs[layer] = (args[0].grad_fn, name)

    with untouched(model), torch.enable_grad():
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        handles = [m.register_forward_hook(called) for m in names]
        try:
            output = run(model, x, None)
        finally:
            for handle in handles:
                handle.remove()
        readers = _readers(output)
    sites = {name: name for name in layers}
    if mask_batchnorm:
        sites |= {n: norm for n, (node, norm) in pairs.items() if readers[node] == 1}
    for name in (*sites, *sites.values()):
        if calls[name] != 1:
            raise ValueError(
                f"layer {name!r} runs {calls[name]} times in a forward pass; wanted "
                "exactly once"
            )
    return sites


def _readers(output: Tensor) -> dict[Any, int]:
    """For each node of the graph below an output, how often others read it."""
    todo = [output.grad_fn]
    counts: dict[Any, int] = dict.fromkeys(todo, 0)
    while todo:
        for node, _ in getattr(todo.pop(), "next_functions", ()):
            if node not in counts:
                counts[node] = 0
                todo.append(node)
            counts[node] += 1
    return counts


def unit_counts(
    model: nn.Module, classes: Sequence[int], *, head: str, sites: Mapping[str, str]
) -> dict[str, int]:
    """Number of units of each layer that can be switched off for an experience.

    Args:
        model: Any model.
        classes: The experience's classes, rows of the head.
        head: Name of the layer that gives the logits.
        sites: See `mask_sites`.

    Returns:
        By layer; of the head only the rows of the classes count.

    Raises:
        ValueError: If the head is none of the layers or has not all of the classes,
            the classes do not rise, or a layer has no site.
    """
    layers = unit_layers(model)
    if head not in layers or layers.keys() - sites.keys():
        raise ValueError(
            f"head is {head!r}, and the layers with sites are {', '.join(sites)}; "
            f"wanted one of {', '.join(layers)}, and all of them"
        )
    n_rows = layers[head].weight.shape[0]
    require_whole(0, **{f"classes[{i}]": c for i, c in enumerate(classes)})
    rising = all(a < b for a, b in pairwise(classes))
    if not classes or not rising or classes[-1] >= n_rows:
        raise ValueError(
            f"classes are {tuple(classes)}; wanted some in rising order, all below "
            f"{n_rows}, the rows of the head"
        )
    counts = {name: layer.weight.shape[0] for name, layer in layers.items()}
    return counts | {head: len(classes)}


def require_keep(keep: Keep, counts: Mapping[str, int]) -> None:
    """Refuse masks that do not fit the model.

    Args:
        keep: By layer, True for units that stay, bool ``(C_l,)``; of the head only the
            rows of the classes, in their order. A layer that is missing stays whole.
        counts: See `unit_counts`.

    Raises:
        ValueError: If names, types or shapes differ from that.
    """
    for name, mask in keep.items():
        if name not in counts:
            raise ValueError(
                f"keep has a mask for {name!r}; wanted one of {', '.join(counts)}"
            )
        require_kind(Tensor, **{f"keep[{name!r}]": mask})
        if mask.dtype != torch.bool or mask.shape != (counts[name],):
            raise ValueError(
                f"the mask of {name!r} is {mask.dtype} of shape {tuple(mask.shape)}; "
                f"wanted bool of shape ({counts[name]},)"
            )


def off_units(
    model: nn.Module, keep: Keep, classes: Sequence[int], *, head: str
) -> dict[str, Tensor]:
    """Units to be set to 0, of the head among all its rows.

    Args:
        model: The model, on whose device the masks will be.
        keep: See `require_keep`.
        classes: Rows of the head.
        head: Name of the layer that gives the logits.

    Returns:
        By layer, True for units to be set to 0, bool ``(C_l,)``.
    """
    found = {}
    for name, mask in keep.items():
        weight = model.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        off = ~mask.to(weight.device)
        if name == head:
            rows = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
            rows[list(classes)] = off
            off = rows
        found[name] = off
    return found


def unit_axis(site: nn.Module) -> int:
    """Axis of a site's output that runs over the units.

    Args:
        site: A layer or norm layer.

    Returns:
        -1 for linear layers, which may act on sequences; else 1.
    """
    return -1 if isinstance(site, nn.Linear) else 1


def along_units(mask: Tensor, site: nn.Module, output: Tensor) -> Tensor:
    """A mask over units, in a shape that fits a site's output.

    Args:
        mask: Shape ``(..., C)``, leading axes before the output's own first axis.
        site: A layer or norm layer.
        output: Its output.

    Returns:
        Shape ``(..., 1, C)`` for linear layers, with as many axes of length 1 as the
        output needs, else ``(..., 1, C, 1, ...)``.
    """
    others = output.ndim - 2
    before = others if unit_axis(site) == -1 else 0
    shape = (*mask.shape[:-1], 1, *(1,) * before, -1, *(1,) * (others - before))
    return mask.reshape(shape)
