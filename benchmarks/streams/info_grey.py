"""What is known of the streams of small grey images: digits, letters, clothes.

Data only, no imports.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.streams.fields import StreamInfo, below
from benchmarks.streams.info_photographs import CIFAR10

_IDX = "train-images-idx3-ubyte train-labels-idx1-ubyte "
_IDX += "t10k-images-idx3-ubyte t10k-labels-idx1-ubyte"
_LETTERS = "emnist-letters-train-images-idx3-ubyte "
_LETTERS += "emnist-letters-train-labels-idx1-ubyte "
_LETTERS += "emnist-letters-test-images-idx3-ubyte "
_LETTERS += "emnist-letters-test-labels-idx1-ubyte"

DIGITS = StreamInfo(
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
    files=below("MNIST/raw", _IDX),
)
SAME_CLASSES = ("first_experience_classes", "class_order", "image_size")
"""Options that mean nothing where every experience has the same classes."""
_ROTATED_MNIST = replace(
    _MNIST,
    name="rotated_mnist",
    description="MNIST, turned by another angle in each experience",
    classic="RotatedMNIST",
    n_experiences=10,
    refused=SAME_CLASSES,
)
# digits as small colour images, so that networks of photographs can look at them
_MNIST_NC = replace(
    _MNIST,
    name="mnist_nc",
    description="digits as 32x32 colour images, few of them, 2 new classes at a time",
    classic="nc_benchmark",
    image_shape=(3, 32, 32),
    stored_shape=(1, 28, 28),
    mean=CIFAR10.mean,
    std=CIFAR10.std,
    normalization="of CIFAR-10",
    first_option="per_exp_classes",
    images_per_class=150,
)

GREY = (
    DIGITS,
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
        files=below("FashionMNIST/raw", _IDX),
        first_option="first_batch_with_half_classes",
    ),
    replace(
        _MNIST,
        name="split_emnist",
        description="handwritten letters of both cases, 26 classes, upright",
        classic="nc_benchmark",
        n_classes=26,
        n_experiences=13,
        normalization="of MNIST",
        source="biometrics.nist.gov",
        size="562 MB",
        folder="emnist",
        files=below("EMNIST/raw", _LETTERS),
        first_option="per_exp_classes",
    ),
    _ROTATED_MNIST,
    replace(
        _ROTATED_MNIST,
        name="permuted_mnist",
        description="MNIST, its pixels permuted anew in each experience",
        classic="PermutedMNIST",
    ),
    _MNIST_NC,
    replace(
        _MNIST_NC,
        name="mnist_nic",
        description="the same, 3 classes, then one at a time, which come back",
        classic="ni_benchmark",
        n_experiences=28,
        refused=(*SAME_CLASSES, "n_experiences", "task_labels"),
        images_per_class=None,
    ),
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
        files=below(
            "omniglot-py/omniglot-py", "images_background images_background.zip"
        ),
        first_option="per_exp_classes",
    ),
)
"""The streams."""
