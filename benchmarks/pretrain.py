"""``python -m benchmarks pretrain``: weights for a recipe to start from.

Importing this module loads neither torch nor Avalanche.
"""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveFloat, PositiveInt

from benchmarks.names import UsageError, nearest
from benchmarks.recipes.frame import Frame, Network
from benchmarks.runs.numbers import Seed, refuse_infinite
from benchmarks.runs.parser import bare, canonical, one_line
from benchmarks.streams import STREAMS, make_stream

if TYPE_CHECKING:
    from torch.nn import Module


def main(arguments: Sequence[str]) -> int:
    """Carry out the command.

    Args:
        arguments: What stands after ``pretrain`` on the command line.

    Returns:
        Exit code 0.

    Raises:
        UsageError: If an option is wrong, or data are missing.
        SystemExit: After ``--help``.
    """
    parser = ArgumentParser(
        prog="python -m benchmarks pretrain", exit_on_error=False, allow_abbrev=False
    )
    parser.add_function_arguments(pretrain, as_group=True, as_positional=True)
    try:
        values = parser.parse_args([canonical(a, parser) for a in arguments]).as_dict()
    except ArgumentError as error:
        raise UsageError(one_line(error, parser)) from error
    refuse_infinite(values)
    from benchmarks.runs.stopping import host_warnings_hidden

    with host_warnings_hidden():
        pretrain(**{name: bare(value) for name, value in values.items()})
    return 0


def pretrain(
    file: str,
    *,
    stream: str = "split_cifar10",
    images_per_class: PositiveInt | None = 600,
    network: Network = "mobilenet_cifar",
    feature_size: PositiveInt = 64,
    train_epochs: PositiveInt = 10,
    train_mb_size: PositiveInt = 64,
    lr: PositiveFloat = 0.05,
    seed: Seed = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: PositiveInt | None = None,
    dataset_root: str | None = None,
    download: bool = False,
) -> None:
    """Train a network with a linear classifier on all classes of a stream at once.

    SGD with momentum 0.9 on the cross-entropy, the learning rate falling to 0 along a
    half cosine. Only the network is saved, not its classifier.

    Args:
        file: File to write, e.g. mobilenet.pt; its folder exists.
        stream: Name of a stream of new classes; the command `list` shows them.
        images_per_class: Training images of each class, the first ones; null: all.
        network: As in the recipes.
        feature_size: As in the recipes.
        train_epochs: Passes over the images.
        train_mb_size: Images of a mini-batch.
        lr: Learning rate at the start.
        seed: Seed of the weights, of the order of the images, of their augmentation.
        device: auto: cuda where there is one.
        threads: CPU threads; null: torch's choice.
        dataset_root: Folder of the data; null: Avalanche's own.
        download: Fetch missing data.

    Raises:
        UsageError: If an option is wrong, data are missing, or the file cannot be
            written.
    """
    if stream not in STREAMS:
        raise UsageError(f"unknown stream {stream}; {nearest(stream, STREAMS)}")
    if "class_order" in STREAMS[stream].refused:
        raise UsageError(
            f"stream is {stream}; wanted a stream of new classes that can come all at "
            "once"
        )
    if Path(file).is_dir():
        raise UsageError(f"file is {file}, a folder; wanted the name of a file")
    if not (folder := Path(file).absolute().parent).is_dir():
        raise UsageError(f"no folder {folder}; wanted it to exist")
    import torch
    from avalanche.training.determinism.rng_manager import RNGManager

    from avalanche_ext.checkpoint.files import write_atomically
    from benchmarks.runs.run import choose_device

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        benchmark = make_stream(
            stream,
            n_experiences=1,
            class_order="natural",
            images_per_class=images_per_class,
            dataset_root=dataset_root,
            download=download,
        )
    except (ValueError, FileNotFoundError) as error:
        text = str(error).replace("run RECIPE", f"pretrain {file}")
        raise UsageError(text) from error
    RNGManager.set_random_seeds(seed)
    frame = Frame(
        stream=stream,
        network=network,
        feature_size=feature_size,
        train_epochs=train_epochs,
        train_mb_size=train_mb_size,
        lr=lr,
    )
    extractor = _train(frame, benchmark, choose_device(device))
    write_atomically(Path(file), extractor.state_dict())
    print(f"weights in {file}", flush=True)


def _train(frame: Frame, benchmark: Any, device: Any) -> Module:
    """Train on the first experience, and print the accuracy on its test images."""
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.logging import BaseLogger
    from avalanche.training.plugins import EvaluationPlugin, LRSchedulerPlugin
    from avalanche.training.supervised import Naive
    from torch.nn import CrossEntropyLoss
    from torch.optim.lr_scheduler import CosineAnnealingLR

    from avalanche_ext.plugins.memory_resident import MemoryResidentPlugin

    model = frame.make_linear_model()
    optimizer, _ = frame.make_optimizer(model)
    schedule = CosineAnnealingLR(optimizer, T_max=frame.train_epochs)
    accuracy = accuracy_metrics(experience=True)
    strategy = Naive(
        model=model,
        optimizer=optimizer,
        criterion=CrossEntropyLoss(),
        plugins=[MemoryResidentPlugin(), LRSchedulerPlugin(schedule)],
        evaluator=EvaluationPlugin(accuracy, loggers=[BaseLogger()]),
        device=device,
        **frame.template_options(),
    )
    strategy.train(benchmark.train_stream[0])
    results = strategy.eval(benchmark.test_stream[:1])
    [percent] = [100 * v for k, v in results.items() if k.startswith("Top1_Acc_Exp")]
    print(f"{percent:.1f} % of the test images of {frame.stream}", flush=True)
    return model[0].cpu()
