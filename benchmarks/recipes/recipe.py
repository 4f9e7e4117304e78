"""What a recipe is. Read this to add one.

A recipe is a function in this folder that carries one experiment completely: stream,
network, optimizer, schedule, memory, hyper-parameters. Its typed, keyword-only
signature is the command line (each option, its default, its check) and its docstring is
the help. It is decorated with :func:`recipe`, returns a :class:`Setup`, and its
module is named in ``recipes/__init__.py``. So that ``--help`` takes a moment only, the
module imports nothing heavy, not even under ``TYPE_CHECKING`` (the parser of the
command line carries those imports out); torch and Avalanche are imported inside the
function that makes the strategy::

    @recipe(smoke={"stream": "split_digits", "train_epochs": 1})
    def my_method(*, stream: str = "split_mnist", train_epochs: PositiveInt = 4):
        \"\"\"My method on MNIST, in one line.

        Args:
            stream: Name of the stream.
            train_epochs: Passes over each experience.
        \"\"\"

        def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
            from avalanche.training.supervised import Naive

            ...  # network, optimizer
            return Naive(model=..., evaluator=evaluator, device=device, ...)

        return Setup(
            stream=stream,
            stream_options={"n_experiences": 5},
            setting="split_mnist, 5 experiences; 4 epochs",
            memory="no memory",
            make_strategy=make_strategy,
        )

The defaults are the paper's protocol: ``table`` compares a run with the paper's figure
only where its options are these defaults. Further rows of a paper's table, other
numbers of experiences or sizes of memory, are the same function with other defaults,
each a recipe of its own::

    row(my_method, "my_method_long", "My method, 10 experiences.", n_experiences=10)

``seed``, ``device``, the folders and the loggers are options of every run and
not of a recipe; the runner seeds after the benchmark is built and before
``make_strategy`` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from inspect import getdoc
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from avalanche.training.plugins import EvaluationPlugin as Evaluator
    from avalanche.training.plugins import SupervisedPlugin as Plugin
    from avalanche.training.templates import SupervisedTemplate as Strategy
    from torch import device as Device
    from torch.nn import Module
    from torch.optim import Optimizer
else:  # names that recipes can annotate with, and still import nothing
    Evaluator = Strategy = Plugin = Device = Module = Optimizer = Any

__all__ = [
    "RECIPES",
    "Device",
    "Evaluator",
    "MakeStrategy",
    "Module",
    "Optimizer",
    "Plugin",
    "Recipe",
    "Setup",
    "Strategy",
    "recipe",
    "row",
]


class MakeStrategy(Protocol):
    """Builds the strategy of a run, afresh and from the global random generators."""

    def __call__(self, *, evaluator: Evaluator, device: Device) -> Strategy:
        """Build it.

        Args:
            evaluator: Metrics and loggers of the run, to hand to the strategy.
            device: Device of the run, to hand to the strategy.

        Returns:
            A strategy that has trained nothing yet.
        """


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a recipe returns: all that the runner needs of it.

    Args:
        stream: Name of a stream of ``benchmarks.streams``.
        stream_options: Options of ``make_stream``, without the folder of the data.
        setting: Stream, network and epochs in a few words: the head under which the
            table of results puts the run.
        memory: What the method remembers, in a few words: exemplars, usually.
        make_strategy: Builds the strategy; imports torch and Avalanche itself.
        train_options: Arguments of each ``strategy.train()``, e.g. ``num_workers``.
        eval_options: Arguments of each ``strategy.eval()``.
    """

    stream: str
    stream_options: Mapping[str, Any]
    setting: str
    memory: str
    make_strategy: MakeStrategy
    train_options: Mapping[str, Any] = field(default_factory=dict)
    eval_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A registered recipe.

    Args:
        name: Name on the command line and of the folder of results.
        function: The recipe itself.
        smoke: Options of the ``--smoke`` size: ``split_digits``, a few seconds.
        base: Name of the recipe this one is a row of; its own name if of none.
        summary: What it is, in one line.
        defaults: Options that differ from the defaults of the function's signature.
    """

    name: str
    function: Callable[..., Setup]
    smoke: Mapping[str, Any]
    base: str
    summary: str
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_row(self) -> bool:
        """Whether it is a row of another recipe."""
        return self.base != self.name

    def setup(self, **options: Any) -> Setup:
        """Call the function.

        Args:
            **options: Those that differ from the defaults of this recipe.

        Returns:
            What the recipe returns.
        """
        return self.function(**{**self.defaults, **options})


RECIPES: dict[str, Recipe] = {}
"""All recipes by name; filled by importing ``benchmarks.recipes``."""


def recipe(
    *, smoke: Mapping[str, Any], **defaults: Any
) -> Callable[[Callable[..., Setup]], Callable[..., Setup]]:
    """Register a recipe under its function's name.

    Args:
        smoke: Options of the ``--smoke`` size.
        **defaults: Options that differ from the defaults of the function's signature.

    Returns:
        The decorator, which gives the function back unchanged.
    """

    def register(function: Callable[..., Setup]) -> Callable[..., Setup]:
        name = function.__name__
        summary = (getdoc(function) or "").split("\n", 1)[0]
        _register(
            Recipe(
                name=name,
                function=function,
                smoke=smoke,
                base=name,
                summary=summary,
                defaults=defaults,
            )
        )
        return function

    return register


def row(base: Callable[..., Setup], name: str, summary: str, **defaults: Any) -> None:
    """Register a recipe with other defaults: another row of a paper's table.

    Args:
        base: A function decorated with `recipe`.
        name: Name of the row.
        summary: What it is, in one line.
        **defaults: Options that differ from those of ``base``.
    """
    known = RECIPES[base.__name__]
    _register(
        replace(
            known,
            name=name,
            base=known.name,
            summary=summary,
            defaults={**known.defaults, **defaults},
        )
    )


def _register(made: Recipe) -> None:
    if made.name in RECIPES:
        raise ValueError(f"recipe {made.name} exists; wanted another name")
    RECIPES[made.name] = made
