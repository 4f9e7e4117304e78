"""The small network for digits."""

from __future__ import annotations

import pytest
import torch

from avalanche_ext.models.small_cnn import SmallCNN


@pytest.mark.parametrize("side", [8, 16, 28])
def test_small_cnn_takes_images_of_8_to_28_pixels(side):
    features = SmallCNN(in_channels=3, feature_size=10)(torch.randn(4, 3, side, side))
    assert features.shape == (4, 10) and features.min() < 0 < features.max()


def test_sizes_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match="feature_size 0"):
        SmallCNN(feature_size=0)
