"""Save and resume a whole strategy between experiences, bit for bit.

A checkpoint holds tensors and plain data only; loading one executes nothing in it.
It is put into a strategy that the same code has constructed anew, and training then
goes on exactly as if it had never stopped: weights, metrics and random numbers are
equal to the last bit (on the same machine, with the same versions).

Saved are the model with its grown parts, the optimizer with its state, the counters,
every plugin, metric and logger, and the random generators. Samples that a buffer
keeps are saved as their places in the stream, not as images.

Avalanche's own plugins, metrics and buffers need nothing for it: their attributes are
numbers, texts, containers, tensors, data of the stream and objects of Avalanche, and
are saved as such. The same holds for most plugins of users. What cannot be saved so
(an iterator, an object of a foreign class in a list) is refused by name when saving.
Such a plugin, buffer or metric says itself what to save: see `Resumable`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from avalanche.benchmarks import CLExperience

from avalanche_ext._version import __version__
from avalanche_ext.checkpoint import files
from avalanche_ext.checkpoint.decode import Decoder
from avalanche_ext.checkpoint.encode import Encoder
from avalanche_ext.checkpoint.errors import CheckpointError
from avalanche_ext.checkpoint.header import FORMAT, header_of, require_same
from avalanche_ext.checkpoint.kinds import StateError
from avalanche_ext.checkpoint.rng import global_state, set_global_state
from avalanche_ext.checkpoint.samples import StreamSamples

_MAGIC = "avalanche_ext checkpoint"


@runtime_checkable
class Resumable(Protocol):
    """What a plugin, buffer or metric fulfils that says itself what to save.

    A checkpoint calls `state_dict` between two experiences, and later, in a new
    process, `load_state_dict` of an object constructed with the same arguments.
    Afterwards the new one must behave as the old one would. Only what changes after
    the constructor belongs into the state. An object found in a strategy, its plugins,
    metrics or their attributes that has both methods is asked for its state, and none
    of its attributes is looked at; all others are saved attribute by attribute.

    Samples of the stream are kept as places, (experience, position in its dataset),
    and taken from ``experiences`` again. Random generators of one's own are kept by
    ``generator.get_state()``.

    Example:
        A buffer that keeps the first samples of each experience:

        >>> class FirstSamples:
        ...     def __init__(self, size):
        ...         self.size, self.positions, self.data = size, [], []
        ...     def state_dict(self):
        ...         return {"positions": self.positions}
        ...     def load_state_dict(self, state, experiences):
        ...         self.positions = state["positions"]
        ...         self.data = [
        ...             experience.dataset.subset(rows)
        ...             for experience, rows in zip(experiences, self.positions)
        ...         ]
        >>> isinstance(FirstSamples(5), Resumable)
        True
    """

    def state_dict(self) -> dict[str, Any]:
        """State between two experiences.

        Returns:
            Tensors, numbers, texts, ``None``, and lists, tuples, sets and dictionaries
            of them. It is written at once, so nothing need be copied.
        """

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Go on from a state.

        Args:
            state: As returned by `state_dict`; tensors that were on the strategy's
                device are there again, all others are on the CPU.
            experiences: Those trained so far, in order.
        """


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint tells of the run.

    Example:
        >>> Checkpoint(n_experiences=2, extra={"seed": 1}).extra["seed"]
        1
    """

    n_experiences: int
    """Experiences trained so far; the next one is ``train_stream[n_experiences]``."""
    extra: dict[str, Any]
    """What was given to `save_checkpoint`."""


def save_checkpoint(
    path: str | os.PathLike[str],
    strategy: Any,
    train_stream: Iterable[CLExperience],
    *,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write the strategy to a file, whole or not at all.

    Args:
        path: The file; its folder must exist. An older checkpoint there is replaced
            only when the new one is complete on the disk.
        strategy: Any Avalanche strategy, between two experiences. It is not changed.
        train_stream: The stream whose first experiences the strategy was trained on,
            each once and in order.
        extra: Tensors and plain data to find again in `Checkpoint`.

    Raises:
        CheckpointError: If the strategy is in the middle of an experience, something
            it holds cannot be saved (the message names the attribute), or the file
            cannot be written. A file already there stays as it was.
    """
    path = Path(path)
    _require_between_experiences(strategy, "saved")
    experiences = _trained(train_stream, strategy.clock.train_exp_counter)
    try:
        encoder = Encoder(strategy, StreamSamples(experiences), experiences)
        state = encoder.encode(extra=dict(extra or {}), rng=global_state())
    except StateError as error:
        raise CheckpointError(f"{path} not written: {error}") from error
    header = header_of(strategy, experiences)
    try:
        files.write_atomically(path, {"magic": _MAGIC, "header": header, **state})
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} not written, an older one is as it was: {error}"
        ) from error


