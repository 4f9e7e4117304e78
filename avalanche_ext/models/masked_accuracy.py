"""Accuracy of a model without some of its units, fast for a sequence of masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from avalanche_ext._checks import require_kind, require_whole
from avalanche_ext.models.remembered_calls import RememberedCalls
from avalanche_ext.models.unit_layers import (
    Keep,
    off_units,
    require_keep,
    unit_counts,
)

if TYPE_CHECKING:
    from typing import Self


class MaskedAccuracy:
    r"""Percent of images that a masked model gets right, for many masks.

    .. math:: A = \frac{100}{N} \sum_{n=1}^{N}
        \big[ y_n = \mathcal C[\arg\max_i f_{\mathcal C[i]}(x_n)] \big]

    over the experience's own classes :math:`\mathcal C` only, with the units left out
    giving 0 at their sites. It is a context manager, within which the weights must
    not change: what modules returned for the last masks is kept, and only what comes
    after a unit whose mask changed is run again (see `RememberedCalls`). The result is
    that of running the masked model on the same batches. The model is altered only
    during a call, and what is kept is dropped at the exit.

    Args:
        model: The shared network, deterministic in evaluation mode.
        x: Images on the model's device, shape ``(N, ...)``.
        y: Their labels, each one of the classes, shape ``(N,)``.
        classes: The experience's classes in rising order, rows of the head.
        head: Name of the layer that gives the logits.
        sites: See `mask_sites`.
        batch_size: Images in a pass.
        cache_bytes: Memory for what is kept: for images of 32x32 about 1.5 MB each in a
            VGG-11, 7 MB in a ResNet-18. Batches that do not fit are run plainly.

    Raises:
        ValueError: If the arguments do not fit each other, or there are no images; at
            a call, if the masks do not fit the model, or it is outside of the context.

    Example:
        >>> net = nn.Linear(2, 2, bias=False)
        >>> net.weight = nn.Parameter(torch.eye(2))
        >>> x, y = torch.tensor([[3.0, 1.0], [2.0, 4.0]]), torch.tensor([0, 1])
        >>> with MaskedAccuracy(net, x, y, (0, 1), head="", sites={"": ""}) as accuracy:
        ...     accuracy({}), accuracy({"": torch.tensor([False, True])})
        (100.0, 50.0)

    References:
        Bogacka et al., arXiv 2502.10789 (ReReLRP).
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        classes: Sequence[int],
        *,
        head: str,
        sites: Mapping[str, str],
        batch_size: int = 128,
        cache_bytes: int = 2**30,
    ) -> None:
        self._counts = unit_counts(model, classes, head=head, sites=sites)
        require_whole(1, batch_size=batch_size)
        require_whole(0, cache_bytes=cache_bytes)
        require_kind(Tensor, x=x, y=y)
        if not len(x) or y.shape != (len(x),):
            raise ValueError(
                f"labels of shape {tuple(y.shape)} for {len(x)} images; wanted one for "
                "each, and at least one"
            )
        self._rows = torch.tensor(classes, device=x.device)
        self._y = y.to(x.device)
        if not torch.isin(self._y, self._rows).all():
            raise ValueError(
                f"y has classes {sorted(set(y.tolist()))}; wanted only the "
                f"experience's own, {tuple(classes)}"
            )
        self.model, self.classes, self.head = model, tuple(classes), head
        self.sites = dict(sites)
        self._batches = torch.split(x, batch_size)
        self._cache_bytes = cache_bytes
        self._calls: RememberedCalls | None = None
        self._keep: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        self._calls = RememberedCalls(self.model, self._batches, self._cache_bytes)
        self._keep = {}
        return self

    def __exit__(self, *error: object) -> None:
        self._calls = None

    def __call__(self, keep: Keep) -> float:
        """Accuracy with these units.

        Args:
            keep: See `require_keep`; layers that are missing stay whole.

        Returns:
            Percent.
        """
        if self._calls is None:
            raise ValueError("accuracy is called outside of its with block")
        require_keep(keep, self._counts)
        self._set(self._calls, keep)
        predicted = [
            self._rows[logits[:, self._rows].argmax(1)] for logits in self._calls.run()
        ]
        right = int((torch.cat(predicted) == self._y).sum())
        return 100 * right / len(self._y)

    def _set(self, calls: RememberedCalls, keep: Keep) -> None:
        changed = {n: m for n, m in keep.items() if not self._is_set(n, m)}
        whole = [n for n in self._keep if n not in keep]
        off = off_units(self.model, changed, self.classes, head=self.head)
        for name in (*whole, *off):
            site = self.model.get_submodule(self.sites[name])
            calls.set_mask(site, off.get(name))
        self._keep = {name: mask.clone() for name, mask in keep.items()}

    def _is_set(self, name: str, mask: Tensor) -> bool:
        before = self._keep.get(name)
        if before is None:
            return bool(mask.all())
        return torch.equal(mask, before)
