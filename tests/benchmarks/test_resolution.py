"""Training on resized images."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import SIDE, naive_with, toy_benchmark
from torch import nn
from torch.testing import assert_close

from benchmarks.training.resolution import ResolutionPlugin, resolution_at


class Sizes(SupervisedPlugin):
    """Heights and widths of the batches a model is given."""

    def __init__(self):
        super().__init__()
        self.trained, self.evaluated, self.images = [], set(), []

    def before_training_iteration(self, strategy, **kwargs):
        self.images = [strategy.mb_x]

    def after_forward(self, strategy, **kwargs):
        self.trained.append(tuple(strategy.mb_x.shape[2:]))
        self.images.append(strategy.mb_x)

    def after_eval_forward(self, strategy, **kwargs):
        self.evaluated.add(tuple(strategy.mb_x.shape[2:]))


@pytest.mark.parametrize(
    ("sizes", "ramp", "wanted"),
    [
        # the published ramps, of 40 and of 16 epochs
        ((160, 192), (29, 34), {29: 160, 31: 160, 32: 192, 33: 192, 34: 192, 39: 192}),
        ((160, 192), (11, 13), {0: 160, 11: 160, 12: 192, 13: 192, 15: 192}),
        ((96, 192), (0, 6), {0: 96, 1: 128, 2: 128, 3: 128, 4: 160, 5: 192, 6: 192}),
    ],
)
def test_resolution_is_the_multiple_of_32_nearest_to_the_line(sizes, ramp, wanted):
    assert {epoch: resolution_at(epoch, sizes, ramp) for epoch in wanted} == wanted


def test_training_sees_the_resolution_of_its_epoch_and_evaluation_whole_images():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 6))
    sizes = Sizes()
    plugins = ResolutionPlugin((3, 9), (0, 1)), sizes
    strategy = naive_with(*plugins, model=model, train_mb_size=48, train_epochs=3)
    benchmark = toy_benchmark()
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience)
    strategy.eval(benchmark.test_stream)
    assert sizes.trained == 2 * [(3, 3), (9, 9), (9, 9)]
    assert sizes.evaluated == {(SIDE, SIDE)}


def test_halved_images_keep_their_mean_brightness():
    sizes = Sizes()
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 6))
    strategy = naive_with(ResolutionPlugin((3, 3), (0, 1)), sizes, model=model)
    strategy.train(toy_benchmark().train_stream[0])
    before, after = sizes.images
    assert_close(after.mean((2, 3)), before.mean((2, 3)), atol=0.3, rtol=0)
    assert not torch.equal(after, before[..., ::2, ::2])  # no pixel is skipped
