"""What is known of the streams of photographs: CIFAR, SVHN, ImageNet.

Data only, no imports.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.streams.fields import StreamInfo, below

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_CIFAR10_FILES = below(
    "cifar-10-batches-py",
    "data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 "
    "test_batch batches.meta",
)
_CIFAR100_FILES = below("cifar-100-python", "train test meta")

CIFAR10 = StreamInfo(
    name="split_cifar10",
    description="photographs, new classes in each experience",
    classic="SplitCIFAR10",
    image_shape=(3, 32, 32),
    n_classes=10,
    n_experiences=5,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    augmentation="random 32x32 crop after padding by 4, horizontal flip",
    source="www.cs.toronto.edu",
    size="171 MB",
    folder="cifar10",
    files=_CIFAR10_FILES,
    first_option="first_exp_with_half_classes",
)
_IMAGENET = StreamInfo(
    name="split_imagenet",
    description="ILSVRC 2012, new classes in each experience",
    classic="SplitImageNet",
    image_shape=(3, 224, 224),
    stored_shape=(),
    n_classes=1000,
    n_experiences=10,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    augmentation="random resized crop to 224x224, horizontal flip",
    source="image-net.org, after registration",
    size="145 GB",
    automatic_download=False,
    folder="imagenet",
    files=(
        "train or ILSVRC2012_img_train.tar",
        "val or ILSVRC2012_img_val.tar",
        "meta.bin or ILSVRC2012_devkit_t12.tar.gz",
    ),
    first_option="per_exp_classes",
)

_TINY_IMAGENET = replace(
    CIFAR10,
    name="split_tiny_imagenet",
    classic="SplitTinyImageNet",
    image_shape=(3, 64, 64),
    n_classes=200,
    n_experiences=10,
    augmentation="horizontal flip",
    source="cs231n.stanford.edu",
    size="248 MB",
    folder="tinyimagenet",
    files=below(
        "tiny-imagenet-200", "wnids.txt train val/images val/val_annotations.txt"
    ),
    first_option="",
)

PHOTOGRAPHS = (
    CIFAR10,
    replace(
        CIFAR10,
        name="split_cifar100",
        classic="SplitCIFAR100",
        n_classes=100,
        n_experiences=10,
        mean=(0.5071, 0.4866, 0.4409),
        std=(0.2009, 0.1984, 0.2023),
        normalization="of LUCIR, CwD and BDR",
        size="169 MB",
        folder="cifar100",
        files=_CIFAR100_FILES,
    ),
    replace(
        CIFAR10,
        name="split_cifar110",
        description="CIFAR-10 in the first experience, then the classes of CIFAR-100",
        classic="SplitCIFAR110",
        n_classes=110,
        n_experiences=11,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        size="340 MB",
        folder="cifar110",
        files=_CIFAR10_FILES + _CIFAR100_FILES,
        first_option="",
        refused=("first_experience_classes", "task_labels", "image_size"),
    ),
    replace(
        CIFAR10,
        name="split_cifar10_100",
        description="CIFAR-10, then 5 x 10 classes of CIFAR-100 (Split-CIFAR)",
        classic="nc_benchmark",
        n_classes=60,
        n_experiences=6,
        std=(0.2470, 0.2435, 0.2616),
        normalization="of CIFAR-10",
        size="340 MB",
        folder="cifar110",
        files=_CIFAR10_FILES + _CIFAR100_FILES,
        first_option="per_exp_classes",
    ),
    replace(
        CIFAR10,
        name="split_svhn",
        description="house numbers, a digit an image, without the extra images",
        classic="nc_benchmark",
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        normalization="of its training images",
        augmentation="none",
        source="ufldl.stanford.edu",
        size="246 MB",
        folder="svhn",
        files=("train_32x32.mat", "test_32x32.mat"),
        first_option="per_exp_classes",
    ),
    _TINY_IMAGENET,
    replace(
        _TINY_IMAGENET,
        name="split_tiny_imagenet_validated",
        description="the same, a fifth of its training images held back",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        normalization="of ImageNet",
        validation_fraction=0.2,
    ),
    replace(
        _IMAGENET,
        name="split_imagenet_subset",
        description="100 classes of ILSVRC 2012, drawn by NumPy seed 1993",
        n_classes=100,
    ),
    _IMAGENET,
    replace(
        _IMAGENET,
        name="split_imagenet_256",
        description="ILSVRC 2012 in larger images, new classes in each experience",
        image_shape=(3, 256, 256),
        augmentation="random resized crop to 256x256, horizontal flip",
    ),
)
"""The streams."""
