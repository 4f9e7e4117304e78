"""One run: train experience by experience; evaluate and save after each of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from benchmarks.names import RunFailed, UsageError
from benchmarks.recipes.recipe import Setup
from benchmarks.runs.evaluate import accuracy_row, classes_of
from benchmarks.runs.evaluation import (
    DEFAULT_METRICS,
    last_values,
    make_evaluator,
    require_measurable,
)
from benchmarks.runs.lock import locked
from benchmarks.runs.options import Run, Settings
from benchmarks.runs.pictures import write_pictures
from benchmarks.runs.record import Progress, make_record
from benchmarks.runs.results import read_matrix
from benchmarks.streams import STREAMS, make_stream
from benchmarks.streams.stand_in import require_note

if TYPE_CHECKING:
    import torch
    from avalanche.benchmarks import CLScenario
    from avalanche.core import CLExperience
    from avalanche.training.templates import SupervisedTemplate


def execute(run: Run, command: str) -> None:
    """Carry out a run, or what is left of it.

    Args:
        run: Recipe and options.
        command: The command as typed, for ``run.json``.

    Raises:
        UsageError: If another process writes there; if the folder holds results and
            ``--resume`` was not given; if an option is wrong, data or CUDA are missing,
            or the checkpoint is missing or cannot be used. Nothing was changed then.
    """
    with locked(run.folder.path):
        _execute(run, command)


def _execute(run: Run, command: str) -> None:
    folder = run.folder
    if folder.holds_results and not run.settings.resume:
        raise UsageError(
            f"{folder.path} holds results; add --resume to go on with them, "
            "or --out DIR to keep them and start elsewhere"
        )
    if run.settings.resume and folder.is_finished:
        print(f"{folder.path} is finished already")
        return
    training = start(run, command)
    folder.prepare(run.to_yaml())
    training.finish()
    print(f"results in {folder.path}", flush=True)


def start(run: Run, command: str) -> Training:
    """Build all parts of a run; with ``--resume``, put them where they had been.

    The generators of Python, NumPy and torch are seeded here and nowhere else: after
    the benchmark is built and before the model is.

    Args:
        run: Recipe and options.
        command: The command as typed.

    Returns:
        The run, ready to `Training.finish`. Nothing is written yet.

    Raises:
        UsageError: As `execute`.
    """
    import torch
    from avalanche.training.determinism.rng_manager import RNGManager

    if run.settings.threads is not None:
        torch.set_num_threads(run.settings.threads)
    device = choose_device(run.settings.device)
    try:
        setup = run.recipe.function(**run.options)
        benchmark = _make_benchmark(run.settings, setup)
        RNGManager.set_random_seeds(run.settings.seed)
        further = run.settings.metrics or ()
        evaluator = make_evaluator(
            metrics=(*DEFAULT_METRICS, *further),
            loggers=choose_loggers(run.settings.loggers),
            out=run.folder.path,
        )
        strategy = setup.make_strategy(evaluator=evaluator, device=device)
        require_measurable(strategy)
    except (ValueError, FileNotFoundError) as error:
        # streams know the command that gets their data, but not of which recipe
        name = run.recipe.name
        if "stream" in run.changed:
            name += f" --stream {run.options['stream']}"
        text = str(error).replace("run RECIPE", f"run {name}")
        raise UsageError(text) from error
    training = Training(run=run, setup=setup, benchmark=benchmark, strategy=strategy)
    if run.settings.resume:
        training.restore()
    training.progress.commands.append(command)
    return training


def _make_benchmark(settings: Settings, setup: Setup) -> CLScenario:
    from benchmarks.streams.data import data_folder

    root = data_folder(STREAMS[setup.stream], settings.dataset_root)
    require_note(root, settings.note)
    return make_stream(
        setup.stream,
        dataset_root=settings.dataset_root,
        download=settings.download,
        **setup.stream_options,
    )


def choose_device(name: str) -> torch.device:
    """The device by its name on the command line.

    Args:
        name: ``"auto"``, ``"cpu"`` or ``"cuda"``; ``"auto"`` is CUDA if there is one.

    Returns:
        The device.

    Raises:
        UsageError: If CUDA is wanted and there is none.
    """
    import torch

    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise UsageError("--device cuda, but torch finds no CUDA device; wanted cpu")
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def choose_loggers(names: Sequence[str] | None) -> Sequence[str]:
    """The loggers of a run.

    Args:
        names: Those asked for; ``None``: a text file, and progress bars for a person.

    Returns:
        Keys of ``evaluation.LOGGERS``.
    """
    if names is not None:
        return names
    return ("text", "interactive") if sys.stdout.isatty() else ("text",)


@dataclass(kw_only=True)
class Training:
    """A run under way.

    Args:
        run: Recipe and options.
        setup: What the recipe returned.
        benchmark: Streams ``train_stream`` and ``test_stream``.
        strategy: The strategy, its model on the device of the run.
        progress: What was measured so far.
    """

    run: Run
    setup: Setup
    benchmark: CLScenario
    strategy: SupervisedTemplate
    progress: Progress = field(default_factory=Progress)

    @cached_property
    def tests(self) -> list[CLExperience]:
        """All test experiences."""
        return list(self.benchmark.test_stream)

    @property
    def n_finished(self) -> int:
        """Number of experiences finished."""
        return len(self.progress.accuracy)

    def restore(self) -> None:
        """Put strategy and progress back to the last finished experience, if any.

        Raises:
            UsageError: If the checkpoint cannot be used, or is missing beside results.
        """
        from avalanche_ext.checkpoint import CheckpointError, load_checkpoint

        path, matrix = self.run.folder.checkpoint, self.run.folder.accuracy
        if not path.exists():
            if matrix.exists() and (rows := read_matrix(matrix)):
                raise UsageError(
                    f"no {path.name} in {path.parent}, but accuracy.csv has {len(rows)} "
                    "rows; wanted the checkpoint, or another --out"
                )
            print(f"no experience is saved in {path.parent}: starting anew", flush=True)
            return
        try:
            saved = load_checkpoint(path, self.strategy, self.benchmark.train_stream)
        except CheckpointError as error:
            raise UsageError(str(error)) from error
        try:
            self.progress = Progress(**saved.extra)
        except TypeError as error:
            raise UsageError(
                f"{path} was saved by another version of this package ({error}); "
                "wanted one of this version, or another --out"
            ) from error

    def finish(self) -> None:
        """Train what is left; afterwards all results are in the folder."""
        stream, n = self.benchmark.train_stream, self.n_finished
        seen = {pair for e in islice(stream, n) for pair in classes_of(e)}
        if n:
            self._write()  # a kill may have come between the checkpoint and these
        for experience in islice(stream, n, None):
            seen |= classes_of(experience)
            self._one_experience(experience, seen)
        # last: a picture that takes the process down takes no result with it
        folder = self.run.folder.path / "pictures"
        write_pictures(self.strategy, self.benchmark.test_stream, folder)
        self.run.folder.drawing.unlink(missing_ok=True)

    def _one_experience(
        self, experience: CLExperience, seen: AbstractSet[tuple[int, int]]
    ) -> None:
        from avalanche_ext.metrics.memory import memory_bytes

        began = time.monotonic()
        self.strategy.train(experience, **self.setup.train_options)
        trained = time.monotonic()
        row: list[float | None] = [None] * len(self.tests)
        if due := self._evaluation_is_due():
            options = self.setup.eval_options
            row = accuracy_row(self.strategy, self.tests, seen, **options)
        self.progress.add(
            row,
            minutes=(time.monotonic() - began) / 60,
            train_seconds=trained - began,
            memory_bytes=memory_bytes(self.strategy),
            further_metrics=last_values(
                self.strategy.evaluator, self.run.settings.metrics or ()
            ),
            device=self.strategy.device,
        )
        if due:
            self._save()
            self._write()

    def _evaluation_is_due(self) -> bool:
        """Whether the experience just trained is a K-th one, or the last."""
        n, of = self.n_finished + 1, len(self.benchmark.train_stream)
        return n % self.run.settings.eval_every == 0 or n == of

    def _save(self) -> None:
        from avalanche_ext.checkpoint import CheckpointError, save_checkpoint

        try:
            save_checkpoint(
                self.run.folder.checkpoint,
                self.strategy,
                self.benchmark.train_stream,
                extra=asdict(self.progress),
            )
        except CheckpointError as error:
            raise RunFailed(str(error)) from error

    def _write(self) -> None:
        """Write ``run.json`` and ``accuracy.csv``, and a line for people."""
        n, of = self.n_finished, len(self.benchmark.train_stream)
        record = make_record(
            self.run,
            self.setup,
            self.progress,
            n_experiences=of,
            test_images=[len(e.dataset) for e in self.tests],
            device=self.strategy.device,
        )
        if n == of:  # before run.json says that the run is finished
            self.run.folder.drawing.touch()
        self.run.folder.write(self.progress.accuracy, record)
        percent = 100 * record["metrics"]["final_accuracy"]
        print(
            f"experience {n} of {of}: {percent:.1f} % over all seen so far, "
            f"{self.progress.minutes:.2f} minutes",
            flush=True,
        )
