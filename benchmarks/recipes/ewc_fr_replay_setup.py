"""What all recipes of EWC+FR+Replay share: the options of method and training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from benchmarks.names import UsageError
from benchmarks.recipes.frame import Frame
from benchmarks.recipes.recipe import (
    Device,
    Evaluator,
    Module,
    Plugin,
    Setup,
    Strategy,
)
from benchmarks.recipes.resident_frame import ResidentFrame
from benchmarks.streams import STREAMS

#: All that `setup_ewc_fr_replay` hands to the strategy as it is.
METHOD = [
    "memory_size",
    "replay_fraction",
    "selection",
    "on_small",
    "strength",
    "tau",
    "tau2",
    "scale_tau",
    "temperature",
    "label_smoothing",
    "replay_correction",
    "prior_precision",
    "fisher",
    "fisher_outputs",
    "max_grad_norm",
]


def setup_ewc_fr_replay(
    *,
    memory_size: NonNegativeInt = 200,
    replay_fraction: ClosedUnitInterval = 0.5,
    selection: Literal["random", "lambda", "lambda_ascending"] = "random",
    on_small: Literal["raise", "clip"] = "raise",
    strength: tuple[NonNegativeFloat, ...] = (1.0,),
    tau: NonNegativeFloat = 1.0,
    tau2: NonNegativeFloat | None = None,
    scale_tau: bool = False,
    temperature: PositiveFloat = 1.0,
    label_smoothing: ClosedUnitInterval = 0.0,
    replay_correction: Literal["plain", "centred"] = "plain",
    prior_precision: NonNegativeFloat = 1e-3,
    fisher: Literal["empirical", "ggn", "none"] = "empirical",
    fisher_outputs: Literal["head", "all"] = "head",
    fresh_weights: bool = False,
    max_grad_norm: PositiveFloat | None = None,
    decay_norms: bool = True,
    early_stopping: bool = False,
    validate_past: bool = False,
    peak_epoch: PositiveInt | None = None,
    resolutions: tuple[PositiveInt, ...] = (),
    resolution_epochs: tuple[NonNegativeInt, ...] = (),
    drop_last: bool = False,
    num_workers: NonNegativeInt = 0,
    **frame: Any,
) -> Setup:
    """Set up EWC+FR+Replay.

    Args:
        memory_size: Memorable points of each past experience; 0: EWC.
        replay_fraction: Share of them that is replayed; 0: EWC+FR, 1: EWC+Replay.
        selection: How points are chosen.
        on_small: clip: an experience with fewer images gives all it has.
        strength: Lambda of the second experience, the third, ...; the last is
            repeated. [0]: without EWC.
        tau: Weight of the first experience's memory.
        tau2: Weight of all later ones; null: the same.
        scale_tau: Let a memory stand for all data of its experience.
        temperature: Of the functional regulariser.
        label_smoothing: Share of each target spread over all classes, below 1.
        replay_correction: centred takes the bias out of the replay term.
        prior_precision: Delta, added to the Fisher.
        fisher: Kind of the Fisher information; none: the K-prior.
        fisher_outputs: Of the head of a task, or of all outputs as published.
        fresh_weights: Train each experience from the first weights. With all images
            in memory, all of them replayed, that is joint training.
        max_grad_norm: Norm to which gradients are clipped.
        decay_norms: Whether weight decay acts on normalisations, too; if not,
            fisher_outputs must be all.
        early_stopping: Learning rate divided by ten after 5 epochs without a lower loss
            on validation images, end after 10, beginning with the 11th epoch; then the
            best weights. The stream must hold such images back.
        validate_past: Whether those of past experiences count, too, as in the authors'
            FR methods.
        peak_epoch: The learning rate grows from a 10000th for so many epochs, then
            falls to 0, step by step; null: it does not.
        resolutions: Height and width to which training images are resized at first and
            at last, e.g. [160,192]; [] leaves them.
        resolution_epochs: Epochs between which that changes, e.g. [29,34].
        drop_last: Leave out the last mini-batch of an epoch if it is smaller.
        num_workers: Processes that read image files.
    """
    given = locals()
    method = {name: given[name] for name in METHOD}
    protocol = ResidentFrame(**frame)
    wide = fisher_outputs == "all"
    _require_one_schedule(protocol, early_stopping, peak_epoch)
    _require_ramp(resolutions, resolution_epochs)
    if not decay_norms and not wide:
        raise UsageError(
            "decay_norms is False with fisher_outputs head, whose classifier grows by "
            "parameters that Avalanche cannot sort; wanted fisher_outputs all"
        )

    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from avalanche_ext.strategies import EWCFRReplay

        n_classes = STREAMS[protocol.stream].n_classes
        model = protocol.make_linear_model(n_classes if wide else None)
        optimizer, plugins = protocol.make_optimizer(model, decay_norms=decay_norms)
        plugins += _plugins(model, fresh_weights, peak_epoch, resolutions, given)
        strategy = EWCFRReplay(
            model=model,
            optimizer=optimizer,
            plugins=plugins,
            evaluator=evaluator,
            device=device,
            **protocol.template_options(),
            **method,
        )
        if early_stopping:
            # first: the memory and the Fisher look at the best weights
            strategy.plugins.insert(0, _early_stopping(validate_past))
        return strategy

    loading = {"num_workers": num_workers} if num_workers else {}
    return protocol.setup(
        make_strategy,
        memory=_memory(memory_size, strength, fresh_weights),
        train_options={**loading, **({"drop_last": True} if drop_last else {})},
        eval_options=loading,
    )


def _require_one_schedule(
    frame: Frame, early_stopping: bool, peak_epoch: int | None
) -> None:
    if bool(frame.milestones) + early_stopping + (peak_epoch is not None) > 1:
        raise UsageError(
            f"milestones are {list(frame.milestones)}, early_stopping {early_stopping}, "
            f"peak_epoch {peak_epoch}; wanted one schedule at most"
        )
    if peak_epoch is not None and peak_epoch >= frame.train_epochs:
        raise UsageError(
            f"peak_epoch is {peak_epoch}; wanted less than train_epochs, which is "
            f"{frame.train_epochs}"
        )


def _require_ramp(sizes: Sequence[int], epochs: Sequence[int]) -> None:
    fits = len(sizes) == len(epochs) == 2 and epochs[0] < epochs[1]
    if (sizes or epochs) and not fits:
        raise UsageError(
            f"resolutions are {list(sizes)}, resolution_epochs {list(epochs)}; wanted "
            "two of each, the epochs ascending, or none"
        )


def _plugins(
    model: Module,
    fresh_weights: bool,
    peak_epoch: int | None,
    resolutions: Sequence[int],
    given: dict[str, Any],
) -> list[Plugin]:
    """Those of training that act after the method's own."""
    plugins: list[Plugin] = []
    if fresh_weights:
        from benchmarks.training.fresh_weights import FreshWeightsPlugin

        plugins.append(FreshWeightsPlugin(next(model.children())))
    if peak_epoch is not None:
        from benchmarks.training.peak_lr import PeakLRPlugin

        plugins.append(PeakLRPlugin(peak_epoch))
    if resolutions:
        from benchmarks.training.resolution import ResolutionPlugin

        plugins.append(
            ResolutionPlugin(tuple(resolutions), tuple(given["resolution_epochs"]))
        )
    return plugins


def _early_stopping(validate_past: bool) -> Plugin:
    from benchmarks.training.plateau import PlateauPlugin
    from benchmarks.training.validation import ValidationStream

    return PlateauPlugin(
        ValidationStream(past=validate_past),
        factor=0.1,
        patience=5,
        stop_patience=10,
        start_epoch=10,
    )


def _memory(size: int, strength: Sequence[float], fresh_weights: bool) -> str:
    words = [f"{size} points an experience" if size else "no points"]
    lambdas = ", ".join(f"{s:g}" for s in strength)
    words += [f"EWC {lambdas}" if any(strength) else "no EWC"]
    return ", ".join([*words, "fresh weights"] if fresh_weights else words)
