"""A small convolutional network for digits and the like."""

from __future__ import annotations

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Two convolutions and one linear layer, for images of 8×8 to 28×28 pixels.

    Args:
        in_channels: Image channels.
        feature_size: Number of features D.

    Attributes:
        feature_size: D.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> import torch
        >>> SmallCNN(feature_size=64)(torch.randn(2, 1, 28, 28)).shape
        torch.Size([2, 64])
    """

    def __init__(self, in_channels: int = 1, feature_size: int = 64) -> None:
        super().__init__()
        if min(in_channels, feature_size) < 1:
            raise ValueError(
                f"in_channels {in_channels} and feature_size {feature_size}; "
                "wanted each at least 1"
            )
        self.feature_size = feature_size
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, feature_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features of a batch of images.

        Args:
            x: Shape ``(B, C, H, W)``, H and W at least 2.

        Returns:
            Shape ``(B, D)``, any sign.
        """
        features: Tensor = self.layers(x)
        return features
