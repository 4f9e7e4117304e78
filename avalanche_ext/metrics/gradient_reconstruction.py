"""How well a strategy reconstructs the gradient of the past."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name
from torch import Tensor
from torch.nn.functional import cross_entropy

from avalanche_ext._checks import require_choice, require_real, require_whole
from avalanche_ext.functional.functional_prior import reconstruction_error
from avalanche_ext.loaders import batches_of
from avalanche_ext.metrics.probe import epoch_gradient
from avalanche_ext.models.past_data import (
    logits_of,
    of_width,
    parameters_by_name,
    summed_gradient,
)

if TYPE_CHECKING:
    from avalanche.training.templates import SupervisedTemplate

_Gradients = dict[str, Tensor]

#: Of the size of gradients: below it a difference of two of them is none.
ROUNDING = 1e-6


class GradientReconstructionError(PluginMetric[dict[str, float]]):
    r"""Distance of a strategy's prior from the gradient of all past data.

    .. math:: e(w) = \sum_{k \le t} \sum_{i \in D_k} \nabla \ell(y_i, f_w(x_i))
        - \nabla K_t(w)

    Whatever a strategy adds to the loss of new data stands for the past; joint
    training has :math:`e = 0`. An instrument for study: it keeps references to all
    past data and one pass over them is made each time. Published as
    ``Gradient_Reconstruction/train_phase/<stream>_stream/<part>``, once before each
    experience but the first (there :math:`w = w_t`) and after each of its epochs, or
    every so many iterations:

    - ``absolute``, ``relative``, ``cosine``: see `reconstruction_error`;
      ``past``: norm of the past's gradient, ``prior``: of the prior's;
    - ``weight``, ``function``, ``replay``: norms of the prior's terms, where plugins
      tell them: those with a method ``prior_gradients(strategy, scale)``, as
      `LeftOutEWCPlugin` and `FunctionalPriorPlugin` have. Of any other strategy the
      prior is the gradient of its whole epoch (:math:`\sum_B |B| \nabla L_B`) without
      that of the new data: choose training transforms that are not random, or their
      noise counts. A strategy that shows its new data more than once an epoch is
      scaled accordingly; one whose plugins act after the backward pass (GEM) is not
      seen.
    - ``curvature`` and ``residual``: norms of the two parts of
      :math:`e = A + B`, with :math:`r_i = h_i - y_i` at :math:`w_t` (h is 0 for
      classes that come later),

    .. math:: B = \sum_{D \setminus M2} J_i(w)^T r_i + \delta_R w_t

    A the rest: what an expansion around :math:`w_t` lost, and what a function kept
    at too few points did. For strategies that tell no terms only if they replay
    nothing.

    All gradients are taken in evaluation mode, without augmentation and label
    smoothing; model, gradients and random generators are left as found.

    Callbacks: ``before_train_dataset_adaptation`` asks the model;
    ``before_training_exp``, ``after_training_epoch`` and ``after_training_iteration``
    measure; ``after_training_exp`` keeps the data.
    Between experiences it keeps references to the past data.

    Args:
        scale: ``"trained"``: weights and temperature in force. ``"unit"``: all 1, the
            theory; only of plugins that tell their terms.
        every: Measure also every so many iterations, >= 1; None: not.
        max_points: Of each past experience at most so many samples, >= 1, drawn once,
            each counted :math:`N_k / n` times; None: all.
        weight_decay: :math:`\delta_R` of a regulariser :math:`\delta_R \lVert w
            \rVert^2 / 2` that is declared part of the past's loss, >= 0.
        batch_size: Samples at once, >= 1.

    Raises:
        ValueError: If an argument is out of its range; if ``scale="unit"`` and no
            plugin tells its terms.

    References:
        Daxberger et al., TMLR 2023.
    """

    def __init__(
        self,
        *,
        scale: Literal["trained", "unit"] = "trained",
        every: int | None = None,
        max_points: int | None = None,
        weight_decay: float = 0.0,
        batch_size: int = 256,
    ) -> None:
        super().__init__()
        require_choice(("trained", "unit"), scale=scale)
        given = {"every": every, "max_points": max_points, "batch_size": batch_size}
        require_whole(1, **{k: v for k, v in given.items() if v is not None})
        require_real(0, weight_decay=weight_decay)
        self.scale = scale
        self.every, self.max_points = every, max_points
        self.weight_decay = float(weight_decay)
        self.batch_size = batch_size
        self._past: list[Any] = []  # data sets
        # Only within an experience: the past's logits at w_t, and w_t.
        self._logits: list[Tensor] = []
        self._start: _Gradients = {}
        self.reset()

    def reset(self) -> None:
        """Forget the last measurement, not the past data."""
        self.values: dict[str, float] = {}

    def result(self) -> dict[str, float]:
        """Return the last measurement, by part."""
        return dict(self.values)

    def before_train_dataset_adaptation(self, strategy: SupervisedTemplate) -> None:
        """Ask the model about the past, before it grows."""
        self._logits = [
            logits_of(strategy.model, self._batches(data, strategy))[0]
            for data, _ in self._thinned()
        ]

    def before_training_exp(self, strategy: SupervisedTemplate) -> Any:
        """Measure at the start."""
        self._start = {
            n: p.detach().clone() for n, p in parameters_by_name(strategy.model).items()
        }
        return self._measure(strategy)

    def after_training_iteration(self, strategy: SupervisedTemplate) -> Any:
        """Measure, if it is the turn."""
        n = strategy.clock.train_exp_iterations + 1
        if self.every is None or n % self.every:
            return None
        return self._measure(strategy)

    def after_training_epoch(self, strategy: SupervisedTemplate) -> Any:
        """Measure."""
        return self._measure(strategy)

    def after_training_exp(self, strategy: SupervisedTemplate) -> None:
        """Keep a reference to the experience's data."""
        assert strategy.experience is not None
        self._past.append(strategy.experience.dataset)
        self._logits, self._start = [], {}

    def state_dict(self) -> dict[str, Any]:
        """How many experiences are the past; the last values."""
        return {"n_past": len(self._past), "values": self.values}

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[Any]
    ) -> None:
        """Refer to their data again.

        Args:
            state: As returned by `state_dict`.
            experiences: Those trained so far, in order.
        """
        self._past = [e.dataset for e in experiences[: state["n_past"]]]
        self.values = dict(state["values"])

    def _thinned(self) -> list[tuple[Any, float]]:
        """Past data in their evaluation transforms, and how often each sample counts."""
        thinned = []
        for k, data in enumerate(self._past):
            n, most = len(data), self.max_points or len(data)
            if most < n:
                drawn = torch.randperm(n, generator=torch.Generator().manual_seed(k))
                data = data.subset(drawn[:most].tolist())
            thinned.append((data.eval(), n / min(n, most)))
        return thinned

    def _batches(self, data: Any, strategy: Any) -> Any:
        return batches_of(data, strategy.device, batch_size=self.batch_size)

    def _measure(self, strategy: Any) -> list[MetricValue] | None:
        if not self._logits:
            return None
        terms, replayed, tells = self._prior(strategy)
        past, shift = self._past_gradients(strategy)
        prior = _total(terms.values(), past)
        error = reconstruction_error(_flat(past), _flat(prior))
        values = {**error._asdict(), "past": _norm(past), "prior": _norm(prior)}
        if tells:
            values |= {name: _norm(term) for name, term in terms.items()}
        if replayed is not None:
            # e = past - prior = A + B with B = (past - shift) - replayed residuals
            residual = {n: past[n] - shift[n] - replayed[n] for n in past}
            rest = {n: past[n] - prior[n] - residual[n] for n in past}
            values |= {"curvature": _norm(rest), "residual": _norm(residual)}
        self.values = values
        name = get_metric_name(self, strategy, add_experience=False, add_task=False)
        step = strategy.clock.train_iterations
        return [MetricValue(self, f"{name}/{k}", v, step) for k, v in values.items()]

    def _past_gradients(self, strategy: Any) -> tuple[_Gradients, _Gradients]:
        """Of the past's loss, and of the same with targets of the last model."""
        model = strategy.model
        named = parameters_by_name(model)
        past = {n: self.weight_decay * p.detach().double() for n, p in named.items()}
        shift = {
            n: self.weight_decay
            * (p.detach() - self._start.get(n, p.detach())).double()
            for n, p in named.items()
        }
        for (data, often), logits in zip(self._thinned(), self._logits, strict=True):
            soft = iter(torch.split(logits, self.batch_size))
            batches = [
                (x, y, t, next(soft)) for x, y, t in self._batches(data, strategy)
            ]
            for total, loss in ((past, _hard), (shift, _soft)):
                for name, g in summed_gradient(model, batches, loss).items():
                    total[name] += often * g
        return past, shift

    def _prior(self, strategy: Any) -> tuple[dict[str, _Gradients], Any, bool]:
        """The prior's terms; residuals of what is replayed; whether plugins told."""
        tell = [p for p in strategy.plugins if hasattr(p, "prior_gradients")]
        terms: dict[str, _Gradients] = {}
        for plugin in tell:
            terms |= plugin.prior_gradients(strategy, self.scale)
        if tell:
            residuals = [p for p in tell if hasattr(p, "replayed_residuals")]
            found = [p.replayed_residuals(strategy, self.scale) for p in residuals]
            some = next(iter(terms.values()))
            return terms, _total(found, some), True
        if self.scale == "unit":
            raise ValueError(
                f"scale is 'unit', but no plugin of {type(strategy).__name__} has "
                "prior_gradients; wanted scale='trained'"
            )
        epoch = epoch_gradient(strategy)
        data = strategy.experience.dataset.eval()
        new = summed_gradient(
            strategy.model,
            self._batches(data, strategy),
            _hard,
        )
        prior = {n: epoch.gradients[n] - new[n] for n in new}
        if _norm(prior) < ROUNDING * (_norm(epoch.gradients) + _norm(new)):
            prior = {n: torch.zeros_like(g) for n, g in prior.items()}
        replays = epoch.n_samples != len(data)
        nothing = {n: torch.zeros_like(g) for n, g in prior.items()}
        return {"prior": prior}, None if replays else nothing, False

    def __str__(self) -> str:
        return "Gradient_Reconstruction"


def _hard(logits: Tensor, y: Tensor, *_: Any) -> Tensor:
    return cross_entropy(logits, y, reduction="sum")


def _soft(logits: Tensor, y: Tensor, t: Any, before: Tensor) -> Tensor:
    soft = of_width(before, logits.shape[1]).softmax(1)
    return -(soft * logits.log_softmax(1)).sum()


def _total(parts: Any, like: _Gradients) -> _Gradients:
    total = {n: torch.zeros_like(g) for n, g in like.items()}
    for part in parts:
        for name, gradient in part.items():
            total[name] += gradient
    return total


def _flat(gradients: _Gradients) -> Tensor:
    return torch.cat([g.reshape(-1) for g in gradients.values()])


def _norm(gradients: _Gradients) -> float:
    return float(_flat(gradients).norm())
