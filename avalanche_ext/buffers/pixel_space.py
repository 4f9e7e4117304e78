"""Pixels in 0 to 1, and the inputs of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from avalanche_ext.loaders.pixels import normalization_of, tensor_transforms_of

StorageDtype = Literal["float32", "uint8"]
Transform = Callable[[Tensor], Tensor]

#: By how much a pixel may lie outside 0 to 1: rounding of (un)normalising.
_SLACK = 1e-3


class PixelSpace:
    """How inputs of a network and pixels in 0 to 1 belong together.

    Args:
        mean: Of each channel (or one for all), as in `Normalize`.
        std: Likewise, > 0.
        dtype: ``"uint8"`` rounds to the nearest of 256 grey levels.
    """

    def __init__(self, mean: Tensor, std: Tensor, dtype: StorageDtype) -> None:
        self.mean, self.std, self.dtype = mean, std, dtype

    def pixels(self, x: Tensor) -> Tensor:
        """Inputs as they are stored.

        Args:
            x: Inputs of a network, ``(M, C, H, W)``.

        Returns:
            On the CPU, float32 in 0 to 1, or uint8.

        Raises:
            ValueError: If there are other numbers of channels than means, or pixels
                outside 0 to 1.
        """
        pixels = self.unnormalized(x)
        low, high = (float(v) for v in torch.aminmax(pixels))
        if not (low >= -_SLACK and high <= 1 + _SLACK):
            raise ValueError(
                f"pixels are {low:.4g} to {high:.4g} with mean {self.mean.tolist()} and "
                f"std {self.std.tolist()}; wanted 0 to 1: give mean and std such that "
                "inputs * std + mean are"
            )
        pixels = pixels.clamp(0, 1).cpu().contiguous()
        return (pixels * 255).round().byte() if self.dtype == "uint8" else pixels

    def unnormalized(self, x: Tensor) -> Tensor:
        """Inputs as pixels.

        Args:
            x: Inputs of a network, ``(M, C, H, W)``.

        Returns:
            float32, on the same device; in 0 to 1 up to rounding.
        """
        mean, std = self._of(x)
        return x.detach().float() * std + mean

    def inputs(self, pixels: Tensor, device: torch.device) -> Tensor:
        """Stored exemplars as the network sees them.

        Args:
            pixels: As `pixels` returned them.
            device: Where to.

        Returns:
            float32, ``(M, C, H, W)``.
        """
        x = pixels.float() / 255 if self.dtype == "uint8" else pixels
        return self.normalized(x, device)

    def normalized(self, x: Tensor, device: torch.device) -> Tensor:
        """Pixels as inputs.

        Args:
            x: float32 in 0 to 1, ``(M, C, H, W)``.
            device: Where to.

        Returns:
            float32, ``(M, C, H, W)``.
        """
        x = x.to(device)
        mean, std = self._of(x)
        return (x - mean) / std

    def box(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Least and largest input, a channel each.

        Args:
            x: Inputs, for their shape and device.

        Returns:
            Two tensors that broadcast against ``x``.
        """
        mean, std = self._of(x)
        return (0 - mean) / std, (1 - mean) / std

    def _of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        channels = x.shape[1] if x.ndim > 1 else 0
        if len(self.mean) not in (1, channels) or len(self.std) not in (1, channels):
            raise ValueError(
                f"mean has {len(self.mean)} and std {len(self.std)} values; wanted 1 or "
                f"{channels}, one for each channel of inputs {tuple(x.shape[1:])}"
            )
        shape = (1, -1, *[1] * (x.ndim - 2))
        mean = self.mean.to(x.device, torch.float32).view(shape)
        return mean, self.std.to(x.device, torch.float32).view(shape)


def space_of(
    dataset: Any,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: StorageDtype,
) -> PixelSpace:
    """The space of a data set's inputs.

    Args:
        dataset: As `normalization_of` takes it.
        mean: None: as the data are normalised.
        std: Likewise.
        dtype: See `PixelSpace`.

    Returns:
        The space.
    """
    own_mean, own_std = (
        None if given is None else torch.tensor([float(value) for value in given])
        for given in (mean, std)
    )
    if own_mean is None or own_std is None:
        found = normalization_of(dataset)
        own_mean = found[0] if own_mean is None else own_mean
        own_std = found[1] if own_std is None else own_std
    return PixelSpace(own_mean, own_std, dtype)


def augmentation_of(
    dataset: Any, transform: Transform | Literal["auto"] | None
) -> Transform | None:
    """What is done to exemplars in training.

    Args:
        dataset: The data of an experience.
        transform: As the user gave it; ``"auto"``: that of the data.

    Returns:
        The transform, of float images in 0 to 1, or None.
    """
    return tensor_transforms_of(dataset) if transform == "auto" else transform


def require_normalization(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> None:
    """Refuse what is no sequence of numbers, one a channel or one for all.

    Args:
        mean: As the user gave it.
        std: Likewise; its numbers are above 0.

    Raises:
        ValueError: For the first that does not fit.
    """
    for name, values in (("mean", mean), ("std", std)):
        if values is None:
            continue
        wanted = "finite numbers" if name == "mean" else "finite numbers above 0"
        try:
            given = torch.tensor([float(value) for value in values])
        except (TypeError, ValueError):
            given = torch.empty(0)
        good = bool(given.isfinite().all() & (name == "mean" or (given > 0).all()))
        if not len(given) or not good:
            raise ValueError(f"{name} is {values!r}; wanted a sequence of {wanted}")


def require_tensor_transform(
    transform: Transform, example: Tensor, *, same_shape: bool
) -> None:
    """Refuse a transform that cannot work on float tensors.

    Args:
        transform: Of one image.
        example: An image, float32 in 0 to 1, ``(C, H, W)``.
        same_shape: Whether images are to keep their shape.

    Raises:
        ValueError: If it fails, or gives something else than an image of that shape.
    """
    try:
        with torch.random.fork_rng(devices=[]):  # a trial leaves no trace
            seen = transform(example.clone())
    except Exception as error:
        raise ValueError(
            f"buffer_transform {transform!r} fails on a float tensor of shape "
            f"{tuple(example.shape)}, {type(error).__name__}: {error}; wanted transforms "
            "of tensors only, without ToTensor"
        ) from error
    right = isinstance(seen, Tensor) and (seen.shape == example.shape or not same_shape)
    if not right:
        shape = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
        raise ValueError(
            f"buffer_transform {transform!r} makes {shape} of a tensor of shape "
            f"{tuple(example.shape)}; wanted an image of the same shape"
        )
