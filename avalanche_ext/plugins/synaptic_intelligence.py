"""Synaptic Intelligence: weights that lowered the loss resist change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.optim import SGD

from avalanche_ext._checks import require_choice, require_positive, require_real
from avalanche_ext._finite import FiniteTerm
from avalanche_ext.functional.functional_prior import quadratic_penalty
from avalanche_ext.functional.synaptic_intelligence import (
    Trajectory,
    accumulated_trajectory,
    modulated_gradient,
    path_integral,
    weight_importance,
)
from avalanche_ext.models.flat_weights import FlatWeights, shared_parameters


class SynapticIntelligencePlugin(SupervisedPlugin):
    r"""Holds weights by what they contributed to the fall of the loss.

    .. math:: F = \mathrm{clip}\Big(-\sum_{experiences} c \,
        \frac{\sum_{steps} g \odot \Delta\theta}{(\theta - \theta_0)^2 + \xi},
        \; F_{min}, F_{max}\Big)

    Mode ``"penalty"``: :math:`L = L_{host} + \frac{\lambda}{2} \sum F (\theta -
    \theta_0)^2`, with :math:`\theta_0` the weights the experience started with; any
    optimizer. Mode ``"learning_rate"``: SGD's step for a weight, weight decay included
    and before momentum, is multiplied by :math:`1 - \lambda F / F_{max}` (see
    `modulated_gradient`); momentum left over from the experience before is not.
    Either acts from the second experience on. Tracked are the weights that are trained
    when the experience starts, outside of normalisation layers and head; those that
    get no gradient stay as important as they were, and rows that a parameter grows by
    are free.

    g is the gradient of the host's loss before modulation, penalties included, this
    one too: that costs nothing, and is what the authors' code does. The original
    method has the gradient of the task's loss alone.

    Callbacks: before the backward pass the penalty is added to ``strategy.loss``, or
    before the update the gradients are changed; after the update the path integral
    grows; after each experience the importance is renewed. List it behind plugins
    that clip gradients, and before those that change the weights after an experience.
    With strength 0 it does nothing. Keeps between experiences: what `Attributes` says.

    Args:
        strength: :math:`\lambda` >= 0; for ``"learning_rate"`` at most 1, at which
            weights of importance :math:`F_{max}` rest.
        mode: See above: the authors' PyTorch code, or the AR1* paper and Caffe code.
        trajectory: ``"gradient"``, or ``"update"``: as in the Caffe code, see
            `path_integral`.
        max_importance: :math:`F_{max}` > 0.
        min_importance: :math:`F_{min}` in ``[0, max_importance]``, or None for none,
            as in the authors' PyTorch code: the penalty then has no lower bound.
        damping: :math:`\xi` > 0.
        scale: c >= 0, or the pair of c in the first experience and in later ones.
        exclude: Dotted names of modules and parameters not to track, with all below
            them. None: the last linear layer, see `linear_head_name`.

    Attributes:
        importance: F by name of the parameter; empty at first.
        anchor: :math:`\theta_0` by name; after an experience the weights it ended with.
        cumulative: The sum in the formula above, by name.

    Raises:
        ValueError: If an argument is out of its range; in training, if the head is
            not found, ``exclude`` names nothing, no weight is left, the optimizer is
            not `torch.optim.SGD` for ``"learning_rate"``, a parameter shrinks, or the
            penalty or importance is not finite.

    Example:
        >>> plugin = SynapticIntelligencePlugin(20.0, scale=(1.0, 0.5), exclude=["fc"])
        >>> plugin.exclude
        ('fc',)

    References:
        Zenke, Poole, Ganguli, ICML 2017; Maltoni and Lomonaco, Neural Networks 2019
        (AR1); Lomonaco, Maltoni, Pellegrini, CVPR Workshops 2020 (AR1*).
    """

    def __init__(
        self,
        strength: float = 1.0,
        *,
        mode: Literal["penalty", "learning_rate"] = "penalty",
        trajectory: Trajectory = "gradient",
        max_importance: float = 1e-3,
        min_importance: float | None = 0.0,
        damping: float = 1e-7,
        scale: float | tuple[float, float] = 1.0,
        exclude: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        require_choice(("penalty", "learning_rate"), mode=mode)
        require_choice(get_args(Trajectory), trajectory=trajectory)
        _require_bounds(strength, mode, min_importance, max_importance)
        require_positive(damping=damping)
        pair = tuple(scale) if isinstance(scale, Sequence) else (scale, scale)
        if len(pair) != 2:
            raise ValueError(f"scale is {scale!r}; wanted a number or a pair of them")
        require_real(0, **{"scale[0]": pair[0], "scale[1]": pair[1]})
        if isinstance(exclude, str):
            raise ValueError(  # noqa: TRY004
                f"exclude is {exclude!r}; wanted a list of names"
            )
        self.strength = float(strength)
        self.mode = mode
        self.trajectory = trajectory
        self.max_importance = float(max_importance)
        self.min_importance = min_importance
        self.damping = float(damping)
        self.scale = (float(pair[0]), float(pair[1]))
        self.exclude = None if exclude is None else tuple(exclude)
        self.importance: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}
        self.cumulative: dict[str, Tensor] = {}
        self._path: _Path | None = None
        self._finite = FiniteTerm("the penalty of Synaptic Intelligence")

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse an optimizer whose steps are not those of the gradient."""
        if self.mode == "learning_rate" and not isinstance(strategy.optimizer, SGD):
            raise ValueError(
                f"the optimizer is {type(strategy.optimizer).__name__}; wanted "
                "torch.optim.SGD with mode='learning_rate': one that scales its steps "
                "itself undoes the modulation, and one that decays weights apart from "
                "the gradient escapes it. mode='penalty' works with any"
            )

    @torch.no_grad()
    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Note where the path begins."""
        self._path = None
        if not self.strength:
            return
        shared = shared_parameters(strategy.model, self.exclude)
        weights = FlatWeights({n: p for n, p in shared.items() if p.requires_grad})
        if not weights.parameters:
            return
        start = weights.weights()
        held = weights.vector(self.importance) if self.importance else None
        self._path = _Path(weights, start, held, torch.zeros_like(start))
        self.anchor |= weights.by_name(start)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the penalty to the loss."""
        path = self._path
        if path is None or path.held is None or self.mode != "penalty":
            return
        weights = path.weights.weights()
        penalty = self.strength * quadratic_penalty(weights, path.start, path.held)
        self._finite.look_at(penalty)
        strategy.loss += penalty

    @torch.no_grad()
    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        """Note gradients and weights; then brake the gradients."""
        path = self._path
        if path is None:
            return
        path.before = path.weights.weights()
        # a copy: nesterov momentum, too, overwrites gradients
        path.gradient = path.weights.gradients()
        if self.mode == "learning_rate" and path.held is not None:
            if path.decay is None:
                path.decay = _weight_decay(strategy.optimizer, path.weights)
            brake = path.held * (self.strength / self.max_importance)
            path.weights.set_gradients(
                modulated_gradient(path.gradient, path.before, brake, path.decay)
            )

    @torch.no_grad()
    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        """Go one step along the path."""
        path = self._path
        if path is None or path.before is None:
            return
        moved = path.weights.weights() - path.before
        gradient = path.gradient if self.trajectory == "gradient" else None
        path.trajectory = path_integral(path.trajectory, moved, gradient)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Report a penalty that was not finite."""
        self._finite.require()

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Renew the importance and the anchor."""
        path, self._path = self._path, None
        if path is None:
            return
        end = path.weights.weights()
        cumulative = accumulated_trajectory(
            path.weights.vector(self.cumulative),
            path.trajectory,
            end - path.start,
            scale=self.scale[min(1, strategy.clock.train_exp_counter)],
            damping=self.damping,
        )
        by_name = path.weights.by_name(cumulative)
        if not cumulative.isfinite().all():
            broken = [n for n, part in by_name.items() if not part.isfinite().all()]
            raise ValueError(
                f"the importance of {broken[0]} is not finite after experience "
                f"{strategy.experience.current_experience}; wanted finite numbers: did "
                "training diverge?"
            )
        importance = weight_importance(
            cumulative,
            max_importance=self.max_importance,
            min_importance=self.min_importance,
        )
        self.cumulative |= by_name
        self.importance |= path.weights.by_name(importance)
        self.anchor |= path.weights.by_name(end)


