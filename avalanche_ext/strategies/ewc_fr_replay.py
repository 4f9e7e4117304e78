"""EWC+FR+Replay: accurate gradient reconstructions of the past."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from avalanche.core import BasePlugin
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from avalanche_ext._checks import require_positive
from avalanche_ext.buffers.memorable_past import MemorablePastBuffer
from avalanche_ext.functional.fisher import FisherKind
from avalanche_ext.functional.memory_selection import Selection
from avalanche_ext.loaders import uniform_loader
from avalanche_ext.models.past_data import FisherOutputs, require_task_classifier
from avalanche_ext.plugins.ewc import LeftOutEWCPlugin
from avalanche_ext.plugins.functional_prior import FunctionalPriorPlugin
from avalanche_ext.strategies._template import ResidentTemplate, refuse_own_plugins


class EWCFRReplay(ResidentTemplate):
    r"""Three priors that together reconstruct the gradient of the past.

    .. math:: \frac{1}{N} \Big( \sum_{D_{t+1}} \ell(y, f)
        + \sum_{k \le t} \tau_k \big[ \sum_{M1_k} \ell(\hat y^T, f/T)
        + \sum_{M2_k} \ell(y, f) \big] + \tfrac{\lambda}{2}
        (w - w_t)^T (H_t + \delta) (w - w_t) \Big)

    ========================  ============================================
    method                    arguments
    ========================  ============================================
    EWC                       ``memory_size=0``
    FR                        ``strength=0, replay_fraction=0``
    Replay                    ``strength=0, replay_fraction=1``
    FR+Replay                 ``strength=0``
    EWC+FR                    ``replay_fraction=0``
    K-prior                   ``replay_fraction=0, fisher="none"``
    ========================  ============================================

    Task-incremental with a model of several heads and a stream with task labels (the
    paper): `TaskIncrementalClassifier` with a `TaskClassifier`, one layer a task or,
    with ``n_outputs``, one for all. On a stream without task labels the same model has
    one head that grows: class-incremental, an extension.

    Args:
        model: Any classifier with a softmax cross-entropy.
        optimizer: Any torch optimizer; its state is emptied before each experience.
        memory_size: m, memorable points of each past experience, >= 0.
        replay_fraction: Share of them that is replayed.
        selection: See `MemorablePastBuffer`, as the following one.
        on_small: What an experience with fewer samples than ``memory_size`` meets.
        tau: See `FunctionalPriorPlugin`, as the following ones.
        tau2: Weight of later experiences' memory.
        scale_tau: Let a memory stand for all data of its experience.
        temperature: T of the functional regulariser.
        label_smoothing: s of all cross-entropies.
        replay_correction: ``"centred"`` takes the bias out of the replay term.
        soft_target_transform: Of the images that soft targets are made of.
        strength: See `LeftOutEWCPlugin`, as the following ones.
        prior_precision: :math:`\delta`.
        fisher: Kind of the Fisher information.
        fisher_outputs: ``"all"`` reproduces the published code.
        fisher_transform: Of the images that the Fisher is made of.
        max_grad_norm: Norm to which the gradient is clipped, > 0; None: not.
        plugins: Further plugins; they act after these.
        memory_resident: Hold the images on the device; "auto": where they fit.
        generator: Of shuffling, augmentation and selection; None for torch's default.
        base_kwargs: Those of Avalanche's `SupervisedTemplate`, and the switches of
            `ResidentTemplate`.

    Raises:
        ValueError: As `MemorablePastBuffer`, `FunctionalPriorPlugin` and
            `LeftOutEWCPlugin`.

    References:
        Daxberger et al., Improving Continual Learning by Accurate Gradient
        Reconstructions of the Past, TMLR 2023; code team-approx-bayes/ewc-fr-replay.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        memory_size: int = 200,
        replay_fraction: float = 0.5,
        selection: Selection = "random",
        on_small: Literal["raise", "clip"] = "raise",
        tau: float = 1.0,
        tau2: float | None = None,
        scale_tau: bool = False,
        temperature: float = 1.0,
        label_smoothing: float = 0.0,
        replay_correction: Literal["plain", "centred"] = "plain",
        soft_target_transform: Literal["eval", "train"] = "eval",
        strength: float | Sequence[float | None] = 1.0,
        prior_precision: float = 1e-3,
        fisher: FisherKind | Literal["none"] = "empirical",
        fisher_outputs: FisherOutputs = "head",
        fisher_transform: Literal["eval", "train"] = "eval",
        max_grad_norm: float | None = None,
        plugins: Sequence[BasePlugin] | None = None,
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
        **base_kwargs: Any,
    ) -> None:
        if max_grad_norm is not None:
            require_positive(max_grad_norm=max_grad_norm)
        self.buffer = MemorablePastBuffer(
            memory_size,
            replay_fraction=replay_fraction,
            selection=selection,
            on_small=on_small,
            memory_resident=memory_resident,
            generator=generator,
        )
        loading: dict[str, Any] = {
            "memory_resident": memory_resident,
            "generator": generator,
        }
        prior = FunctionalPriorPlugin(
            self.buffer,
            tau=tau,
            tau2=tau2,
            scale_tau=scale_tau,
            temperature=temperature,
            label_smoothing=label_smoothing,
            replay_correction=replay_correction,
            soft_target_transform=soft_target_transform,
            **loading,
        )
        own: list[BasePlugin] = [
            prior,
            LeftOutEWCPlugin(
                strength,
                prior_precision=prior_precision,
                fisher=fisher,
                fisher_outputs=fisher_outputs,
                fisher_transform=fisher_transform,
                buffer=self.buffer,
                memory_resident=memory_resident,
            ),
        ]
        if fisher_outputs == "all":
            require_task_classifier(model)
        refuse_own_plugins("EWCFRReplay", own, plugins)
        super().__init__(
            model=model,
            optimizer=optimizer,
            plugins=[*own, *(plugins or [])],
            **loading,
            **base_kwargs,
        )
        self.max_grad_norm = max_grad_norm
        self._prior, self._loading = prior, loading

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """As Avalanche's; with a memory the uniform one at once.

        Avalanche would cut the data into those of each task first.

        Args:
            kwargs: As in Avalanche.
        """
        if self._prior.joined and hasattr(self.experience, "task_labels"):
            self.dataloader = uniform_loader(self, **self._loading, **kwargs)
        else:
            super().make_train_dataloader(**kwargs)

    def make_optimizer(self, **kwargs: Any) -> None:
        """As Avalanche's, but momenta never outlive an experience.

        Args:
            kwargs: As in Avalanche.
        """
        super().make_optimizer(**{**kwargs, "reset_optimizer_state": True})

    def optimizer_step(self) -> None:
        """Clip the gradient's norm, then take a step."""
        if self.max_grad_norm is not None:
            clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        super().optimizer_step()
