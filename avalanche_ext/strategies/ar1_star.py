"""AR1* with latent replay."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from avalanche.core import BasePlugin
from torch import nn
from torch.optim import Optimizer

from avalanche_ext._checks import (
    require_choice,
    require_fraction,
    require_kind,
    require_positive,
    require_whole,
)
from avalanche_ext.buffers.latent import LatentDtype
from avalanche_ext.functional.cwr import Repeat
from avalanche_ext.functional.replay_policy import Replacement
from avalanche_ext.functional.synaptic_intelligence import Trajectory
from avalanche_ext.models.batch_renorm import BatchRenorm, Limits, batch_renorms_of
from avalanche_ext.models.batch_renorm_conversion import StdSource, to_batch_renorm
from avalanche_ext.models.cut_points import suggest_latent_layer
from avalanche_ext.models.frozen_below import looks_untrained
from avalanche_ext.models.linear_head import linear_head, linear_head_name
from avalanche_ext.plugins.cwr_star import CWRStarPlugin
from avalanche_ext.plugins.latent_replay import LatentReplayPlugin
from avalanche_ext.plugins.synaptic_intelligence import SynapticIntelligencePlugin
from avalanche_ext.strategies._template import ResidentTemplate, refuse_own_plugins
from avalanche_ext.strategies._weights import depthwise_weights, give_group

_log = logging.getLogger(__name__)


class AR1Star(ResidentTemplate):
    r"""Latent replay, Batch Renormalization, CWR* and, if wanted, Synaptic Intelligence.

    The network is cut at one of its modules. Below it nothing is trained; stored
    activations of past images join the batch there, with their labels, so that only
    what is above sees the past (see `LatentReplayPlugin`). The head is trained from
    zero in each experience and merged with its past (`CWRStarPlugin`). Every batch
    normalisation becomes Batch Renormalization (`BatchRenorm`), whose limits widen in
    the first experience and stand still afterwards. ``si="penalty"`` or
    ``"learning_rate"`` constrains the weights in between, which makes it AR1*; the
    published results of latent replay are of AR1*-free, the default.

    The lower part should be pretrained: it is frozen from the start, with a warning if
    its norm layers look untrained, unless ``freeze_first=False`` trains the whole
    network in the first experience.
    Evaluation within an experience sees the head that is in training. Classes may
    come back; heads may grow; streams may have task labels, there is one head.

    Args:
        model: Ends in a linear layer. Its batch normalisations are replaced in place.
        optimizer: With the learning rate of the first experience; its state is emptied
            once, before the second.
        latent_layer: Dotted name of the module to cut at; None: where about 30 % of
            the multiply-accumulates are above, see `suggest_latent_layer`.
        input_shape: Shape of an image, ``(C, H, W)``.
        memory_size: Latents kept, >= 0; 0: no replay.
        latent_dtype: See `LatentBuffer`.
        freeze_first: Freeze what is below from the first experience on.
        below: ``"adapt"``: what is below keeps adapting its statistics, as in the
            Caffe code; stored latents age.
        freeze_depthwise: From the second experience on let depthwise convolutions above
            the cut rest, as the Caffe code does.
        cache_current: Compute the new images' latents once an experience.
        order: See `LatentReplayPlugin`, as the following one.
        replacement: What of the memory is replaced.
        later_lr: Learning rate from the second experience on, > 0; None: as before.
        head_lr_mult: Factor of the head's learning rate from the second experience on,
            > 0.
        first_epochs: Epochs of the first experience, >= 1; None: ``train_epochs``.
        batch_renorm: Replace batch normalisations.
        momentum: Of the running statistics in the first experience and in later ones.
        r_max: See `BatchRenorm`, as the following ones; its maximum.
        d_max: Its maximum.
        growth: Growth of the limits a sample in the first experience.
        limits: ``"overshoot"`` is the published PyTorch code.
        std: ``"legacy"`` is the published PyTorch code, see `to_batch_renorm`.
        head: Dotted name of the head; None: the last linear layer.
        cwr_repeat: ``"per_pattern"`` is what the published PyTorch code does.
        mask_unseen: Never predict a class without a past.
        si: Mode of `SynapticIntelligencePlugin`, or ``"none"``.
        si_strength: See there, as the following ones.
        si_trajectory: ``"update"`` is the Caffe code.
        si_min_importance: None is the published PyTorch code.
        plugins: Further plugins; they act after these.
        memory_resident: Hold the images on the device; "auto": where they fit.
        generator: Of shuffling, augmentation and memory; None for torch's default.
        train_mb_size: New images and latents of a mini-batch, >= 2.
        train_epochs: Of each experience, >= 1.
        base_kwargs: Others of Avalanche's `SupervisedTemplate`, and the switches
            of `ResidentTemplate`.

    Attributes:
        buffer: The memory, a `LatentBuffer`.
        latent_layer: Where the model is cut.

    Raises:
        ValueError: If an argument is out of its range, the model cannot be cut there
            (the message lists where it can) or has no linear head. Model and optimizer
            are unchanged then.

    References:
        Pellegrini, Graffieti, Lomonaco, Maltoni, Latent Replay for Real-Time Continual
        Learning, IROS 2020; Lomonaco, Maltoni, Pellegrini, Rehearsal-Free Continual
        Learning over Small Non-I.I.D. Batches, CVPR Workshops 2020.
    """

    train_epochs: int
    _later_epochs: int | None  # in the first experience: of those to come

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        input_shape: Sequence[int],
        latent_layer: str | None = None,
        memory_size: int = 1500,
        latent_dtype: LatentDtype = "float32",
        freeze_first: bool = True,
        below: Literal["frozen", "adapt"] = "frozen",
        freeze_depthwise: bool = False,
        cache_current: bool = False,
        order: Literal["shuffled", "published"] = "shuffled",
        replacement: Replacement = "fill",
        later_lr: float | None = 5e-5,
        head_lr_mult: float = 1.0,
        first_epochs: int | None = None,
        batch_renorm: bool = True,
        momentum: tuple[float, float] = (0.01, 5e-5),
        r_max: float = 1.25,
        d_max: float = 0.5,
        growth: float = 4.1e-5,
        limits: Limits = "clamp",
        std: StdSource = "with_eps",
        head: str | None = None,
        cwr_repeat: Repeat = "once",
        mask_unseen: bool = False,
        si: Literal["none", "penalty", "learning_rate"] = "none",
        si_strength: float = 1.0,
        si_trajectory: Trajectory = "gradient",
        si_min_importance: float | None = 0.0,
        plugins: Sequence[BasePlugin] | None = None,
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
        train_mb_size: int = 128,
        train_epochs: int = 4,
        **base_kwargs: Any,
    ) -> None:
        require_kind(nn.Module, model=model)
        require_kind(Optimizer, optimizer=optimizer)
        require_choice((True, False), freeze_depthwise=freeze_depthwise)
        require_choice((True, False), batch_renorm=batch_renorm)
        require_choice(("none", "penalty", "learning_rate"), si=si)
        require_kind(Sequence, input_shape=input_shape)
        if not isinstance(momentum, Sequence) or len(momentum) != 2:
            raise ValueError(f"momentum is {momentum!r}; wanted two numbers")
        require_fraction(**{f"momentum[{i}]": m for i, m in enumerate(momentum)})
        require_positive(head_lr_mult=head_lr_mult)
        if later_lr is not None:
            require_positive(later_lr=later_lr)
        if first_epochs is not None:
            require_whole(1, first_epochs=first_epochs)
        shape = tuple(input_shape)
        if latent_layer is None:
            latent_layer = suggest_latent_layer(model, shape)
        linear_head_name(model, head)
        replay = LatentReplayPlugin(
            model,
            latent_layer,
            input_shape=shape,
            memory_size=memory_size,
            latent_dtype=latent_dtype,
            freeze_first=freeze_first,
            below=below,
            cache_current=cache_current,
            order=order,
            replacement=replacement,
            generator=generator,
            memory_resident=memory_resident,
        )
        own: list[BasePlugin] = [
            replay,
            CWRStarPlugin(
                head, repeat=cwr_repeat, mask_unseen=mask_unseen, buffer=replay.buffer
            ),
        ]
        if si != "none":
            own.append(
                SynapticIntelligencePlugin(
                    si_strength,
                    mode=si,
                    trajectory=si_trajectory,
                    min_importance=si_min_importance,
                    exclude=None if head is None else [head],
                )
            )
        refuse_own_plugins("AR1Star", own, plugins)
        super().__init__(
            model=model,
            optimizer=optimizer,
            plugins=[*own, *(plugins or [])],
            memory_resident=memory_resident,
            generator=generator,
            train_mb_size=train_mb_size,
            train_epochs=train_epochs,
            **{"eval_mb_size": None, **base_kwargs},
        )
        if batch_renorm:
            maxima: dict[str, Any] = {"max_r_max": r_max, "max_d_max": d_max}
            fixed: dict[str, Any] = {"std": std, "limits": limits, "growth": growth}
            to_batch_renorm(model, momentum=momentum[0], **maxima, **fixed)
            replay.look_again()
        self._head_groups: list[tuple[int, int]] = []
        if head_lr_mult != 1:
            weights = linear_head(model, linear_head_name(model, head)).parameters()
            self._head_groups = give_group(optimizer, list(weights))
        self._replay, self.buffer = replay, replay.buffer
        self.latent_layer, self._later_epochs = latent_layer, None
        # By their names as arguments: a checkpoint compares them.
        self.later_lr, self.head_lr_mult, self.head = later_lr, head_lr_mult, head
        self.freeze_depthwise, self.first_epochs = freeze_depthwise, first_epochs
        self.batch_renorm, self.momentum = batch_renorm, tuple(momentum)
        self.r_max, self.d_max, self.limits, self.std = r_max, d_max, limits, std
        self.growth, self._resting = growth, list[nn.Parameter]()
        if batch_renorm and not any(batch_renorms_of(model)):
            _log.info("the model has no batch normalisation: nothing to renormalise")

    def make_optimizer(self, **kwargs: Any) -> None:
        """As Avalanche's; momenta are dropped once, before the second experience."""
        if self.clock.train_exp_counter == 1:
            kwargs["reset_optimizer_state"] = True
        super().make_optimizer(**kwargs)

    def backward(self) -> None:
        """Compute gradients; weights that rest get none."""
        super().backward()
        for weight in self._resting:
            weight.grad = None

    def optimizer_step(self) -> None:
        """Take a step, in later experiences a longer one with the head."""
        self._lengthen()  # whatever a scheduler made of it
        super().optimizer_step()

    def _lengthen(self) -> None:
        groups = self.optimizer.param_groups
        if self.clock.train_exp_counter > 0:
            for others, head in self._head_groups:
                groups[head]["lr"] = groups[others]["lr"] * self.head_lr_mult

    def _before_training_exp(self, **kwargs: Any) -> None:
        later = self.clock.train_exp_counter > 0
        if self.first_epochs and not later:
            self._later_epochs = self._later_epochs or self.train_epochs
            self.train_epochs = self.first_epochs
        if later:
            for layer in self._renormalised():
                layer.set_phase(
                    momentum=self.momentum[1],
                    r_max=float(layer.max_r_max),
                    d_max=float(layer.max_d_max),
                    growth=0.0,
                )
        super()._before_training_exp(**kwargs)
        if later:
            for group in self.optimizer.param_groups if self.later_lr else ():
                group["lr"] = self.later_lr
            self._lengthen()
            if self.freeze_depthwise:
                self._resting = list(depthwise_weights(self.model))
        elif self._replay.freeze_first:
            self._warn_if_untrained()

    def _after_training_exp(self, **kwargs: Any) -> None:
        super()._after_training_exp(**kwargs)
        self.train_epochs = self._later_epochs or self.train_epochs
        self._later_epochs = None

    def _renormalised(self) -> Iterator[BatchRenorm]:
        """Layers whose statistics still move."""
        frozen = self._replay.below == "frozen"
        below = set(self._replay.cut.modules_below) if frozen else set()
        return (m for m in batch_renorms_of(self.model) if m not in below)

    def _warn_if_untrained(self) -> None:
        if looks_untrained(self._replay.cut.modules_below):
            warnings.warn(
                f"norm layers up to {self.latent_layer} are as new: it looks untrained, "
                "and is frozen; wanted a pretrained model, or freeze_first=False",
                stacklevel=2,
            )
