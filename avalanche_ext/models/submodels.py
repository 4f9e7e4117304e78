"""Which units and classes of a shared network belong to each experience."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from avalanche.models import DynamicModule
from torch import Tensor, nn

from avalanche_ext._checks import require_whole
from avalanche_ext.functional.functional_prior import MASKED
from avalanche_ext.functional.relevance import Capacity, capacity, frozen_units
from avalanche_ext.models.batch_renorm import BatchRenorm
from avalanche_ext.models.linear_head import linear_head
from avalanche_ext.models.submodel import Submodel
from avalanche_ext.models.submodel_stack import SubmodelStack

NORMS = (nn.modules.batchnorm._NormBase, BatchRenorm)


class Submodels:
    """A growing list of submodels, each a mask of units and some rows of the head.

    Args:
        head: Dotted name of the layer that gives the logits.
        sites: Where units are masked, see `mask_sites`.
        unpruned_first: As long as there is one, let it answer with all units.

    Attributes:
        classes: Class ids of each, ascending.
        keeps: Units kept by each, bool ``(C,)`` by layer, on the CPU.
    """

    def __init__(
        self, head: str, sites: Mapping[str, str], *, unpruned_first: bool = False
    ) -> None:
        self.head, self.sites = head, dict(sites)
        self.unpruned_first = unpruned_first
        self.classes: list[tuple[int, ...]] = []
        self.keeps: list[dict[str, Tensor]] = []

    def __len__(self) -> int:
        return len(self.classes)

    def append(self, classes: Sequence[int], keep: Mapping[str, Tensor]) -> None:
        """Add one.

        Args:
            classes: Its class ids, ascending.
            keep: Its units, bool ``(C,)`` by layer; of the head its own rows.

        Raises:
            ValueError: If a class has an owner already, or the layers are not all those
                with sites: units of a missing one would not be frozen.
        """
        again = sorted(set(self.known) & set(classes))
        if again:
            raise ValueError(
                f"classes are {tuple(classes)}, of which {again} have a submodel; "
                "wanted new ones"
            )
        if keep.keys() != self.sites.keys():
            raise ValueError(
                f"keep has masks of {', '.join(keep) or 'no layer'}; wanted them of "
                f"all: {', '.join(self.sites)}"
            )
        self.classes.append(tuple(classes))
        self.keeps.append({name: units.cpu() for name, units in keep.items()})

    @property
    def known(self) -> list[int]:
        """Class ids of all of them."""
        return [label for own in self.classes for label in own]

    def of(self, model: nn.Module, k: int, *, answering: bool = False) -> Submodel:
        """One of them as a network of its own.

        Args:
            model: The shared network as it is now.
            k: Which one, from 0.
            answering: Heed ``unpruned_first``.

        Returns:
            A copy, see `Submodel`.

        Raises:
            ValueError: If there is none of that number.
        """
        require_whole(0, k=k)
        if k >= len(self):
            raise ValueError(f"k is {k}; wanted less than {len(self)}, those there are")
        return self.whole(model, self.classes[k], self.in_use(answering)[k])

    def all_of(self, model: nn.Module, *, answering: bool = False) -> list[Submodel]:
        """All of them, each a network of its own.

        Args:
            model: The shared network as it is now.
            answering: Heed ``unpruned_first``.

        Returns:
            Copies, see `Submodel`.
        """
        return [self.of(model, k, answering=answering) for k in range(len(self))]

    def whole(
        self, model: nn.Module, classes: Sequence[int], keep: Mapping[str, Tensor] = {}
    ) -> Submodel:
        """A network of its own for some classes.

        Args:
            model: The shared network as it is now.
            classes: Class ids, ascending.
            keep: Units kept, by layer; of other layers all.

        Returns:
            A copy, see `Submodel`.
        """
        return Submodel(model, keep, classes, head=self.head, sites=self.sites)

    def stack(self, model: nn.Module, *, answering: bool = False) -> SubmodelStack:
        """All of them in one pass.

        Args:
            model: The shared network.
            answering: Heed ``unpruned_first``.

        Returns:
            See `SubmodelStack`.
        """
        keeps = self.in_use(answering)
        return SubmodelStack(
            model, keeps, self.classes, head=self.head, sites=self.sites
        )

    def in_use(self, answering: bool) -> list[dict[str, Tensor]]:
        """The units that answer, or are looked at.

        Args:
            answering: Heed ``unpruned_first``.

        Returns:
            Those of each submodel, by layer.
        """
        alone = self.unpruned_first and len(self) == 1
        return [{}] if answering and alone else self.keeps

    def new_of(self, classes: Sequence[int], *, strict: bool) -> tuple[int, ...]:
        """Classes that none of them knows.

        Args:
            classes: Class ids.
            strict: Whether there may be no others.

        Returns:
            Those without a submodel.

        Raises:
            ValueError: If there are others and ``strict``.
        """
        again = sorted(set(classes) & set(self.known))
        if again and strict:
            raise ValueError(
                f"classes {again} were learned before; wanted new classes only, or "
                "on_repeat='ignore'"
            )
        return tuple(label for label in classes if label not in again)

    def owners(self, targets: Tensor) -> Tensor:
        """Which submodel knows the class of each sample.

        Args:
            targets: Class ids, shape ``(B,)``.

        Returns:
            Shape ``(B,)``; -1 for classes of none.
        """
        return owners_of(self.classes, targets)

    def frozen_rows(self, model: nn.Module) -> dict[str, Tensor]:
        """Rows of weights that no submodel may see change.

        Args:
            model: The shared network as it is now.

        Returns:
            By layer, bool ``(C,)``: units of any submodel, and the head's rows of their
            classes. All other modules with parameters or buffers of their own (norms,
            PReLU) are frozen whole: True, of shape ``()``.
        """
        if not len(self):
            return {}
        rows = frozen_units(self._bodies())
        layer = linear_head(model, self.head)
        rows[self.head] = torch.zeros(layer.out_features, dtype=torch.bool)
        for own in self.classes:
            rows[self.head][list(own)] = True
        for name, module in model.named_modules():
            held = any(
                True for _ in chain(module.parameters(False), module.buffers(False))
            )
            growing = isinstance(module, DynamicModule)  # the host's own business
            if held and name not in rows and not growing:
                rows[name] = torch.ones((), dtype=torch.bool)
        return rows

    def capacity(self) -> dict[str, Capacity]:
        """How they share the units of each layer below the head."""
        return capacity(self._bodies())

    def _bodies(self) -> list[dict[str, Tensor]]:
        """Units kept below the head, whose rows are nobody else's."""
        return [
            {name: units for name, units in keep.items() if name != self.head}
            for keep in self.keeps
        ]

    def memory_bytes(self) -> int:
        """Bytes of the masks."""
        return sum(units.nbytes for keep in self.keeps for units in keep.values())

    def state_dict(self) -> dict[str, Any]:
        """Classes and masks."""
        return {"classes": list(self.classes), "keeps": list(self.keeps)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put classes and masks back.

        Args:
            state: As returned by `state_dict`.
        """
        self.classes = [tuple(own) for own in state["classes"]]
        self.keeps = [dict(keep) for keep in state["keeps"]]


def widened(logits: Tensor, classes: Sequence[int], width: int) -> Tensor:
    """Logits of some classes among those of all; the others are masked.

    Args:
        logits: Shape ``(B, n)``.
        classes: Ids of the n classes.
        width: K, of all classes.

    Returns:
        Shape ``(B, K)``, -1000 for other classes.
    """
    wide = logits.new_full((len(logits), width), MASKED)
    wide[:, list(classes)] = logits
    return wide


def owners_of(classes: Sequence[Sequence[int]], targets: Tensor) -> Tensor:
    """Which list of classes each target is in.

    Args:
        classes: Lists without a class in common.
        targets: Class ids, ``(B,)``.

    Returns:
        Shape ``(B,)``; -1 for classes in none.

    Example:
        >>> owners_of([(0, 1), (4,)], torch.tensor([4, 0, 3, 9]))
        tensor([ 1,  0, -1, -1])
    """
    known = [label for own in classes for label in own]
    table = torch.full((max([*known, -1]) + 2,), -1)
    for k, own in enumerate(classes):
        table[list(own)] = k
    last = len(table) - 1  # of classes beyond those known
    return table.to(targets.device)[targets.clamp(max=last)]
