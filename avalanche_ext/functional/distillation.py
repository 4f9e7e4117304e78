"""Distillation of softened class probabilities."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from avalanche_ext._checks import require_positive
from avalanche_ext.functional.precision import at_least_float32


def distillation_loss(
    logits: Tensor, reference: Tensor, temperature: float = 2.0
) -> Tensor:
    r"""Divergence of the softened probabilities from those of a reference.

    .. math:: L = \frac{1}{B} \sum_{b,k} q_{bk} \log \frac{q_{bk}}{p_{bk}}, \qquad
        q = \mathrm{softmax}(r / T), \quad p = \mathrm{softmax}(z / T)

    There is no factor :math:`T^2`: gradients fall with :math:`1 / T^2`. The
    cross-entropy :math:`-\sum q \log p` that papers print has the same gradients, but
    is not 0 where the two agree.

    Args:
        logits: :math:`z` of the classes both know, shape ``(B, K)``, K > 0; half
            precision is computed in float32.
        reference: :math:`r`, of the same classes, shape ``(B, K)``.
        temperature: T > 0; high ones weigh all classes alike.

    Returns:
        Scalar >= 0, in nats; 0 if the probabilities agree, and for a single class.

    Raises:
        ValueError: If the shapes differ or are not ``(B, K)``, there is no class, or
            the temperature is not positive.

    Example:
        >>> import torch
        >>> even, sure = torch.zeros(1, 2), torch.tensor([[2 * torch.tensor(3.0).log(), 0]])
        >>> distillation_loss(sure, even, temperature=2.0)  # 0.5 log(4/3), (3/4, 1/4)
        tensor(0.1438)

    References:
        Hinton et al., 2015; Li and Hoiem, ECCV 2016 (LwF); Liu et al., CVPR 2020
        (mnemonics), whose code writes it as mean over batch and classes times
        :math:`T^2 \beta K`, with :math:`T^2 \beta = 1`.
    """
    require_positive(temperature=temperature)
    if logits.ndim != 2 or logits.shape != reference.shape or not logits.shape[1]:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)}, reference "
            f"{tuple(reference.shape)}; wanted both (B, K), with at least one class"
        )
    ours, theirs = (
        log_softmax(at_least_float32(each) / temperature, dim=1)
        for each in (logits, reference)
    )
    return kl_div(ours, theirs, reduction="batchmean", log_target=True)
