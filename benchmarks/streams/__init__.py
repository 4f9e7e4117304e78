"""Streams by name: Avalanche's own benchmarks, called with one set of options.

Importing this module loads neither torch nor Avalanche.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.names import UsageError, nearest
from benchmarks.streams.fields import Augmentation, ClassOrder, StreamInfo
from benchmarks.streams.info import STREAMS

if TYPE_CHECKING:
    from avalanche.benchmarks import CLScenario

__all__ = ["STREAMS", "StreamInfo", "make_stream"]


def make_stream(
    name: str,
    *,
    n_experiences: int | None = None,
    first_experience_classes: int | None = None,
    class_order: ClassOrder | Sequence[int] | None = None,
    seed: int = 0,
    task_labels: bool = False,
    image_size: int | None = None,
    images_per_class: int | None = None,
    augment: bool | Augmentation = True,
    normalize: bool = True,
    dataset_root: str | Path | None = None,
    download: bool = False,
    **unknown: Any,
) -> CLScenario:
    """Build an Avalanche benchmark.

    Where experiences bring new classes, labels are numbered in the order in which the
    classes appear; where they come back (CORe50, ``mnist_nic``) they keep those of the
    data. The global random generators are neither read nor changed.

    Args:
        name: A key of ``STREAMS``.
        n_experiences: Number of experiences, the first included; ``None`` takes the
            stream's own. Of CORe50, so many of the first.
        first_experience_classes: Classes of the first experience; the others share the
            rest equally. ``None``: the stream's own, or all share equally.
        class_order: ``"natural"`` (0, 1, 2...), ``"icarl"`` (the permutation of NumPy
            seed 1993, of the papers since iCaRL), ``"ewc_fr_replay"`` (of that paper,
            for Tiny-ImageNet), or a permutation of the classes: of
            CIFAR-100's in ``split_cifar110``; in ``split_imagenet_subset`` of its 100
            classes sorted by folder name, as LUCIR and BDR do (CwD takes them as
            drawn). ``None`` draws one by ``seed``, the same that Avalanche draws.
        seed: Decides the class order, permutations or angles; >= 0. The run, 0-9, of
            CORe50.
        task_labels: Whether each experience has a task label of its own, or all 0.
        image_size: Height and width to which ``image_folder`` resizes, > 0.
        images_per_class: Training images of each class in an experience, the first of
            the data set, > 0; ``None``: the stream's own, or all.
        augment: Whether training images get the random transforms of the stream, or
            the name of others.
        normalize: Whether mean and standard deviation are normalised.
        dataset_root: Folder of the data; ``None`` is Avalanche's default.
        download: Whether missing data may be downloaded.
        **unknown: Refused.

    Returns:
        The benchmark, with ``train_stream`` and ``test_stream``.

    Raises:
        UsageError: If the name or an option is unknown, an option does not apply to
            the stream, or has a wrong value. It is a ``ValueError``.
        FileNotFoundError: If the data are missing; says how to get them.

    Example:
        >>> benchmark = make_stream("split_digits", class_order="natural")
        >>> [sorted(e.classes_in_this_experience) for e in benchmark.train_stream]
        [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]

        50 classes, then 10 at a time::

            make_stream(
                "split_cifar100",
                n_experiences=6,
                first_experience_classes=50,
                class_order="icarl",
            )
    """
    if name not in STREAMS:
        raise UsageError(f"unknown stream {name!r}; {nearest(name, STREAMS)}")
    for option in unknown:
        advice = nearest(option, make_stream.__kwdefaults__ or ())
        raise UsageError(f"unknown option {option!r} of a stream; {advice}")
    state = random.getstate()  # importing scikit-learn draws from it
    try:
        from benchmarks.streams.build import StreamOptions, build

        options = StreamOptions(
            n_experiences=n_experiences,
            first_experience_classes=first_experience_classes,
            class_order=class_order,
            seed=seed,
            task_labels=task_labels,
            image_size=image_size,
            images_per_class=images_per_class,
            augment=augment,
            normalize=normalize,
        )
        return build(
            STREAMS[name], options, dataset_root=dataset_root, download=download
        )
    finally:
        random.setstate(state)
