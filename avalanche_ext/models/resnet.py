"""Residual networks as feature extractors whose features can be negative."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock, conv1x1, conv3x3


class BasicBlockNoReLU(BasicBlock):
    """torchvision's residual block without the activation after the addition.

    As the last block of a network it lets features take both signs, as a cosine
    classifier wants. Weights and names are those of `BasicBlock`.

    References:
        Hou et al., CVPR 2019 (LUCIR), section 3.2.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Residual sum of a batch of maps.

        Args:
            x: Shape ``(B, C, H, W)``.

        Returns:
            Shape ``(B, C', H', W')``, any sign.
        """
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return out + identity  # type: ignore[no-any-return]


def drop_last_relu(block: BasicBlock) -> BasicBlockNoReLU:
    """Turn a block into one without the final activation, in place.

    Args:
        block: The block; its weights are kept, only the activation goes.

    Returns:
        The same object.
    """
    block.__class__ = BasicBlockNoReLU
    return block  # type: ignore[no-any-return]


class CifarResNet(nn.Module):
    """Three-stage residual network for 32×32 images; features of size 4 × width.

    Args:
        n_blocks: Blocks a stage; 5 gives ResNet-32, 1 a ResNet-8.
        width: Channels of the first stage; the others have 2 and 4 times as many.
        in_channels: Image channels.

    Attributes:
        feature_size: Number of features, ``4 * width``.

    Raises:
        ValueError: If a size is not positive.

    References:
        He et al., CVPR 2016, section 4.2; shortcuts are 1×1 convolutions.
    """

    def __init__(
        self, n_blocks: int = 5, width: int = 16, in_channels: int = 3
    ) -> None:
        super().__init__()
        if min(n_blocks, width, in_channels) < 1:
            raise ValueError(
                f"n_blocks {n_blocks}, width {width}, in_channels {in_channels}; "
                "wanted each at least 1"
            )
        self.feature_size = 4 * width
        self.conv1 = conv3x3(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(width, width, n_blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, n_blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, n_blocks, stride=2)
        drop_last_relu(self.layer3[-1])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """Features of a batch of images.

        Args:
            x: Shape ``(B, C, H, W)``, H and W at least 4.

        Returns:
            Shape ``(B, 4 * width)``, any sign.
        """
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return x.mean((2, 3))


def _stage(n_in: int, n_out: int, n_blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or n_in != n_out:
        shortcut = nn.Sequential(conv1x1(n_in, n_out, stride), nn.BatchNorm2d(n_out))
    first = BasicBlock(n_in, n_out, stride, shortcut)
    return nn.Sequential(
        first, *(BasicBlock(n_out, n_out) for _ in range(n_blocks - 1))
    )


def resnet32_cifar(in_channels: int = 3) -> CifarResNet:
    """ResNet-32 for 32×32 images without the last activation; 64 features.

    Args:
        in_channels: Image channels.

    Returns:
        The feature extractor.

    Example:
        >>> import torch
        >>> resnet32_cifar()(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 64])
    """
    return CifarResNet(n_blocks=5, in_channels=in_channels)


def resnet18_cifar(in_channels: int = 3) -> ResNet:
    """ResNet-18 for 32×32 images without the last activation; 512 features.

    The stem is one 3×3 convolution of stride 1 and no max-pooling.

    Args:
        in_channels: Image channels.

    Returns:
        The feature extractor.
    """
    net = resnet18_imagenet(in_channels)
    net.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out")
    net.maxpool = nn.Identity()
    return net


def resnet18_imagenet(in_channels: int = 3) -> ResNet:
    """torchvision's ResNet-18, without classifier and last activation; 512 features.

    Args:
        in_channels: Image channels.

    Returns:
        The feature extractor; initialised at random.
    """
    net: Any = ResNet(BasicBlock, [2, 2, 2, 2])
    if in_channels != 3:
        net.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out")
    drop_last_relu(net.layer4[-1])
    net.fc = nn.Identity()
    net.feature_size = 512
    return net
