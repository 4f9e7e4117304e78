"""The part of a network that belongs to one experience, as a network of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import torch
from avalanche.models import IncrementalClassifier
from torch import Tensor, nn

from avalanche_ext.models.linear_head import linear_head
from avalanche_ext.models.unit_layers import Keep, require_keep, unit_counts


class Submodel(nn.Module):
    r"""A copy of a model without some units, and with one experience's classes only.

    Rows of weights and biases of the units left out are zero, and so are weight, bias
    and running mean of the norm layer behind, if that is the site: such a unit gives
    exactly 0. It is in evaluation mode for good and has no gradients.

    As long as the rows that were kept (and the norm layers) stay the same in the
    shared network, copies made of it later give ``torch.equal`` outputs: a unit that
    was kept reads others that were, and zeros.

    Args:
        model: The shared network; a copy is made.
        keep: See `require_keep`; layers that are missing stay whole.
        classes: The experience's classes in rising order, rows of the head.
        head: Name of the layer that gives the logits, see `linear_head_name`. In
            Avalanche's `IncrementalClassifier` the masking is switched off.
        sites: See `mask_sites`.

    Attributes:
        network: The copy, whose layers have the names of the model's.
        classes, head, sites: As given.

    Raises:
        ValueError: If names, types or shapes do not fit the model.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 5))
        >>> keep = {"0": torch.tensor([True, False, True])}
        >>> part = Submodel(net, keep, (1, 4), head="2", sites={"0": "0", "2": "2"})
        >>> part(torch.ones(7, 2)).shape, part.network[0](torch.ones(1, 2))[0, 1]
        (torch.Size([7, 2]), tensor(0.))

    References:
        Bogacka et al., arXiv 2502.10789 (ReReLRP).
    """

    def __init__(
        self,
        model: nn.Module,
        keep: Keep,
        classes: Sequence[int],
        *,
        head: str,
        sites: Mapping[str, str],
    ) -> None:
        require_keep(keep, unit_counts(model, classes, head=head, sites=sites))
        super().__init__()
        self.head, self.sites = head, dict(sites)
        self.network = _copy(model).requires_grad_(False).eval()
        if head:
            parent = self.network.get_submodule(head.rpartition(".")[0])
            if isinstance(parent, IncrementalClassifier):
                parent.masking = False
        self._take(model, keep, classes)

    @torch.no_grad()
    def become(self, model: nn.Module, keep: Keep, classes: Sequence[int]) -> None:
        """Be another submodel of the same network, in the memory of this one.

        Args:
            model: The shared network; its head may have grown since the copy.
            keep: As of the class.
            classes: As of the class.

        Raises:
            ValueError: As of the class; nothing has changed then.
        """
        counts = unit_counts(model, classes, head=self.head, sites=self.sites)
        require_keep(keep, counts)
        for mine, now in zip(_tensors(self.network), _tensors(model), strict=True):
            if mine.shape == now.shape:
                mine.copy_(now)
            else:  # of the head
                mine.data = now.clone()
        self._take(model, keep, classes)

    def _take(self, model: nn.Module, keep: Keep, classes: Sequence[int]) -> None:
        """Rows of the head of some classes, and silence of the units left out."""
        self.classes = tuple(classes)
        layer, whole = (linear_head(m, self.head) for m in (self.network, model))
        for name in ("weight", "bias"):
            if (values := getattr(whole, name)) is not None:
                rows = values.detach()[list(classes)]
                setattr(layer, name, nn.Parameter(rows, requires_grad=False))
        layer.out_features = len(classes)
        for name, mask in keep.items():
            for each in {name, self.sites[name]}:
                _silence(self.network.get_submodule(each), ~mask)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the experience's own classes.

        Args:
            x: Inputs, first axis B.

        Returns:
            Shape ``(B, n_t)``, in the order of ``classes``.
        """
        logits: Tensor = self.network(x)
        return logits

    def train(self, mode: bool = True) -> Submodel:
        """Do nothing: what was learned stays as it is."""
        return self


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())


def _copy(model: nn.Module) -> nn.Module:
    """A deep copy; results of the last batch kept in attributes lose their graph."""
    results = {
        id(value): value.detach()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, results)


@torch.no_grad()
def _silence(module: nn.Module, off: Tensor) -> None:
    for name in ("weight", "bias", "running_mean"):
        values = getattr(module, name, None)
        if values is not None:
            values[off.to(values.device)] = 0
