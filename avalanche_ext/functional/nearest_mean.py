"""Classification by the nearest class mean, and how exemplars move its loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from avalanche_ext._checks import require_whole
from avalanche_ext.functional.inner_loop import features_of, pulled_back
from avalanche_ext.functional.undisturbed import own, undisturbed, unwrapped

#: Shortest length divided by: a feature of zeros has score 0 and a finite gradient.
EPS = 1e-8


class MeanGradient(NamedTuple):
    """What `mean_classifier_gradient` returns.

    Attributes:
        loss: Mean cross-entropy over the batch, a scalar.
        gradient: Its gradient, of the exemplars' shape.
    """

    loss: Tensor
    gradient: Tensor


def unit_class_means(
    features: Tensor,
    targets: Tensor,
    n_classes: int,
    second_view: Tensor | None = None,
) -> Tensor:
    r"""Mean direction of each class, over one view of its samples or two.

    .. math:: \mu_k = \operatorname{unit}\Big(\tfrac{1}{N_k} \sum_{i: y_i = k}
        \tfrac12 (\bar f_i + \bar f'_i)\Big), \qquad
        \bar v = \operatorname{unit}(v) = v / \max(\lVert v \rVert_2, 10^{-8})

    Args:
        features: Features of the samples, shape ``(N, D)``, N >= 0; half precision is
            computed in float32.
        targets: Their classes, int64 in ``0 .. n_classes - 1``, shape ``(N,)``.
        n_classes: Number of classes K, >= 1.
        second_view: Features :math:`f'` of the same samples seen differently, e.g.
            mirrored, ``(N, D)``; None: the first view alone.

    Returns:
        Means of length 1, shape ``(K, D)``; 0 for a class without samples.

    Raises:
        ValueError: If shapes do not fit or a target is out of range.

    Example:
        >>> x = torch.tensor([[3.0, 0.0], [0.0, 5.0], [0.0, 1.0]])
        >>> unit_class_means(x, torch.tensor([2, 0, 0]), 3)
        tensor([[0., 1.],
                [0., 0.],
                [1., 0.]])

    References:
        Rebuffi et al., CVPR 2017 (iCaRL); two views: its code, and that of Liu et al.,
        CVPR 2020 (Mnemonics).
    """
    require_whole(1, n_classes=n_classes)
    _require_rows("targets", targets, features)
    if second_view is not None and second_view.shape != features.shape:
        raise ValueError(
            f"second_view is {tuple(second_view.shape)}; wanted the shape of features, "
            f"{tuple(features.shape)}"
        )
    _require_range("targets", targets, 0, n_classes - 1)
    unit = _unit(features)
    if second_view is not None:
        unit = (unit + _unit(second_view)) / 2
    return _unit(_class_means(unit, targets, n_classes))


def nearest_mean_scores(features: Tensor, means: Tensor) -> Tensor:
    r"""Cosine of the angle between each feature and each class mean.

    .. math:: s_{bk} = \langle \bar f_b, \bar \mu_k \rangle, \qquad
        \bar v = v / \max(\lVert v \rVert_2, 10^{-8})

    The largest belongs to the nearest mean: of unit vectors
    :math:`\lVert \bar f - \bar \mu \rVert^2 = 2 - 2 s`.

    Args:
        features: Shape ``(B, D)``; half precision is computed in float32.
        means: One row a class, shape ``(K, D)``. A row of zeros, as
            `unit_class_means` gives for a class without samples, scores 0, which may
            be the largest: mask such columns.

    Returns:
        Scores, shape ``(B, K)``, in ``[-1, 1]`` up to rounding.

    Raises:
        ValueError: If the two feature dimensions differ.

    Example:
        >>> x = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
        >>> nearest_mean_scores(x, torch.eye(2))
        tensor([[1., 0.],
                [0., 0.]])
    """
    if features.shape[-1] != means.shape[-1]:
        raise ValueError(
            f"features have {features.shape[-1]} dimensions, means {means.shape[-1]}; "
            "wanted the same number"
        )
    return _unit(features) @ _unit(means).T


def mean_classifier_gradient(
    extractor: nn.Module,
    exemplars: Tensor,
    positions: Tensor,
    x: Tensor,
    y: Tensor,
    *,
    old_means: Tensor | None = None,
    chunk: int | None = 32,
) -> MeanGradient:
    r"""Gradient for exemplars whose class means are to classify other data.

    .. math:: \mu_k = \tfrac{1}{M_k} \sum_{m: y_m = k} f(e_m), \qquad
        L = -\tfrac1B \sum_b \log \operatorname{softmax}_k
        \langle \bar f(x_b), \bar \mu_k \rangle_{y_b}, \qquad g_m = \partial L /
        \partial e_m

    Plain means of features that are not scaled to unit length; means of old classes
    are constants. The extractor runs in evaluation mode and full precision; neither it
    nor any ``.grad`` is changed, and the call works under `torch.no_grad` too. Exemplars
    are taken chunk by chunk, once without graph for the means and once for the
    gradient, so that memory does not grow with their number.

    Args:
        extractor: Maps a batch of inputs to features ``(B, D)``, each row from its own
            input alone.
        exemplars: Inputs :math:`e`, floats, shape ``(M, ...)``, M >= 1.
        positions: Their classes' columns, int64, ``(M,)``: those from K_o on, each at
            least once.
        x: Inputs of the batch, shape ``(B, ...)``, B >= 1.
        y: Their classes' columns, int64 in ``0 .. K - 1``, ``(B,)``, K being the
            largest position + 1.
        old_means: Means of the classes ``0 .. K_o - 1``, ``(K_o, D)``; None: K_o = 0.
        chunk: Inputs at once, >= 1; None: all.

    Returns:
        Loss and gradient, both without graph.

    Raises:
        ValueError: If shapes do not fit, a position or class is out of range, a class
            has neither old mean nor exemplar, or the features are not ``(B, D)``.

    Example:
        >>> e, x = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0]])
        >>> y = torch.tensor([0])
        >>> mean_classifier_gradient(nn.Identity(), e, torch.tensor([0, 1]), x, y)[1]
        tensor([[0.0000, 0.0000],
                [0.1345, 0.0000]])

    References:
        Code of Liu et al., CVPR 2020 (Mnemonics), as last released.
    """
    n_old = 0 if old_means is None else len(old_means)
    n_classes = _checked_classes(exemplars, positions, x, y, n_old)
    if chunk is not None:
        require_whole(1, chunk=chunk)
    extractor = unwrapped(extractor)
    with undisturbed(extractor, exemplars.device):
        inputs = own(exemplars)
        found = _features(extractor, inputs, chunk).requires_grad_()
        seen = _features(extractor, own(x), chunk)
        means = _class_means(found, own(positions) - n_old, n_classes - n_old)
        if old_means is not None:
            if old_means.shape[1:] != means.shape[1:]:
                raise ValueError(
                    f"old_means are {tuple(old_means.shape)}; wanted {means.shape[1]} "
                    "columns, as the extractor returns features"
                )
            means = torch.cat([own(old_means).to(means), means])
        loss = cross_entropy(nearest_mean_scores(seen, means), own(y))
        (upstream,) = torch.autograd.grad(loss, found)
        gradient = pulled_back(extractor, inputs, upstream, chunk)
    return MeanGradient(loss.detach(), gradient)


def _features(extractor: nn.Module, x: Tensor, chunk: int | None) -> Tensor:
    features = features_of(extractor, x, chunk)
    if features.ndim != 2:
        raise ValueError(
            f"the extractor returned {tuple(features.shape)}; wanted features (B, D)"
        )
    return features


def _unit(rows: Tensor) -> Tensor:
    if rows.dtype in (torch.float16, torch.bfloat16):
        rows = rows.float()  # the shortest length is 0 in half precision
    return normalize(rows, dim=-1, eps=EPS)


def _class_means(rows: Tensor, targets: Tensor, n_classes: int) -> Tensor:
    """Plain mean of each class's rows, 0 without any."""
    sums = rows.new_zeros(n_classes, rows.shape[1]).index_add(0, targets, rows)
    counts = torch.bincount(targets, minlength=n_classes)
    return sums / counts.clamp(min=1)[:, None]


