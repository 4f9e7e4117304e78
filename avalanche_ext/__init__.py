"""Published continual-learning methods as first-class Avalanche citizens."""

from avalanche_ext._version import __version__
from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.checkpoint import (
    Checkpoint,
    CheckpointError,
    Resumable,
    load_checkpoint,
    save_checkpoint,
)
from avalanche_ext.loaders import ResidentLoader, make_loader
from avalanche_ext.metrics import (
    AverageIncrementalAccuracy,
    MemoryBytes,
    PeakGPUMemory,
    SeenClassesAccuracy,
)
from avalanche_ext.models import (
    CifarResNet,
    CosineClassifier,
    FeatureClassifier,
    SmallCNN,
    as_feature_classifier,
    resnet18_cifar,
    resnet18_imagenet,
    resnet32_cifar,
)
from avalanche_ext.plugins import (
    BalancedFinetuningPlugin,
    BDRPlugin,
    CwDPlugin,
    ExemplarReplayPlugin,
    ImprintingPlugin,
    LUCIRPlugin,
    MemoryResidentPlugin,
)
from avalanche_ext.strategies import BDR, LUCIR

__all__ = [
    "BDR",
    "LUCIR",
    "AverageIncrementalAccuracy",
    "BDRPlugin",
    "BalancedFinetuningPlugin",
    "Checkpoint",
    "CheckpointError",
    "CifarResNet",
    "CosineClassifier",
    "CwDPlugin",
    "ExemplarReplayPlugin",
    "FeatureClassifier",
    "HerdingBuffer",
    "ImprintingPlugin",
    "LUCIRPlugin",
    "MemoryBytes",
    "MemoryResidentPlugin",
    "PeakGPUMemory",
    "ResidentLoader",
    "Resumable",
    "SeenClassesAccuracy",
    "SmallCNN",
    "__version__",
    "as_feature_classifier",
    "load_checkpoint",
    "make_loader",
    "resnet18_cifar",
    "resnet18_imagenet",
    "resnet32_cifar",
    "save_checkpoint",
]
