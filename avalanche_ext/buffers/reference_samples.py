"""Samples that stand for an experience while it is looked back at."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avalanche_ext._checks import require_choice, require_loading, require_whole
from avalanche_ext.functional.herding import herding_indices
from avalanche_ext.loaders import batches_of, values_of
from avalanche_ext.models.feature_classifier import evaluating


class ReferenceSamples:
    """A few samples a class of the experience just trained; none is kept.

    Only their positions in the data are remembered, and only until the next experience,
    so that several plugins that share this object look at the same samples.

    Args:
        per_class: Samples a class, >= 1; a class with fewer gives all, with a warning.
        selection: ``"herding"`` on the inputs of the head, scaled to unit length, or
            ``"random"``.
        transform: Transform group of the samples; ``"train"`` is the published code,
            one random augmentation of each.
        batch_size: Samples at once, >= 1.
        memory_resident: See `avalanche_ext.loaders.make_loader`.
        generator: Of the random selection; None for torch's default generator.

    Raises:
        ValueError: If an argument is out of its range.

    References:
        Bogacka et al., ReReLRP, arXiv 2502.10789, 2025; herding as in iCaRL.
    """

    def __init__(
        self,
        per_class: int = 67,
        *,
        selection: Literal["herding", "random"] = "herding",
        transform: Literal["eval", "train"] = "eval",
        batch_size: int = 256,
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
    ) -> None:
        require_whole(1, per_class=per_class, batch_size=batch_size)
        require_choice(("herding", "random"), selection=selection)
        require_choice(("eval", "train"), transform=transform)
        require_loading(memory_resident, generator)
        self.per_class = per_class
        self.selection = selection
        self.transform = transform
        self.batch_size = batch_size
        self.memory_resident = memory_resident
        self.generator = generator
        self._chosen: tuple[tuple[Any, ...], Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles choose anew."""
        return {**vars(self), "_chosen": None}

    def of(
        self, strategy: Any, network: nn.Module, head: str, classes: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The samples of the current experience.

        Args:
            strategy: After an experience, its data still at hand.
            network: Whose features herding reads.
            head: Name of its last layer, which takes the features.
            classes: Of which samples are wanted.

        Returns:
            Inputs ``(N, ...)`` and class ids ``(N,)``, on the strategy's device, class
            by class.

        Raises:
            ValueError: If a class has no samples, or features are not finite.
        """
        # the data by a weak reference: an id may be that of earlier ones
        data = weakref.ref(strategy.adapted_dataset)
        now = data, int(strategy.clock.train_exp_counter), tuple(classes)
        if self._chosen is None or self._chosen[0] != now:
            self._chosen = now, self._choose(strategy, network, head, classes)
        chosen = strategy.adapted_dataset.subset(self._chosen[1].tolist())
        return self._load(strategy, chosen, self.transform)

    def load(
        self, strategy: Any, data: Any, classes: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Other samples as a whole, with their evaluation transform.

        Args:
            strategy: Its device is used.
            data: An Avalanche dataset.
            classes: Samples of others are left out.

        Returns:
            As `of`, but in the order of the data.

        Raises:
            ValueError: If there are none.
        """
        wanted = set(classes)
        own = [i for i, y in enumerate(values_of(data.targets)) if int(y) in wanted]
        if not own:
            raise ValueError(
                f"none of {len(data)} samples are of classes {tuple(classes)}; wanted "
                "at least one"
            )
        return self._load(strategy, data.subset(own), "eval")

    def _choose(
        self, strategy: Any, network: nn.Module, head: str, classes: Sequence[int]
    ) -> Tensor:
        """Positions in the strategy's data."""
        targets = torch.tensor(
            [int(y) for y in values_of(strategy.adapted_dataset.targets)]
        )
        candidates = [(targets == label).nonzero().flatten() for label in classes]
        sizes = {c: len(own) for c, own in zip(classes, candidates, strict=True)}
        if min(sizes.values()) == 0:
            raise ValueError(
                f"samples by class are {sizes}; wanted at least one of each"
            )
        few = {label: n for label, n in sizes.items() if n < self.per_class}
        if few:
            warnings.warn(
                f"{self.per_class} reference samples a class wanted, but these classes "
                f"have fewer, and give all: {few}",
                stacklevel=2,
            )
        if self.selection == "random":
            picked = [
                torch.randperm(len(c), generator=self.generator) for c in candidates
            ]
        else:
            picked = self._herding(strategy, network, head, candidates)
        return torch.cat(
            [c[p[: self.per_class]] for c, p in zip(candidates, picked, strict=True)]
        )

    def _herding(
        self, strategy: Any, network: nn.Module, head: str, candidates: list[Tensor]
    ) -> list[Tensor]:
        data = strategy.adapted_dataset.subset(torch.cat(candidates).tolist())
        features = head_inputs(
            network, head, self._batches(strategy, data, self.transform)
        )
        if not bool(features.isfinite().all()):
            raise ValueError(
                "the inputs of the head are not finite; wanted finite numbers: did "
                "training diverge?"
            )
        parts = torch.split(features, [len(own) for own in candidates])
        return [
            herding_indices(part, min(self.per_class, len(part))).cpu()
            for part in parts
        ]

    def _batches(self, strategy: Any, data: Any, transform: str) -> Any:
        return batches_of(
            data.eval() if transform == "eval" else data.train(),
            strategy.device,
            batch_size=self.batch_size,
            memory_resident=self.memory_resident,
        )

    def _load(self, strategy: Any, data: Any, transform: str) -> tuple[Tensor, Tensor]:
        batches = [(x, y) for x, y, _ in self._batches(strategy, data, transform)]
        x, y = zip(*batches, strict=True)
        return torch.cat(x), torch.cat(y)


def head_inputs(network: nn.Module, head: str, batches: Any) -> Tensor:
    """What a layer is given for whole data, in evaluation mode.

    Args:
        network: Any network; found as it was.
        head: Name of the layer.
        batches: See `avalanche_ext.loaders.batches_of`.

    Returns:
        Shape ``(N, D)``.
    """
    found: list[Tensor] = []

    def keep(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.append(args[0].flatten(1))

    handle = network.get_submodule(head).register_forward_pre_hook(keep)
    try:
        with evaluating(network):
            for x, *_ in batches:
                network(x)
    finally:
        handle.remove()
    return torch.cat(found)