@dataclass
class _Path:
    """An experience on its way; all vectors are of shape ``(P,)``."""

    weights: FlatWeights
    start: Tensor
    held: Tensor | None
    """F of the experiences before; None in the first."""
    trajectory: Tensor
    before: Tensor | None = None
    gradient: Tensor | None = None
    decay: Tensor | float | None = None


def _weight_decay(optimizer: SGD, weights: FlatWeights) -> Tensor | float:
    """Weight decay of each weight, or the one of all."""
    groups = optimizer.param_groups
    of = {id(p): float(g["weight_decay"]) for g in groups for p in g["params"]}
    decays = {n: of.get(id(p), 0.0) for n, p in weights.parameters.items()}
    distinct = set(decays.values())
    if len(distinct) == 1:
        return distinct.pop()
    parts = {n: torch.full_like(p, decays[n]) for n, p in weights.parameters.items()}
    return weights.vector(parts)


def _require_bounds(
    strength: float, mode: str, minimum: float | None, maximum: float
) -> None:
    """Refuse a strength and bounds of the importance that do not fit."""
    require_real(0, strength=strength)
    require_positive(max_importance=maximum)
    if minimum is not None:
        require_real(0, min_importance=minimum)
        if minimum > maximum:
            raise ValueError(
                f"min_importance is {minimum}; wanted at most max_importance, {maximum}"
            )
    if mode == "learning_rate" and (minimum is None or strength > 1):
        raise ValueError(
            f"min_importance is {minimum} and strength {strength}; wanted a number, "
            "and at most 1, with mode='learning_rate': no weight may take larger "
            "steps, or steps back"
        )
