"""How much of a network each experience has taken."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name

if TYPE_CHECKING:
    from avalanche.training.templates import SupervisedTemplate

    from avalanche_ext.functional.relevance import Capacity

_KINDS = ("First_Frozen", "Shared", "Free")


class UnitCapacity(PluginMetric[dict[str, float]]):
    r"""Percent of the units that an experience froze, shared with others and left free.

    For a layer of C units, of which experience t keeps ``keep_t`` and those before it
    froze F:

    .. math:: \text{first frozen} = \frac{100}{C} |keep_t \setminus F|, \qquad
        \text{shared} = \frac{100}{C} |keep_t \cap F|, \qquad
        \text{free} = \frac{100}{C} (C - |keep_t \cup F|)

    First frozen, summed over the experiences, and free make 100. Published after each
    training experience as ``Units_First_Frozen/train_phase/<stream>_stream/<layer>``,
    ``Units_Shared/...`` and ``Units_Free/...``, and without the layer for the units of
    all layers together. The counts are those of the first plugin with a method
    ``capacity() -> dict[str, Capacity]``; without such a plugin, or before it counts
    anything, nothing is published.

    Callbacks: ``after_training_exp`` asks and publishes; the evaluator runs after the
    plugins given to the strategy. Between experiences it keeps the numbers published
    last.

    Example:
        >>> UnitCapacity().result()
        {}
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Forget the numbers published last."""
        self.percent: dict[str, float] = {}

    def result(self) -> dict[str, float]:
        """Return the percentages by ``<kind>`` (all layers) and ``<kind>/<layer>``."""
        return dict(self.percent)

    def after_training_exp(self, strategy: SupervisedTemplate) -> list[MetricValue]:
        """Ask for the counts and publish."""
        layers = _capacity_of(strategy)
        self.percent = _percent("", layers.values()) if layers else {}
        for name, layer in layers.items():
            self.percent |= _percent(f"/{name}", [layer])
        tail = get_metric_name("", strategy, add_task=False)
        values = []
        for name, percent in self.percent.items():
            kind, slash, layer_name = name.partition("/")
            full = f"Units_{kind}{tail}{slash}{layer_name}"
            step = strategy.clock.train_iterations
            values.append(MetricValue(self, full, percent, step))
        return values

    def __str__(self) -> str:
        return "Units"


def _capacity_of(strategy: SupervisedTemplate) -> dict[str, Capacity]:
    """What the first plugin that counts units says."""
    for plugin in strategy.plugins:
        if callable(count := getattr(plugin, "capacity", None)):
            return dict(count())
    return {}


def _percent(place: str, layers: Iterable[Capacity]) -> dict[str, float]:
    """Percentages of the units of some layers after their last experience."""
    layers = list(layers)
    counts = (
        sum(layer.first_frozen[-1] for layer in layers),
        sum(layer.shared[-1] for layer in layers),
        sum(layer.free for layer in layers),
    )
    units = sum(sum(layer.first_frozen) + layer.free for layer in layers)
    return {
        f"{kind}{place}": 100 * count / units
        for kind, count in zip(_KINDS, counts, strict=True)
    }
