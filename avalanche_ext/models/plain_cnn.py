"""Plain networks of the papers, without residuals, as feature extractors."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models import VGG
from torchvision.models.vgg import cfgs, make_layers

from avalanche_ext._checks import require_whole


class _Sequence(nn.Module):
    """Layers one after the other, with the number of features they give."""

    def __init__(self, feature_size: int, *layers: nn.Module) -> None:
        super().__init__()
        self.feature_size = feature_size
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Features of a batch.

        Args:
            x: Shape ``(B, C, H, W)``.

        Returns:
            Shape ``(B, feature_size)``.
        """
        features: Tensor = self.layers(x)
        return features


class CifarNet(_Sequence):
    """Four convolutions and one linear layer with dropout, for 32×32 images.

    With a classifier of 60 classes it has the 1 276 508 parameters of the paper.

    Args:
        in_channels: Image channels.

    Attributes:
        feature_size: 512.

    Example:
        >>> import torch
        >>> CifarNet()(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 512])

    References:
        Zenke et al., ICML 2017; Daxberger et al., TMLR 2023 (Split-CIFAR).
    """

    def __init__(self, in_channels: int = 3) -> None:
        require_whole(1, in_channels=in_channels)
        layers: list[nn.Module] = []
        for inputs, width in ((in_channels, 32), (32, 64)):
            layers += [
                nn.Conv2d(inputs, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, width, 3),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Dropout(0.25),
            ]
        head = (nn.Flatten(), nn.Linear(2304, 512), nn.ReLU(), nn.Dropout(0.5))
        super().__init__(512, *layers, *head)


class TinyVGG(_Sequence):
    """Six convolutions and two linear layers, for 64×64 images.

    Args:
        in_channels: Image channels.

    Attributes:
        feature_size: 512.

    Example:
        >>> import torch
        >>> TinyVGG()(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 512])

    References:
        Daxberger et al., TMLR 2023 (Split-TinyImageNet).
    """

    def __init__(self, in_channels: int = 3) -> None:
        require_whole(1, in_channels=in_channels)
        layers: list[nn.Module] = []
        inputs = in_channels
        for widths in ((64,), (64,), (128, 128), (256, 256)):
            for width in widths:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        head: list[nn.Module] = [nn.Flatten()]
        for inputs in (4096, 512):
            head += [nn.Linear(inputs, 512), nn.ReLU()]
        super().__init__(512, *layers, *head)


class MLP(_Sequence):
    """Two linear layers, each followed by an activation.

    Args:
        in_features: Numbers of an input, C × H × W.
        feature_size: Width of both layers.

    Attributes:
        feature_size: As given.

    Example:
        >>> import torch
        >>> MLP(784)(torch.randn(2, 1, 28, 28)).shape
        torch.Size([2, 256])
    """

    def __init__(self, in_features: int, feature_size: int = 256) -> None:
        require_whole(1, in_features=in_features, feature_size=feature_size)
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs in (in_features, feature_size):
            layers += [nn.Linear(inputs, feature_size), nn.ReLU()]
        super().__init__(feature_size, *layers)


class LeNet(_Sequence):
    """Two convolutions and two linear layers, for grey images of 28×28 pixels or so.

    Args:
        in_channels: Image channels.
        image_size: Height and width of an image, at least 16.

    Attributes:
        feature_size: 84.

    Example:
        >>> import torch
        >>> LeNet()(torch.randn(2, 1, 28, 28)).shape
        torch.Size([2, 84])

    References:
        LeCun et al., Proceedings of the IEEE 1998 (LeNet-5), with ReLU and max-pooling.
    """

    def __init__(self, in_channels: int = 1, image_size: int = 28) -> None:
        require_whole(1, in_channels=in_channels)
        require_whole(16, image_size=image_size)
        layers: list[nn.Module] = []
        inputs, side = in_channels, image_size
        for width in (6, 16):
            layers += [nn.Conv2d(inputs, width, 5), nn.ReLU(), nn.MaxPool2d(2)]
            inputs, side = width, (side - 4) // 2
        layers.append(nn.Flatten())
        inputs *= side**2
        for width in (120, 84):
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        super().__init__(84, *layers)


def vgg11(in_channels: int = 3) -> VGG:
    """torchvision's VGG11 without its last layer, at random; 4096 features.

    Args:
        in_channels: Image channels.

    Returns:
        The feature extractor, for images of at least 32×32 pixels.

    References:
        Simonyan and Zisserman, ICLR 2015 (configuration A).
    """
    require_whole(1, in_channels=in_channels)
    layers: Any = make_layers(cfgs["A"])
    if in_channels != 3:
        layers[0] = nn.Conv2d(in_channels, 64, 3, padding=1)
    net: Any = VGG(layers)
    net.classifier[-1] = nn.Identity()
    net.feature_size = 4096
    return net
