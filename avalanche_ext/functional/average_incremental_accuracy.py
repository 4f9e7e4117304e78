"""Average incremental accuracy from an accuracy matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def average_incremental_accuracy(
    accuracy_matrix: Tensor, classes_per_experience: Sequence[int] | Tensor
) -> Tensor:
    r"""Average, over the experiences, the accuracy on all classes seen so far.

    .. math::
        A = \frac1E \sum_{i=1}^{E}
            \frac{\sum_{j \le i} n_j \, a_{ij}}{\sum_{j \le i} n_j}

    Each experience counts by its number of classes :math:`n_j`, which is the accuracy
    over the test images of all seen classes when every class has equally many.

    Args:
        accuracy_matrix: :math:`a_{ij}`, the accuracy on the test images of experience
            ``j`` right after training on experience ``i``, predicted among all classes
            seen; shape ``(E, E)``, fractions or percents. What lies above the diagonal
            (experiences not trained yet) is not read and may be NaN.
        classes_per_experience: :math:`n_j`, new classes of each experience; ``E``
            numbers > 0.

    Returns:
        The average, a scalar in the unit of ``accuracy_matrix``.

    Raises:
        ValueError: If the matrix is not square or empty, or the class counts do not fit
            it or are not positive.

    Example:
        Five classes at 0.9; then the five at 0.6 and five new ones at 0.8, so 0.7:

        >>> matrix = torch.tensor([[0.9, 0.0], [0.6, 0.8]])
        >>> average_incremental_accuracy(matrix, [5, 5])
        tensor(0.8000)

    References:
        Rebuffi et al., CVPR 2017 (iCaRL); Hou et al., CVPR 2019 (LUCIR).
    """
    counts = torch.as_tensor(
        classes_per_experience,
        dtype=accuracy_matrix.dtype,
        device=accuracy_matrix.device,
    )
    size = len(counts)
    if size == 0 or accuracy_matrix.shape != (size, size):
        raise ValueError(
            f"accuracy_matrix has the shape {tuple(accuracy_matrix.shape)}; wanted a "
            f"square one with a row for each of the {size} classes_per_experience"
        )
    if bool((counts <= 0).any()):
        raise ValueError(
            f"classes_per_experience is {counts.tolist()}; wanted numbers > 0"
        )
    seen = (accuracy_matrix.tril() * counts).sum(dim=1) / counts.cumsum(dim=0)
    return seen.mean()
