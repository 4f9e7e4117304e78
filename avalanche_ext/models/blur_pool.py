"""Convolutions that look at blurred maps before they skip pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from avalanche_ext._checks import require_whole


class Blur(nn.Module):
    r"""Each channel smoothed by the 3×3 binomial filter; the size stays.

    .. math:: \tfrac{1}{16} (1, 2, 1)^T (1, 2, 1)

    with zeros around the map. It has no parameters.

    Args:
        channels: C, >= 1.

    Raises:
        ValueError: If ``channels`` is not positive.

    Example:
        >>> Blur(1)(torch.full((1, 1, 3, 3), 16.0))[0, 0]
        tensor([[ 9., 12.,  9.],
                [12., 16., 12.],
                [ 9., 12.,  9.]])

    References:
        Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019.
    """

    weight: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        require_whole(1, channels=channels)
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        weight = torch.outer(row, row).repeat(channels, 1, 1, 1)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Blurred maps.

        Args:
            x: Shape ``(B, C, H, W)``.

        Returns:
            The same shape.
        """
        return conv2d(x, self.weight.to(x.dtype), padding=1, groups=len(self.weight))


def blur_before_strides(network: nn.Module, *, min_channels: int = 16) -> None:
    """Put a `Blur` before each convolution that skips pixels, in place.

    Args:
        network: Any network; its convolutions keep their weights.
        min_channels: Input channels from which on: images themselves stay sharp.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(16, 8, 3, stride=2))
        >>> blur_before_strides(net)
        >>> [type(layer).__name__ for layer in net[0]]
        ['Blur', 'Conv2d']
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if not isinstance(child, nn.Conv2d) or max(child.stride) == 1:
                continue
            if child.in_channels >= min_channels:
                setattr(module, name, nn.Sequential(Blur(child.in_channels), child))


def resnet18_blurpool(in_channels: int = 3) -> ResNet:
    """ResNet-18 that blurs before its strides, without classifier; 512 features >= 0.

    Weights are drawn as each layer of PyTorch does by itself, not as `ResNet` does.

    Args:
        in_channels: Image channels.

    Returns:
        The feature extractor.

    References:
        Daxberger et al., TMLR 2023 (ImageNet-1000).
    """
    net: Any = ResNet(BasicBlock, [2, 2, 2, 2])
    net.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    net.fc = nn.Identity()
    net.feature_size = 512
    blur_before_strides(net)
    return net
