"""Networks that expose their features, and the classifier that grows."""

from avalanche_ext.models.cosine_classifier import CosineClassifier
from avalanche_ext.models.feature_classifier import (
    FeatureClassifier,
    as_feature_classifier,
)
from avalanche_ext.models.resnet import (
    CifarResNet,
    resnet18_cifar,
    resnet18_imagenet,
    resnet32_cifar,
)
from avalanche_ext.models.small_cnn import SmallCNN

__all__ = [
    "CifarResNet",
    "CosineClassifier",
    "FeatureClassifier",
    "SmallCNN",
    "as_feature_classifier",
    "resnet18_cifar",
    "resnet18_imagenet",
    "resnet32_cifar",
]
