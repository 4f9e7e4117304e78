"""EWC+FR+Replay on Tiny-ImageNet and ImageNet: the authors' settings.

Their code re-draws all weights as PyTorch's layers do. It makes soft targets and the
Fisher from randomly augmented images; here both come from the images of evaluation.
"""

from __future__ import annotations

from typing import Any

from benchmarks.recipes.ewc_fr_replay import SMOKE
from benchmarks.recipes.ewc_fr_replay_setup import setup_ewc_fr_replay
from benchmarks.recipes.recipe import Setup, recipe

TINY_IMAGENET: dict[str, Any] = {
    "stream": "split_tiny_imagenet_validated",
    "class_order": "ewc_fr_replay",
    "task_labels": True,
    "network": "tiny_vgg",
    "train_epochs": 70,
    "train_mb_size": 200,
    "lr": 0.01,
    "early_stopping": True,
    "validate_past": True,
    "mirror_test": True,
    "memory_size": 500,
    "strength": (330.0, 85.0, 45.0, 30.0, 20.0, 15.0, 15.0, 10.0, 10.0),
    "tau": 32.0,
    "fisher_outputs": "all",
}
IMAGENET: dict[str, Any] = {
    "stream": "split_imagenet_256",
    "class_order": "icarl",
    "task_labels": True,
    "network": "resnet18_blurpool",
    "train_epochs": 40,
    "train_mb_size": 1024,
    "drop_last": True,
    "lr": 0.5,
    "peak_epoch": 2,
    "weight_decay": 5e-5,
    "decay_norms": False,
    "label_smoothing": 0.1,
    "resolutions": (160, 192),
    "resolution_epochs": (29, 34),
    "mirror_test": True,
    "num_workers": 8,
    "precision": "bf16",
    "channels_last": True,
    "memory_size": 10000,
    "strength": (0.5,),
    "tau": 0.16,
    "scale_tau": True,
    "fisher_outputs": "all",
}


@recipe(smoke={**SMOKE, "early_stopping": False}, **TINY_IMAGENET)
def ewc_fr_replay_tiny_imagenet(**options: Any) -> Setup:
    """EWC+FR+Replay on Tiny-ImageNet: 10 tasks of 20 classes, 500 points a task.

    The paper has no replay on these images: its rows are FR, EWC+FR and EWC. A fifth of
    the training images is held back; by their loss the learning rate falls and training
    ends. The authors' draw of them is not known, nor whether it is alike in all classes,
    as here. Memory does not count those of past tasks (validate_past), as published.
    """
    return setup_ewc_fr_replay(**options)


_SMALL = {
    "lr": 0.02,
    "peak_epoch": None,
    "resolutions": (),
    "resolution_epochs": (),
    "num_workers": 0,
    "precision": "fp32",
}


@recipe(smoke={**SMOKE, **_SMALL}, **IMAGENET)
def ewc_fr_replay_imagenet(**options: Any) -> Setup:
    """EWC+FR+Replay on ImageNet: 10 tasks of 100 classes, 10 000 points a task.

    As published, but: images are cropped to 256x256 and then resized by the batch,
    where the authors crop to the resolution of the epoch; bf16 stands for their
    float16; the first task has the label smoothing of the others, where the authors'
    comes without it from joint training. JPEG files are read by num_workers processes:
    a reader of the authors' kind (FFCV) is no part of this package.
    """
    return setup_ewc_fr_replay(**options)
