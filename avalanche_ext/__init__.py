"""Published continual-learning methods as first-class Avalanche citizens."""

from avalanche_ext._version import __version__
from avalanche_ext.buffers import HerdingBuffer, MemorablePastBuffer
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
    GradientReconstructionError,
    MemoryBytes,
    PeakGPUMemory,
    SeenClassesAccuracy,
)
from avalanche_ext.models import (
    MLP,
    CifarNet,
    CifarResNet,
    CosineClassifier,
    FeatureClassifier,
    SmallCNN,
    TaskClassifier,
    TaskIncrementalClassifier,
    TinyVGG,
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
    FunctionalPriorPlugin,
    ImprintingPlugin,
    LeftOutEWCPlugin,
    LUCIRPlugin,
    MemoryResidentPlugin,
)
from avalanche_ext.strategies import BDR, LUCIR, EWCFRReplay

__all__ = [
    "BDR",
    "LUCIR",
    "MLP",
    "AverageIncrementalAccuracy",
    "BDRPlugin",
    "BalancedFinetuningPlugin",
    "Checkpoint",
    "CheckpointError",
    "CifarNet",
    "CifarResNet",
    "CosineClassifier",
    "CwDPlugin",
    "EWCFRReplay",
    "ExemplarReplayPlugin",
    "FeatureClassifier",
    "FunctionalPriorPlugin",
    "GradientReconstructionError",
    "HerdingBuffer",
    "ImprintingPlugin",
    "LUCIRPlugin",
    "LeftOutEWCPlugin",
    "MemorablePastBuffer",
    "MemoryBytes",
    "MemoryResidentPlugin",
    "PeakGPUMemory",
    "ResidentLoader",
    "Resumable",
    "SeenClassesAccuracy",
    "SmallCNN",
    "TaskClassifier",
    "TaskIncrementalClassifier",
    "TinyVGG",
    "__version__",
    "as_feature_classifier",
    "load_checkpoint",
    "make_loader",
    "resnet18_cifar",
    "resnet18_imagenet",
    "resnet32_cifar",
    "save_checkpoint",
]
