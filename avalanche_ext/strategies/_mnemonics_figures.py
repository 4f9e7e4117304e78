"""What Mnemonics has to show of its exemplars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from avalanche_ext.buffers.mnemonics import MnemonicsBuffer
from avalanche_ext.figures import (
    exemplar_embedding,
    exemplar_grid,
    margin_histogram,
    optimization_curves,
)
from avalanche_ext.functional.herding import herding_indices
from avalanche_ext.loaders import batches_of
from avalanche_ext.models.feature_classifier import evaluating

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Samples that stand for the data of the last experience.
_N_DATA = 500

Labelled = tuple[Tensor, Tensor]


def mnemonics_figures(
    buffer: MnemonicsBuffer, model: nn.Module, device: torch.device
) -> dict[str, Figure]:
    """Pictures of the exemplars; of those of the last experience with its data.

    Args:
        buffer: After at least one experience.
        model: As trained; left as found.
        device: Where it is.

    Returns:
        ``exemplars``: as selected, as they are, the difference, of images with 1 or 3
        channels; ``embedding``: t-SNE of features of at least two samples and of
        random, herded and optimised exemplars; ``margins``:
        of the most probable class over the next; ``optimization``: losses and changes.

    Raises:
        ValueError: If there are no exemplars, or it is not known where they came from.
    """
    initial = {e: buffer.initial(e) for e in range(buffer.n_experiences)}
    before = {label: x for own in initial.values() for label, x in own.items()}
    if not before:
        raise ValueError("no exemplar is known as it was selected; wanted some")
    after = buffer.images()
    was, figures = _joined(before), {}
    if was.shape[1] in (1, 3):  # others have no colours to be drawn in
        now, targets = _joined(after, before), _targets(before)
        figures["exemplars"] = exemplar_grid(was, now, targets)
    curves = [e for e in buffer.history.entries if e["exemplars"] == "new"]
    if curves:
        name = "experience {}".format
        figures["optimization"] = optimization_curves(
            {name(e["experience"]): e["outer_losses"] for e in curves},
            {name(e["experience"]): e["inner_losses"] for e in curves},
            {
                name(e): _joined(after, own) - _joined(own)
                for e, own in initial.items()
                if own and e in {curve["experience"] for curve in curves}
            },
        )
    last = max(e for e, own in initial.items() if own)
    chosen = {c: initial[last][c] for c in sorted(initial[last])}
    figures |= _of_last(buffer, model, device, last, chosen, after)
    return figures


def _of_last(
    buffer: MnemonicsBuffer,
    model: Any,
    device: torch.device,
    last: int,
    chosen: dict[int, Tensor],
    after: dict[int, Tensor],
) -> dict[str, Figure]:
    """Data of the last experience beside its exemplars, as its model sees them."""
    generator = torch.Generator().manual_seed(0)
    data = buffer.data(last)
    order = torch.randperm(len(data), generator=generator)[:_N_DATA].tolist()
    x, y = _loaded(data.subset(order), device)
    known = torch.isin(y, torch.tensor(list(chosen), device=device))
    x, y = x[known], y[known]
    space = buffer.exemplars.space
    assert space is not None
    targets = _targets(chosen).to(device)
    inputs = {
        "as selected": space.normalized(_joined(chosen), device),
        "optimised": space.normalized(_joined(after, chosen), device),
    }
    features, shown = _seen(model, x)
    own = {name: _seen(model, images) for name, images in inputs.items()}
    random, herded = [], []
    for label, images in chosen.items():
        place = (y == label).nonzero().flatten()
        k = min(len(place), len(images))
        if k:
            picked = torch.randperm(len(place), generator=generator)[:k]
            random.append(place[picked.to(device)])
            herded.append(place[herding_indices(features[place], k)])
    choices: dict[str, Labelled] = {
        "random": (features[torch.cat(random)], y[torch.cat(random)]),
        "herding": (features[torch.cat(herded)], y[torch.cat(herded)]),
        "mnemonics": (own["optimised"][0], targets),
    }
    shares = {"data": shown, **{name: p for name, (_, p) in own.items()}}
    figures = {"margins": margin_histogram(shares)}
    if len(x) > 1:
        perplexity = min(30.0, (len(x) - 1) / 3)
        figures["embedding"] = exemplar_embedding(
            features, y, choices, perplexity=perplexity
        )
    return figures


def _seen(model: Any, x: Tensor) -> Labelled:
    """Features and probabilities."""
    with evaluating(model):
        probabilities = model(x).softmax(1)
        return model.features, probabilities


def _loaded(data: Any, device: torch.device) -> Labelled:
    batches = list(batches_of(data, device, batch_size=256))
    return torch.cat([x for x, _, _ in batches]), torch.cat([y for _, y, _ in batches])


def _joined(images: dict[int, Tensor], like: dict[int, Tensor] | None = None) -> Tensor:
    """Images class by class, of the classes of another choice."""
    return torch.cat([images[label] for label in (like or images)])


def _targets(images: dict[int, Tensor]) -> Tensor:
    return torch.tensor([c for c, own in images.items() for _ in range(len(own))])
