"""Pruning steps on remembered outputs, against whole passes of a copied model."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from timings.measure import Entry, median_ratio

N_STEPS = 40
N_COPIED = 4  # steps of the slow form, all of which take the same time
N_IMAGES = 500
BATCH = 128


def _network() -> Any:
    from torchvision.models import vgg11

    return vgg11(num_classes=2).eval()


def _units(model: nn.Module) -> list[tuple[str, int]]:
    """A unit for each step, drawn from all but the head's."""
    from avalanche_ext.models.unit_layers import unit_layers

    layers = list(unit_layers(model).items())[:-1]
    units = [(n, c) for n, layer in layers for c in range(len(layer.weight))]
    order = torch.randperm(len(units), generator=torch.Generator().manual_seed(0))
    return [units[i] for i in order[:N_STEPS].tolist()]


def pruning(repeats: int) -> float:
    """Steps on copies, over as many by `MaskedAccuracy`; both with the first pass."""
    from avalanche_ext.models import MaskedAccuracy, mask_sites

    model = _network()
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(N_IMAGES, 3, 32, 32, generator=rng)
    y = torch.randint(2, (N_IMAGES,), generator=rng)
    units, found = _units(model), {}
    sites = mask_sites(model, x[:2])
    widths = {n: len(model.get_parameter(f"{n}.weight")) for n, _ in units}

    def ours() -> None:
        keep = {n: torch.ones(width, dtype=torch.bool) for n, width in widths.items()}
        place: Any = {"head": "classifier.6", "sites": sites, "batch_size": BATCH}
        with MaskedAccuracy(model, x, y, (0, 1), **place) as accuracy:
            found["ours"] = [accuracy(keep)]
            for name, c in units:
                keep[name][c] = False
                found["ours"].append(accuracy(keep))

    def copies() -> None:
        masked = model
        found["copies"] = [_validated(masked, x, y)]
        for name, c in units[:N_COPIED]:
            masked = copy.deepcopy(masked)
            layer = masked.get_submodule(name)
            layer.weight.data[c] = layer.bias.data[c] = 0
            found["copies"].append(_validated(masked, x, y))

    ratio = 1 / median_ratio(ours, copies, repeats)
    if found["ours"][: N_COPIED + 1] != found["copies"]:
        raise RuntimeError("the accuracies differ; wanted the same at each step")
    return ratio * (N_STEPS + 1) / (N_COPIED + 1)


@torch.no_grad()
def _validated(model: nn.Module, x: Tensor, y: Tensor) -> float:
    right = sum(
        (model(a).argmax(1) == b).sum()
        for a, b in zip(x.split(BATCH), y.split(BATCH), strict=True)
    )
    return 100 * int(right) / len(y)


ENTRIES = (
    Entry(
        "prune",
        f"{N_STEPS} steps of pruning one unit each (VGG-11, {N_IMAGES} images of "
        "32 x 32), against a copy of the model and a whole pass each",
        5,
        True,
        pruning,
    ),
)
