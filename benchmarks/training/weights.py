"""Weights to start from: a file of the command ``pretrain``, or ImageNet's.

Importing this module does not load torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.names import UsageError

if TYPE_CHECKING:
    from torch.nn import Module


def load_weights(extractor: Module, file: str | Path) -> None:
    """Fill a network from a file of `pretrain`.

    Args:
        extractor: The network, without classifier.
        file: The file, or ``pytorchcv``, which fetches MobileNetV1's of ImageNet if
            it has no copy yet.

    Raises:
        UsageError: If the file is missing, is no file of weights, or is of another
            network, or pytorchcv's cannot be fetched.
    """
    import torch

    from avalanche_ext.models import load_imagenet_weights

    if file == "pytorchcv":
        try:
            load_imagenet_weights(extractor, file)
        except Exception as error:  # of the download: any kind
            raise UsageError(
                f"weights: none from pytorchcv ({_reason(error)}); wanted it "
                "installed, its file of MobileNetV1 there or to be downloaded"
            ) from error
        return
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        extractor.load_state_dict(state, strict=True)
    except FileNotFoundError as error:
        raise UsageError(
            f"weights: no file {file}; make it with: python -m benchmarks pretrain "
            f"{file}"
        ) from error
    except Exception as error:  # junk ends in any kind of them
        raise UsageError(
            f"weights: {file} does not fit {type(extractor).__name__} "
            f"({_reason(error)}); wanted a file that pretrain wrote for this network"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
