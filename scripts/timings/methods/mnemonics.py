"""Mnemonics: LUCIR's losses, learned scales of frozen kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from timings.methods.inference import batches_of
from timings.methods.lucir_family import DISTILLATION, Family, sgd
from timings.methods.method import Frame, Method, Run, template_options


def ours(family: Family, frame: Frame, plugins: Sequence[Any]) -> Run:
    """Exemplars stay as selected, and nothing is tuned on them: no part of an epoch."""
    from avalanche_ext import CosineClassifier, FeatureClassifier
    from avalanche_ext.strategies import Mnemonics

    extractor = family.extractor()
    model = FeatureClassifier(extractor, CosineClassifier(extractor.feature_size))
    strategy = Mnemonics(
        model=model,
        optimizer=sgd(model.parameters()),
        distillation_weight=DISTILLATION,
        exemplars_per_class=family.exemplars,
        optimization=None,
        finetuning_epochs=0,
        plugins=plugins,
        **template_options(frame, family.batch_size),
        **frame.switches,
    )
    return family.run(strategy, frame)


def bare(family: Family, frame: Frame) -> Callable[[], int]:
    """LUCIR's loop with a network whose transfer has begun."""
    lucir = Family(
        partial(transferring, family),
        batch_size=family.batch_size,
        exemplars=family.exemplars,
    )
    return lucir.bare("lucir", frame)


def transferring(family: Family) -> nn.Module:
    """The network as it is in the second experience.

    Args:
        family: Whose.

    Returns:
        A new one.
    """
    from avalanche_ext.models.transfer_conv import (
        to_transfer_network,
        transfer_convolutions,
    )

    network = to_transfer_network(family.extractor())
    for layer in transfer_convolutions(network):
        layer.begin_transfer()
    return network


def both_classifiers(run: Run) -> Callable[[], int]:
    """The linear classifier and the nearest exemplar mean.

    The means are made of both views of all exemplars, as in each evaluation.

    Args:
        run: A trained one of ours.

    Returns:
        See `Method.inference`.
    """
    from torch.utils.data import default_collate

    from avalanche_ext.functional.nearest_mean import (
        nearest_mean_scores,
        unit_class_means,
    )

    strategy, test = run.strategy, batches_of(run)
    data = strategy._exemplars.buffer.eval()
    fields = default_collate([data[i] for i in range(len(data))])
    exemplars, targets = (field.to(strategy.device) for field in fields[:2])
    classes, rows = torch.unique(targets, return_inverse=True)
    model = strategy.model

    def features(images: Tensor) -> Tensor:
        return torch.cat([model.feature_extractor(x) for x in images.split(256)])

    def answer() -> int:
        model.eval()
        right = torch.zeros(2, dtype=torch.int64, device=strategy.device)
        with torch.no_grad():
            views = features(exemplars), features(exemplars.flip(3))
            means = unit_class_means(views[0], rows, len(classes), views[1])
            for x, y, _ in test:
                own = model(x).argmax(1)
                nearest = nearest_mean_scores(model.features, means).argmax(1)
                right += torch.stack([own == y, classes[nearest] == y]).sum(1)
        right.tolist()
        return sum(len(y) for _, y, _ in test)

    return answer


def methods(family: Family) -> tuple[Method, ...]:
    """Mnemonics with the network and size of a family."""
    lucir, *_ = family.methods()
    what = lucir.what.replace("LUCIR", "Mnemonics after the first experience", 1)
    return (
        replace(
            lucir,
            name="mnemonics",
            what=what,
            ours=partial(ours, family),
            bare=partial(bare, family),
            inference=both_classifiers,
            slow=("hypergradient-time", "hypergradient-memory"),
        ),
    )


METHODS = methods(Family())
