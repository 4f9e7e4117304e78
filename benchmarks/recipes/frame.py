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

from benchmarks.names import UsageError
from benchmarks.recipes.recipe import MakeStrategy, Module, Optimizer, Plugin, Setup
from benchmarks.streams import STREAMS
from benchmarks.streams.fields import ClassOrder

EVAL_MB_SIZE = 256

#: Of every recipe's smoke run: one epoch on a stream that needs no download.
SMOKE_FRAME = {
    "stream": "split_digits",
    "n_experiences": None,
    "first_experience_classes": None,
    "class_order": None,
    "images_per_class": None,
    "train_epochs": 1,
}

Network = Literal[
    "small_cnn",
    "mlp",
    "resnet8",
    "resnet32",
    "resnet18",
    "resnet18_imagenet",
    "resnet18_blurpool",
    "cifarnet",
    "lenet",
    "tiny_vgg",
    "vgg11",
    "mobilenet",
    "mobilenet_cifar",
]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Stream, network, optimizer and schedule: all but the method.

    Args:
        stream: Name of the stream; the command `list` shows them.
        n_experiences: Number of experiences, the first included (6 for 50 + 5x10
            classes); null: the stream's own.
        first_experience_classes: Classes of the first experience; null: as many as of
            each other.
        class_order: natural (0, 1, 2...), icarl (of the papers since iCaRL: NumPy
            seed 1993), ewc_fr_replay (of that paper, for Tiny-ImageNet), or null:
            drawn by stream_seed.
        images_per_class: Training images of each class, to scale a run down; null:
            all.
        task_labels: Whether each experience has a task label, and each task its head.
        stream_seed: Seed of the stream, apart from that of the training.
        network: Feature extractor: small_cnn for 8x8 to 28x28 images, resnet32 (of
            LUCIR and Mnemonics) and resnet18 (of CwD and BDR) for 32x32, resnet8 (one
            block a stage) to scale a run down, resnet18_imagenet for 224x224, mlp for
            small images, cifarnet for 32x32 and tiny_vgg for 64x64 without residuals,
            lenet for 28x28 and vgg11 (torchvision's) for 32x32 and more, mobilenet
            (MobileNetV1) for 128x128 and mobilenet_cifar (11 of its blocks) for 32x32.
            resnet18_blurpool is a resnet18_imagenet that blurs before it skips pixels.
            The recipe adds its classifier.
        weights: File of the command `pretrain` with the weights to start from, or
            pytorchcv (ImageNet, for mobilenet); null: random ones.
        feature_size: Number of features of small_cnn and mlp.
        train_epochs: Passes over each experience.
        train_mb_size: Images of a mini-batch.
        optimizer: sgd or adam.
        lr: Learning rate at the start of each experience.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of the optimizer.
        milestones: Epochs after which the learning rate is divided by ten, e.g.
            [80,120].
        mirror_test: Evaluate on the mean of the outputs for an image and its mirror
            image.
        memory_resident: Hold the images on the device; auto: where they fit.
    """

    stream: str = "split_digits"
    n_experiences: PositiveInt | None = None
    first_experience_classes: PositiveInt | None = None
    class_order: ClassOrder | None = None
    images_per_class: PositiveInt | None = None
    task_labels: bool = False
    stream_seed: NonNegativeInt = 0
    network: Network = "small_cnn"
    weights: str | None = None
    feature_size: PositiveInt = 64
    train_epochs: PositiveInt = 10
    train_mb_size: PositiveInt = 32
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: PositiveFloat = 0.02
    momentum: ClosedUnitInterval = 0.9
    weight_decay: NonNegativeFloat = 0.0
    milestones: tuple[PositiveInt, ...] = ()
    mirror_test: bool = False
    memory_resident: Literal["auto"] | bool = "auto"

    def setup(
        self, make_strategy: MakeStrategy, *, memory: str, **further: Any
    ) -> Setup:
        """Make what a recipe returns.

        Args:
            make_strategy: Builds the strategy.
            memory: What the method remembers, in a few words.
            **further: Further fields of `Setup`.

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
        words += ["task labels"] if self.task_labels else []
        words += [f"seed {self.stream_seed}"] if self.stream_seed else []
        pretrained = ", pretrained" if self.weights else ""
        return Setup(
            stream=self.stream,
            stream_options={
                **given,
                "seed": self.stream_seed,
                "task_labels": self.task_labels,
            },
            setting=f"{', '.join(words)}; {self.network}{pretrained}; "
            f"{self.train_epochs} epochs",
            memory=memory,
            make_strategy=make_strategy,
            **further,
        )

    def make_feature_extractor(self) -> Module:
        """Build the network without its classifier.

        Returns:
            A module that maps images ``(B, C, H, W)`` to features ``(B, D)`` and has
            D as ``feature_size``.

        Raises:
            UsageError: If the file of weights is missing or is not of this network.
        """
        if self.weights == "pytorchcv" and self.network != "mobilenet":
            raise UsageError(
                f"network is {self.network}; --weights pytorchcv is for mobilenet"
            )
        extractor = self._make_random_extractor()
        if self.weights is not None:
            from benchmarks.training.weights import load_weights

            load_weights(extractor, self.weights)
        return extractor

    def _make_random_extractor(self) -> Module:
        from avalanche_ext import models

        channels, height, width = STREAMS[self.stream].image_shape
        if self.network == "small_cnn":
            return models.SmallCNN(channels, self.feature_size)
        if self.network == "mlp":
            return models.MLP(channels * height * width, self.feature_size)
        if self.network == "lenet":
            return models.LeNet(channels, height)
        if self.network == "resnet8":
            return models.CifarResNet(n_blocks=1, in_channels=channels)
        make = {
            "resnet32": models.resnet32_cifar,
            "resnet18": models.resnet18_cifar,
            "resnet18_imagenet": models.resnet18_imagenet,
            "resnet18_blurpool": models.resnet18_blurpool,
            "cifarnet": models.CifarNet,
            "tiny_vgg": models.TinyVGG,
            "vgg11": models.vgg11,
            "mobilenet": models.MobileNetV1,
            "mobilenet_cifar": models.mobilenet_v1_cifar,
        }
        return make[self.network](in_channels=channels)

    def make_linear_model(self, n_outputs: int | None = None) -> Module:
        """Build the network with a linear classifier that grows.

        Args:
            n_outputs: With task labels: width of one layer for all tasks; None: a
                layer for each.

        Returns:
            A model for the stream, with a head a task where it has task labels.
        """
        from avalanche.models import IncrementalClassifier
        from torch.nn import Sequential

        from avalanche_ext.models import TaskClassifier, TaskIncrementalClassifier

        extractor = self.make_feature_extractor()
        if self.task_labels:
            head = TaskClassifier(extractor.feature_size, n_outputs)
            return TaskIncrementalClassifier(extractor, head)
        return Sequential(extractor, IncrementalClassifier(extractor.feature_size))

    def make_one_head(self) -> Module:
        """Build the network with one linear classifier without bias, for all classes.

        Returns:
            The model; its classifier grows if the stream does not tell its classes.
        """
        from avalanche.models import IncrementalClassifier
        from torch.nn import Linear

        from avalanche_ext.models import FeatureClassifier

        extractor, n_classes = self.make_feature_extractor(), self.n_classes
        head = (
            IncrementalClassifier(extractor.feature_size)
            if n_classes is None
            else Linear(extractor.feature_size, n_classes, bias=False)
        )
        return FeatureClassifier(extractor, head)

    @property
    def n_classes(self) -> int | None:
        """Classes of the stream; None if it does not tell."""
        return STREAMS[self.stream].n_classes

    def make_optimizer(
        self, model: Module, *, decay_norms: bool = True
    ) -> tuple[Optimizer, list[Plugin]]:
        """Build the optimizer, and the plugins of the frame.

        Args:
            model: The model.
            decay_norms: Whether weight decay acts on normalisations, too. If not, the
                model must have all its parameters already.

        Returns:
            The optimizer, and plugins for the strategy: of the schedule, which starts
            anew each experience, and of the test; none by default.
        """
        from torch.optim import SGD, Adam
        from torch.optim.lr_scheduler import MultiStepLR

        options = {"lr": self.lr, "weight_decay": self.weight_decay}
        groups: Any = model.parameters()
        if not decay_norms:
            from benchmarks.training.norm_groups import without_norm_decay

            groups = without_norm_decay(model)
        optimizer = (
            SGD(groups, momentum=self.momentum, **options)
            if self.optimizer == "sgd"
            else Adam(groups, **options)
        )
        plugins: list[Plugin] = []
        if self.milestones:
            from avalanche.training.plugins import LRSchedulerPlugin

            milestones = list(self.milestones)
            schedule = MultiStepLR(optimizer, milestones=milestones, gamma=0.1)
            plugins.append(LRSchedulerPlugin(schedule))
        if self.mirror_test:
            from avalanche_ext.plugins import MirrorTestPlugin

            plugins.append(MirrorTestPlugin())
        return optimizer, plugins

    def template_options(self) -> dict[str, Any]:
        """Arguments of Avalanche's template: sizes of batches, number of epochs."""
        return {
            "train_mb_size": self.train_mb_size,
            "train_epochs": self.train_epochs,
            "eval_mb_size": EVAL_MB_SIZE,
        }
