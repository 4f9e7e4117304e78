"""Networks that expose their features, and the classifier that grows."""

from avalanche_ext.models.batch_renorm import (
    BatchRenorm,
    BatchRenorm1d,
    BatchRenorm2d,
    BatchRenorm3d,
    batch_renorms_of,
)
from avalanche_ext.models.batch_renorm_conversion import to_batch_renorm
from avalanche_ext.models.blur_pool import (
    Blur,
    blur_before_strides,
    resnet18_blurpool,
)
from avalanche_ext.models.cosine_classifier import CosineClassifier
from avalanche_ext.models.cut_points import suggest_latent_layer, valid_cuts
from avalanche_ext.models.cut_trace import macs_by_module
from avalanche_ext.models.experience_detectors import ExperienceDetectors
from avalanche_ext.models.feature_classifier import (
    FeatureClassifier,
    as_feature_classifier,
)
from avalanche_ext.models.latent_cut import LatentCut
from avalanche_ext.models.masked_accuracy import MaskedAccuracy
from avalanche_ext.models.mobilenet import MobileNetV1, mobilenet_v1_cifar
from avalanche_ext.models.mobilenet_weights import load_imagenet_weights
from avalanche_ext.models.packnet import packnet_submodels
from avalanche_ext.models.plain_cnn import MLP, CifarNet, LeNet, TinyVGG, vgg11
from avalanche_ext.models.resnet import (
    CifarResNet,
    resnet18_cifar,
    resnet18_imagenet,
    resnet32_cifar,
)
from avalanche_ext.models.small_cnn import SmallCNN
from avalanche_ext.models.submodel import Submodel
from avalanche_ext.models.submodel_stack import SubmodelStack
from avalanche_ext.models.task_classifier import (
    TaskClassifier,
    TaskIncrementalClassifier,
)
from avalanche_ext.models.transfer_conv import TransferConv2d, to_transfer_network
from avalanche_ext.models.unit_layers import mask_sites, unit_layers

__all__ = [
    "MLP",
    "BatchRenorm",
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "Blur",
    "CifarNet",
    "CifarResNet",
    "CosineClassifier",
    "ExperienceDetectors",
    "FeatureClassifier",
    "LatentCut",
    "LeNet",
    "MaskedAccuracy",
    "MobileNetV1",
    "SmallCNN",
    "Submodel",
    "SubmodelStack",
    "TaskClassifier",
    "TaskIncrementalClassifier",
    "TinyVGG",
    "TransferConv2d",
    "as_feature_classifier",
    "batch_renorms_of",
    "blur_before_strides",
    "load_imagenet_weights",
    "macs_by_module",
    "mask_sites",
    "mobilenet_v1_cifar",
    "packnet_submodels",
    "resnet18_blurpool",
    "resnet18_cifar",
    "resnet18_imagenet",
    "resnet32_cifar",
    "suggest_latent_layer",
    "to_batch_renorm",
    "to_transfer_network",
    "unit_layers",
    "valid_cuts",
    "vgg11",
]