def load_checkpoint(
    path: str | os.PathLike[str], strategy: Any, train_stream: Iterable[CLExperience]
) -> Checkpoint:
    """Put a checkpoint into a freshly constructed strategy.

    Afterwards, train on ``train_stream[n_experiences:]``. The random generators of
    Python, NumPy and torch continue, too: seed nothing in between.

    Args:
        path: A file of `save_checkpoint`.
        strategy: Constructed by the same code with the same arguments, not trained.
            Other arguments of this package's plugins are refused. Of all else,
            ``train_epochs`` or the learning rate for instance, the values at the time
            of saving come back.
        train_stream: The same stream.

    Returns:
        The number of experiences trained, and ``extra``.

    Raises:
        CheckpointError: If there is no such file, it is damaged or of another kind, or
            it does not belong to this strategy and stream. The strategy is unchanged.
    """
    path = Path(path)
    content = _read(path)
    header = content["header"]
    _require_between_experiences(strategy, "loaded")
    if strategy.clock.train_exp_counter:
        raise CheckpointError(
            f"the strategy was trained on {strategy.clock.train_exp_counter} "
            "experiences; wanted a new one"
        )
    experiences = _trained(train_stream, header["n_experiences"])
    require_same(path, header, header_of(strategy, experiences))
    before = global_state()
    try:
        decoder = Decoder(content["table"], strategy, experiences)
        extra, rng = decoder.value(content["extra"]), decoder.value(content["rng"])
        decoder.commit()
    except StateError as error:
        set_global_state(before)
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:
        set_global_state(before)
        raise CheckpointError(f"{path} is damaged: {error!r}") from error
    set_global_state(rng)
    return Checkpoint(len(experiences), extra)


def _require_between_experiences(strategy: Any, done: str) -> None:
    """Refuse while `train` or `eval` is running."""
    evaluating = strategy.current_eval_stream
    idle = isinstance(evaluating, list) and not evaluating
    if strategy.experience is None and strategy._eval_streams is None and idle:
        return
    raise CheckpointError(
        f"a strategy can be {done} only between experiences; this one is inside "
        "train() or eval()"
    )


def _trained(stream: Iterable[CLExperience], number: int) -> list[CLExperience]:
    """The first experiences of the stream."""
    experiences = list(itertools.islice(stream, number))
    if len(experiences) < number:
        raise CheckpointError(
            f"the stream has {len(experiences)} experiences; wanted at least {number}, "
            "as many as were trained"
        )
    return experiences


def _read(path: Path) -> dict[str, Any]:
    """Content of a checkpoint file of a format that is known."""
    if not path.is_file():
        raise CheckpointError(f"{path} is no file; wanted a checkpoint")
    try:
        content = files.read(path)
    except Exception as error:  # of many classes, depending on what the bytes are
        raise CheckpointError(
            f"{path} is damaged or no checkpoint ({type(error).__name__})"
        ) from error
    if not isinstance(content, dict) or content.get("magic") != _MAGIC:
        raise CheckpointError(
            f"{path} holds a {type(content).__name__} of another origin; wanted a "
            "file of save_checkpoint"
        )
    if content["header"]["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {content['header']['format']}, written by version "
            f"{content['header']['version']}; wanted {FORMAT}, version {__version__}"
        )
    return content
