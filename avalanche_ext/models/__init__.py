"""Networks that expose their features, and the classifier that grows."""

from avalanche_ext.models.cosine_classifier import CosineClassifier
from avalanche_ext.models.feature_classifier import (
    FeatureClassifier,
    as_feature_classifier,
)
from avalanche_ext.models.plain_cnn import MLP, CifarNet, TinyVGG
from avalanche_ext.models.resnet import (
    CifarResNet,
    resnet18_cifar,
    resnet18_imagenet,
    resnet32_cifar,
)
from avalanche_ext.models.small_cnn import SmallCNN
from avalanche_ext.models.task_classifier import (
    TaskClassifier,
    TaskIncrementalClassifier,
)

__all__ = [
    "MLP",
    "CifarNet",
    "CifarResNet",
    "CosineClassifier",
    "FeatureClassifier",
    "SmallCNN",
    "TaskClassifier",
    "TaskIncrementalClassifier",
    "TinyVGG",
    "as_feature_classifier",
    "resnet18_cifar",
    "resnet18_imagenet",
    "resnet32_cifar",
]