def _checked_classes(
    exemplars: Tensor, positions: Tensor, x: Tensor, y: Tensor, n_old: int
) -> int:
    """Number of classes, old and new."""
    if not exemplars.is_floating_point() or not len(exemplars) or not len(x):
        raise ValueError(
            f"{len(exemplars)} exemplars of {exemplars.dtype} and {len(x)} inputs; "
            "wanted floats, at least one of each"
        )
    _require_rows("positions", positions, exemplars)
    _require_rows("y", y, x)
    n_classes = int(positions.max()) + 1
    _require_range("positions", positions, n_old, n_classes - 1)
    _require_range("y", y, 0, n_classes - 1)
    counts = torch.bincount(positions - n_old, minlength=n_classes - n_old)
    if bool((counts == 0).any()):
        raise ValueError(
            f"exemplars a class from position {n_old} on are {counts.tolist()}; wanted "
            "at least one of each"
        )
    return n_classes


def _require_rows(name: str, labels: Tensor, rows: Tensor) -> None:
    if labels.shape != rows.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"{name} is {labels.dtype} of shape {tuple(labels.shape)}; wanted one "
            f"int64 for each of {len(rows)} samples"
        )


def _require_range(name: str, labels: Tensor, lowest: int, highest: int) -> None:
    if len(labels) == 0:
        return
    low, high = torch.stack(labels.aminmax()).tolist()
    if low < lowest or high > highest:
        raise ValueError(
            f"{name} go from {low} to {high}; wanted them within {lowest} to {highest}"
        )
