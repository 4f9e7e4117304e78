"""MobileNetV1, whose layers are found under their names in the Caffe original."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from avalanche_ext._checks import require_kind, require_real, require_whole

#: Output channels and strides of the 13 pairs of the original.
CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


class MobileNetV1(nn.Module):
    """Pairs of depthwise and pointwise convolutions; features for a classifier.

    A block is a convolution without bias, batch normalisation and ReLU, named
    ``conv``, ``bn`` and ``relu``. The first block is ``conv1``; pairs of blocks are
    ``conv2_1``, ``conv2_2``, ``conv3_1``, ... with the blocks ``dw`` and ``sep``: the
    first number grows after each pair that halves the image, and a group of one pair
    has no second number. The end are ``pool6`` (with the number of the last group),
    an average over all of the image, and ``flatten``. By default this gives the 27
    blocks of the original. Weights are random; see `load_imagenet_weights`.

    Args:
        channels: Output channels of each pair, before ``width``.
        strides: Stride of each pair's depthwise convolution, 1 or 2.
        width: Factor of all channels, > 0; 1, 0.75, 0.5 and 0.25 are published.
        stem_channels: Output channels of ``conv1``, before ``width``.
        stem_stride: Its stride.
        in_channels: Image channels.

    Attributes:
        feature_size: Number of features, 1024 by default.
        layer_names: Module name of each layer by its Caffe name, in order of
            execution: ``"conv5_4/dw"`` is ``"conv5_4.dw"``. Inside a
            `FeatureClassifier` module names begin with ``"feature_extractor."``.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> import torch
        >>> net = MobileNetV1(width=0.25)
        >>> net(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 256])
        >>> net.get_submodule(net.layer_names["conv5_4/dw"]) is net.conv5_4.dw
        True

    References:
        Howard et al., arXiv 1704.04861. As backbone of AR1*: Pellegrini et al.,
        IROS 2020, with images of 128×128 pixels.
    """

    def __init__(
        self,
        channels: Sequence[int] = CHANNELS,
        strides: Sequence[int] = STRIDES,
        *,
        width: float = 1.0,
        stem_channels: int = 32,
        stem_stride: int = 2,
        in_channels: int = 3,
    ) -> None:
        _require_pairs(channels, strides)
        require_whole(1, stem_channels=stem_channels, stem_stride=stem_stride)
        require_whole(1, in_channels=in_channels)
        require_real(1e-6, width=width)
        super().__init__()
        stem, *sizes = (max(1, int(c * width)) for c in (stem_channels, *channels))
        self.conv1 = _block(in_channels, stem, 3, stem_stride)
        self.layer_names = {"conv1": "conv1"}
        pairs, n_in = pair_names(strides), stem
        for name, n_out, stride in zip(pairs, sizes, strides, strict=True):
            depthwise = _block(n_in, n_in, 3, stride, groups=n_in)
            pair = OrderedDict[str, nn.Module](dw=depthwise, sep=_block(n_in, n_out, 1))
            self.add_module(name, nn.Sequential(pair))
            self.layer_names |= {f"{name}/{part}": f"{name}.{part}" for part in pair}
            n_in = n_out
        pool = "pool" + name.removeprefix("conv").partition("_")[0]
        self.add_module(pool, nn.AdaptiveAvgPool2d(1))
        self.layer_names[pool] = pool
        self.flatten = nn.Flatten()
        self.feature_size = n_out
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Features of a batch of images.

        Args:
            x: Shape ``(B, C, H, W)``, any H and W.

        Returns:
            Shape ``(B, feature_size)``, not negative.
        """
        for layer in self.children():
            x = layer(x)
        return x


def mobilenet_v1_cifar(in_channels: int = 3, width: float = 1.0) -> MobileNetV1:
    """MobileNetV1 of 11 blocks for 32×32 images; 256 features of width 1.

    ``conv1`` keeps the resolution; the pairs are ``conv2_1`` to ``conv4``, whose maps
    are 8×8.

    Args:
        in_channels: Image channels.
        width: Factor of all channels.

    Returns:
        The feature extractor.

    Example:
        >>> import torch
        >>> net = mobilenet_v1_cifar(width=0.5)
        >>> net(torch.randn(2, 3, 32, 32)).shape, len(net.layer_names)
        (torch.Size([2, 128]), 12)
    """
    return MobileNetV1(
        (64, 128, 128, 256, 256),
        (1, 2, 1, 2, 1),
        width=width,
        stem_stride=1,
        in_channels=in_channels,
    )


def pair_names(strides: Sequence[int]) -> list[str]:
    """Names of the pairs of blocks, as the Caffe original counts them.

    Args:
        strides: Stride of each pair.

    Returns:
        One name a pair.

    Example:
        >>> pair_names([1, 2, 1, 2, 1])
        ['conv2_1', 'conv2_2', 'conv3_1', 'conv3_2', 'conv4']
    """
    ends = [i + 1 for i, stride in enumerate(strides) if stride == 2]
    groups = zip([0, *ends], [*ends, len(strides)], strict=True)
    return [
        f"conv{number}_{i + 1}" if end - start > 1 else f"conv{number}"
        for number, (start, end) in enumerate(groups, 2)
        for i in range(end - start)
    ]


def _require_pairs(channels: Sequence[int], strides: Sequence[int]) -> None:
    require_kind(Sequence, channels=channels, strides=strides)
    if not len(channels) or len(channels) != len(strides):
        raise ValueError(
            f"{len(channels)} channels and {len(strides)} strides; wanted as many of "
            "both, at least 1"
        )
    for channel in channels:
        require_whole(1, channels=channel)
    if not set(strides) <= {1, 2}:
        raise ValueError(f"strides are {tuple(strides)}; wanted each 1 or 2")


def _block(
    n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(
        n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    parts = OrderedDict[str, nn.Module](
        conv=conv, bn=nn.BatchNorm2d(n_out), relu=nn.ReLU(inplace=True)
    )
    return nn.Sequential(parts)
