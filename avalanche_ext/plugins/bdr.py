"""Balanced destruction-reconstruction (BDR): a class prior inside the training loss."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

from avalanche.benchmarks import CLExperience
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_ext._checks import require_choice, require_fraction, require_real
from avalanche_ext._criteria import (
    CriterionOfBatch,
    require_softmax_cross_entropy,
)
from avalanche_ext._ranks import n_ranks
from avalanche_ext.checkpoint.rng import generators_of, random_state_kept
from avalanche_ext.functional.class_statistics import is_finite
from avalanche_ext.functional.logit_adjustment import (
    Absent,
    DispersionWeights,
    LogitAdjustment,
    absent_offset,
    last_class,
    start_adjustment,
    update_adjustment,
)
from avalanche_ext.functional.precision import at_least_float32
from avalanche_ext.loaders import values_of
from avalanche_ext.models.class_statistics import (
    CountSource,
    batch_statistics,
    class_counts,
    data_statistics,
    require_finite,
    require_spread,
    rows_of,
)
from avalanche_ext.models.cosine_classifier import classes_in
from avalanche_ext.models.feature_classifier import require_features


class BDRPlugin(SupervisedPlugin):
    r"""Balance what a class loses to new data and regains from its exemplars.

    .. math:: L = \mathrm{CE}(z + \pi, y)

    The offset :math:`\pi_c`, in nats, is the logarithm of a mixture of the class's
    frequency in the training data and its compactness, see `log_prior`; it follows
    each batch, see `update_adjustment`. It exists in the training loss only: metrics,
    other plugins and predictions see the logits as they are. In the first experience
    it is 0.

    For any strategy whose ``criterion`` is a softmax cross-entropy and whose model
    exposes its features (see `FeatureClassifier`), with exemplars or without. Over
    several processes the statistics are summed, so that each holds the same
    :math:`\pi`.

    Callbacks: before the first epoch of each experience but the first, one pass over
    ``strategy.dataloader`` in evaluation mode (the random generators are put back);
    after each forward pass the statistics follow the batch, and the criterion is
    replaced for that batch's loss. Changes nothing else. Keeps between experiences:
    the statistics of the last one, and which classes have been met.

    Args:
        m1: Weight of the frequency at the start, in ``[0, 1]``; the rest is that of
            the compactness.
        m2: The same in the updates.
        momentum: Of the updates, in ``[0, 1]``.
        tro: Exponent of the mixture, >= 0.
        dispersion_weights: How far a batch moves the dispersions: ``"per_class"``, or
            ``"last_class"`` as in the published code, where a variable left over from
            a loop gives all classes the weight of the one that appears last.
        absent: What a class that the training data lack gets, see `log_prior`.
        zero_dispersion: ``"neutral"``: a class without spread (one exemplar) gets the
            mean compactness of the others. ``"raise"``.
        psi_source: What :math:`\psi` counts: ``"loader"``, samples that an epoch
            delivers; ``"targets"``, samples of ``strategy.adapted_dataset``;
            ``"auto"``, the latter unless the loader delivers more of a class.
        normalize_features: Measure dispersions on features of unit length; published:
            False.

    Attributes:
        adjustment: The `LogitAdjustment`, float64 on the training device; None before
            the second experience.
        classes: Class id of each of its K rows, int64.

    Raises:
        ValueError: If an argument is out of its range; before training, if the
            criterion or the model does not fit; if features are not finite, by class
            (on a GPU at the end of the epoch).

    Example:
        >>> BDRPlugin().momentum
        0.99

    References:
        Zhou et al., Balanced Destruction-Reconstruction Dynamics for Memory-Replay
        Class Incremental Learning, IEEE TIP 2024; code zyuh/BDR-main.
    """

    def __init__(
        self,
        *,
        m1: float = 0.8,
        m2: float = 0.8,
        momentum: float = 0.99,
        tro: float = 1.0,
        dispersion_weights: DispersionWeights = "per_class",
        absent: Absent = "mask",
        zero_dispersion: Literal["neutral", "raise"] = "neutral",
        psi_source: CountSource = "auto",
        normalize_features: bool = False,
    ) -> None:
        super().__init__()
        require_fraction(m1=m1, m2=m2, momentum=momentum)
        require_real(0, tro=tro)
        require_choice(
            get_args(DispersionWeights), dispersion_weights=dispersion_weights
        )
        require_choice(get_args(Absent), absent=absent)
        require_choice(("neutral", "raise"), zero_dispersion=zero_dispersion)
        require_choice(get_args(CountSource), psi_source=psi_source)
        require_choice((True, False), normalize_features=normalize_features)
        self.m1, self.m2 = float(m1), float(m2)
        self.momentum, self.tro = float(momentum), float(tro)
        self.dispersion_weights = dispersion_weights
        self.absent = absent
        self.zero_dispersion = zero_dispersion
        self.psi_source = psi_source
        self.normalize_features = normalize_features
        self.adjustment: LogitAdjustment | None = None
        self.classes: Any = None
        self.met: set[int] = set()
        self._warned = False
        self._criterion = CriterionOfBatch("BDR", self._adjusted)
        self._broken: Any = None  # classes whose features were not finite

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse a criterion or a model that does not fit, before any work."""
        self._criterion.take_out(strategy)  # if an error left it there
        criterion = strategy._criterion
        require_softmax_cross_entropy(criterion)
        require_features(strategy.model)
        if sum(isinstance(plugin, BDRPlugin) for plugin in strategy.plugins) > 1:
            raise ValueError("plugins hold more than one BDRPlugin; wanted one")
        smoothing = getattr(criterion, "label_smoothing", 0.0)
        if smoothing and self.absent == "mask":
            raise ValueError(
                f"the criterion has label_smoothing={smoothing}, which would raise the "
                "logits of masked classes; wanted 0, or absent='ignore'"
            )
        if self.dispersion_weights == "last_class" and n_ranks() > 1:
            raise ValueError(
                f"dispersion_weights is 'last_class' in {n_ranks()} processes; wanted "
                "'per_class': the published code runs in one"
            )

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Forget the last experience's statistics."""
        self.adjustment = None
        self._broken = None
        self._criterion.n_calls = 0

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Take the offsets out of the criterion, if an error left them there."""
        self._criterion.take_out(strategy)

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Measure the classes: now all plugins have had their say on the loader."""
        if self.adjustment is None and strategy.clock.train_exp_counter:
            loader = strategy.dataloader
            with random_state_kept(*generators_of(loader)):
                self.classes, data = data_statistics(
                    strategy.model,
                    loader,
                    strategy.device,
                    unit_length=self.normalize_features,
                )
            self._broken = ~is_finite(data)
            require_finite(self.classes, self._broken)
            if self.zero_dispersion == "raise":
                require_spread(self.classes, data)
            self.adjustment = start_adjustment(
                data,
                class_counts(
                    strategy.model,
                    values_of(strategy.adapted_dataset.targets),
                    self.classes,
                    data.counts,
                    self.psi_source,
                ),
                m=self.m1,
                tro=self.tro,
                absent=self.absent,
            )
            self._warn_of_absent(self.adjustment)

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Follow the batch; let the next call of the criterion see the offsets."""
        if self.adjustment is not None:
            self._follow(strategy, self.adjustment)
        self._criterion.put_in(strategy)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Put the criterion back; refuse a strategy that did not call it."""
        self._criterion.take_out(strategy)
        self._criterion.require_called(strategy)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Report features that were not finite."""
        if self.adjustment is not None:
            require_finite(self.classes, self._broken)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Note which classes have been met; refuse a loop without the callbacks."""
        self._criterion.require_called(strategy)
        self.met.update(classes_in(strategy.experience))

    def offsets(self, logits: Tensor) -> Tensor:
        r"""The offset of each column of the logits.

        Args:
            logits: Shape ``(B, W)``.

        Returns:
            :math:`\pi` by class id, in the logits' precision or float32, ``(W,)``; 0
            in the first experience.
        """
        precise, width = at_least_float32(logits), logits.shape[1]
        if self.adjustment is None:
            return precise.new_zeros(width)
        row = precise.new_full((width,), absent_offset(self.absent))
        return row.index_copy(0, self.classes, self.adjustment.offsets.to(row.dtype))

    def state_dict(self) -> dict[str, Any]:
        """The statistics by name, and the classes met."""
        rows = self.adjustment._asdict() if self.adjustment else {}
        return {"adjustment": rows, "classes": self.classes, "met": sorted(self.met)}

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Put them back.

        Args:
            state: As returned by `state_dict`.
            experiences: Unused.
        """
        rows = state["adjustment"]
        self.adjustment = LogitAdjustment(**rows) if rows else None
        self.classes = state["classes"]
        self.met = set(state["met"])

    def memory_bytes(self) -> dict[str, int]:
        """Bytes of the statistics, as ``{"class_statistics": bytes}``."""
        return {"class_statistics": sum(t.nbytes for t in self.adjustment or ())}

    def _adjusted(self, criterion: Any, logits: Tensor, targets: Tensor) -> Tensor:
        if self.adjustment is not None:
            logits = at_least_float32(logits) + self.offsets(logits)
        loss: Tensor = criterion(logits, targets)
        return loss

    def _follow(self, strategy: Any, state: LogitAdjustment) -> None:
        """Update the statistics with the batch."""
        n_classes = len(state.counts)
        model, targets = strategy.model, strategy.mb_y
        batch = batch_statistics(
            model, targets, n_classes, unit_length=self.normalize_features
        )
        last = None
        if self.dispersion_weights == "last_class":
            last = last_class(rows_of(model, targets), n_classes)
        self.adjustment = update_adjustment(
            state,
            batch,
            m=self.m2,
            momentum=self.momentum,
            tro=self.tro,
            absent=self.absent,
            last=last,
        )
        self._broken |= ~is_finite(batch)
        if self._broken.device.type == "cpu":  # elsewhere, to look would be to wait
            require_finite(self.classes, self._broken)

    def _warn_of_absent(self, state: LogitAdjustment) -> None:
        absent = self.met - set(self.classes[state.seen].tolist())
        if absent and not self._warned:
            self._warned = True
            fate = "masked in" if self.absent == "mask" else "not adjusted in"
            warnings.warn(
                f"the training data lack classes {sorted(absent)}, met before: they "
                f"are {fate} the training loss; exemplars would bring them back",
                stacklevel=2,
            )
