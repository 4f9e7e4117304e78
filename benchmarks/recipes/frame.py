"""What recipes share, so that methods are compared with nothing else different."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from benchmarks.recipes.recipe import MakeStrategy, Module, Optimizer, Plugin, Setup
from benchmarks.streams import STREAMS

EVAL_MB_SIZE = 256

Network = Literal["small_cnn", "resnet8", "resnet32", "resnet18"]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Stream, network, optimizer and schedule: all but the method.

    Args:
        stream: Name of the stream; the command `list` shows them.
        n_experiences: Number of experiences; null: the stream's own.
        first_experience_classes: Classes of the first experience; null: as many as of
            each other.
        class_order: natural (0, 1, 2...), icarl (of the papers since iCaRL: NumPy
            seed 1993), or null: drawn by stream_seed.
        images_per_class: Training images of each class, to scale a run down; null:
            all.
        stream_seed: Seed of the stream, apart from that of the training.
        network: Feature extractor: small_cnn for 8x8 to 28x28 images, resnet32 and
            resnet18 of the papers for 32x32, resnet8 (one block a stage) to scale a run
            down. The recipe adds its classifier.
        feature_size: Number of features of small_cnn.
        train_epochs: Passes over each experience.
        train_mb_size: Images of a mini-batch.
        lr: Learning rate at the start of each experience.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        milestones: Epochs after which the learning rate is divided by ten, e.g.
            [80,120].
        memory_resident: Hold the images on the device; auto: where they fit.
    """

    stream: str = "split_digits"
    n_experiences: PositiveInt | None = None
    first_experience_classes: PositiveInt | None = None
    class_order: Literal["natural", "icarl"] | None = None
    images_per_class: PositiveInt | None = None
    stream_seed: NonNegativeInt = 0
    network: Network = "small_cnn"
    feature_size: PositiveInt = 64
    train_epochs: PositiveInt = 10
    train_mb_size: PositiveInt = 32
    lr: PositiveFloat = 0.02
    momentum: ClosedUnitInterval = 0.9
    weight_decay: NonNegativeFloat = 0.0
    milestones: tuple[PositiveInt, ...] = ()
    memory_resident: Literal["auto"] | bool = "auto"

    def setup(self, make_strategy: MakeStrategy, *, memory: str) -> Setup:
        """Make what a recipe returns.

        Args:
            make_strategy: Builds the strategy.
            memory: What the method remembers, in a few words.

        Returns:
            The recipe's stream and options, and its protocol in a line.
        """
        names = (
            "n_experiences",
            "first_experience_classes",
            "class_order",
            "images_per_class",
        )
        options = {name: getattr(self, name) for name in names}
        given = {name: value for name, value in options.items() if value is not None}
        n = self.n_experiences or STREAMS[self.stream].n_experiences
        first = self.first_experience_classes
        words = [f"{self.stream}, {n} experiences"]
        words += [f"{first} classes first"] if first else []
        words += [f"{self.class_order} order"] if self.class_order else []
        few = self.images_per_class
        words += [f"{few} images a class"] if few else []
        words += [f"seed {self.stream_seed}"] if self.stream_seed else []
        return Setup(
            stream=self.stream,
            stream_options={**given, "seed": self.stream_seed},
            setting=f"{', '.join(words)}; {self.network}; {self.train_epochs} epochs",
            memory=memory,
            make_strategy=make_strategy,
        )

    def make_feature_extractor(self) -> Module:
        """Build the network without its classifier.

        Returns:
            A module that maps images ``(B, C, H, W)`` to features ``(B, D)`` and has
            D as ``feature_size``.
        """
        from avalanche_ext.models import (
            CifarResNet,
            SmallCNN,
            resnet18_cifar,
            resnet32_cifar,
        )

        channels = STREAMS[self.stream].image_shape[0]
        if self.network == "small_cnn":
            return SmallCNN(in_channels=channels, feature_size=self.feature_size)
        if self.network == "resnet8":
            return CifarResNet(n_blocks=1, in_channels=channels)
        make = resnet32_cifar if self.network == "resnet32" else resnet18_cifar
        return make(in_channels=channels)

    def make_sgd(self, model: Module) -> tuple[Optimizer, list[Plugin]]:
        """Build the optimizer, and the schedule that starts anew each experience.

        Args:
            model: The model.

        Returns:
            The optimizer, and the plugins (none without milestones) of the strategy.
        """
        from avalanche.training.plugins import LRSchedulerPlugin
        from torch.optim import SGD
        from torch.optim.lr_scheduler import MultiStepLR

        optimizer = SGD(
            model.parameters(),
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
        if not self.milestones:
            return optimizer, []
        schedule = MultiStepLR(optimizer, milestones=list(self.milestones), gamma=0.1)
        return optimizer, [LRSchedulerPlugin(schedule)]

    def template_options(self) -> dict[str, Any]:
        """Arguments of Avalanche's template: sizes of batches, number of epochs."""
        return {
            "train_mb_size": self.train_mb_size,
            "train_epochs": self.train_epochs,
            "eval_mb_size": EVAL_MB_SIZE,
        }
