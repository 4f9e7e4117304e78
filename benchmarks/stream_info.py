"""What is known of each stream before anything is loaded: data only, no imports."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.stream_fields import StreamInfo

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def _below(folder: str, names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names.split())


_IDX = "train-images-idx3-ubyte train-labels-idx1-ubyte "
_IDX += "t10k-images-idx3-ubyte t10k-labels-idx1-ubyte"
_CIFAR10_FILES = _below(
    "cifar-10-batches-py",
    "data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 "
    "test_batch batches.meta",
)
_CIFAR100_FILES = _below("cifar-100-python", "train test meta")
_CORE50_FILES = (
    "batches_filelists NIC_v2_79 NIC_v2_196 NIC_v2_391 "
    "paths.pkl labels.pkl LUP.pkl labels2names.pkl"
)

_MNIST = StreamInfo(
    name="split_mnist",
    description="handwritten digits, new classes in each experience",
    classic="SplitMNIST",
    image_shape=(1, 28, 28),
    n_classes=10,
    n_experiences=5,
    mean=(0.1307,),
    std=(0.3081,),
    source="ossci-datasets.s3.amazonaws.com",
    size="12 MB",
    folder="mnist",
    files=_below("MNIST/raw", _IDX),
)
_SAME_CLASSES = ("first_experience_classes", "class_order", "image_size")
_ROTATED_MNIST = replace(
    _MNIST,
    name="rotated_mnist",
    description="MNIST, turned by another angle in each experience",
    classic="RotatedMNIST",
    n_experiences=10,
    refused=_SAME_CLASSES,
)
_CIFAR10 = StreamInfo(
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
# digits as small colour images, so that networks of photographs can look at them
_MNIST_NC = replace(
    _MNIST,
    name="mnist_nc",
    description="digits as 32x32 colour images, few of them, 2 new classes at a time",
    classic="nc_benchmark",
    image_shape=(3, 32, 32),
    mean=_CIFAR10.mean,
    std=_CIFAR10.std,
    normalization="of CIFAR-10",
    first_option="per_exp_classes",
    images_per_class=150,
)
_MNIST_NIC = replace(
    _MNIST_NC,
    name="mnist_nic",
    description="the same, 3 classes, then one at a time, which come back",
    classic="ni_benchmark",
    n_experiences=28,
    refused=(*_SAME_CLASSES, "n_experiences", "task_labels"),
    images_per_class=None,
)
_IMAGENET = StreamInfo(
    name="split_imagenet",
    description="ILSVRC 2012, new classes in each experience",
    classic="SplitImageNet",
    image_shape=(3, 224, 224),
    n_classes=1000,
    n_experiences=10,
    mean=_IMAGENET_MEAN,
    std=_IMAGENET_STD,
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
_DIGITS = StreamInfo(
    name="split_digits",
    description="scikit-learn's 1797 handwritten digits, every fifth one for testing",
    classic="nc_benchmark",
    image_shape=(1, 8, 8),
    n_classes=10,
    n_experiences=5,
    mean=(0.3052,),
    std=(0.3760,),
    normalization="of its training images",
    source="scikit-learn's package",
    size="no download",
    automatic_download=False,
    folder="digits",
    files=(),
    first_option="per_exp_classes",
)


def _core50(
    scenario: str, n_experiences: int, description: str, *, size: int = 128
) -> StreamInfo:
    mini = "mini_" if size == 32 else ""
    return StreamInfo(
        name=f"core50_{mini}{scenario}",
        description=f"50 objects on video, {description}; seed 0-9 is the run",
        classic="CORe50",
        image_shape=(3, size, size),
        n_classes=50,
        n_experiences=n_experiences,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        normalization="of ImageNet",
        source=f"{'vps.continualai.org' if mini else 'bias.csr.unibo.it'} and "
        "vlomonaco.github.io",
        size="below 1 GB" if mini else "4 GB",
        folder="core50",
        files=(f"core50_{size}x{size}", *_CORE50_FILES.split()),
        refused=(*_SAME_CLASSES, "task_labels"),
        test_step=20 if scenario.startswith("nicv2") else 1,
    )


_NICV2 = [
    (f"nicv2_{n}", n, "new objects and backgrounds, which come back")
    for n in (79, 196, 391)
]


_ALL = (
    _DIGITS,
    _MNIST,
    replace(
        _MNIST,
        name="split_fmnist",
        description="articles of clothing, new classes in each experience",
        classic="SplitFMNIST",
        mean=(0.2860,),
        std=(0.3530,),
        source="fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        size="31 MB",
        folder="fashionmnist",
        files=_below("FashionMNIST/raw", _IDX),
        first_option="first_batch_with_half_classes",
    ),
    _ROTATED_MNIST,
    replace(
        _ROTATED_MNIST,
        name="permuted_mnist",
        description="MNIST, its pixels permuted anew in each experience",
        classic="PermutedMNIST",
    ),
    _MNIST_NC,
    _MNIST_NIC,
    _CIFAR10,
    replace(
        _CIFAR10,
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
        _CIFAR10,
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
        _CIFAR10,
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
        _CIFAR10,
        name="split_tiny_imagenet",
        classic="SplitTinyImageNet",
        image_shape=(3, 64, 64),
        n_classes=200,
        n_experiences=10,
        augmentation="horizontal flip",
        source="cs231n.stanford.edu",
        size="248 MB",
        folder="tinyimagenet",
        files=_below(
            "tiny-imagenet-200", "wnids.txt train val/images val/val_annotations.txt"
        ),
        first_option="",
    ),
    replace(
        _IMAGENET,
        name="split_imagenet_subset",
        description="100 classes of ILSVRC 2012, drawn by NumPy seed 1993",
        n_classes=100,
    ),
    _IMAGENET,
    _core50("nc", 9, "new objects in each experience"),
    _core50("ni", 8, "new backgrounds in each experience"),
    *(_core50(*nicv2) for nicv2 in _NICV2),
    *(_core50(*nicv2, size=32) for nicv2 in _NICV2),
    replace(
        _MNIST,
        name="split_omniglot",
        description="964 characters of 30 alphabets, drawings 16-20 for testing",
        classic="nc_benchmark",
        image_shape=(1, 105, 105),
        n_classes=964,
        n_experiences=4,
        mean=(0.9221,),
        std=(0.2681,),
        source="raw.githubusercontent.com/brendenlake/omniglot",
        size="9 MB",
        folder="omniglot",
        files=_below(
            "omniglot-py/omniglot-py", "images_background images_background.zip"
        ),
        first_option="per_exp_classes",
    ),
    replace(
        _DIGITS,
        name="image_folder",
        description="your own images in train/CLASS/ and test/CLASS/, any sizes",
        image_shape=(3, 64, 64),
        n_classes=None,
        n_experiences=None,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        normalization="of ImageNet",
        augmentation="horizontal flip",
        source="yours",
        size="no download",
        folder="image_folder",
        files=("train", "test"),
        refused=(),
    ),
)

STREAMS: dict[str, StreamInfo] = {info.name: info for info in _ALL}
"""All streams, by name."""
