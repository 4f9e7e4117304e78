"""Prune by relevance what an experience does not need, and freeze what it does."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from avalanche.benchmarks import CLExperience
from avalanche.core import SupervisedPlugin
from torch import nn

from avalanche_ext._checks import (
    generator_state,
    require_choice,
    require_kind,
    require_real,
    require_whole,
    restore_generator,
)
from avalanche_ext.attribution import LRP
from avalanche_ext.attribution.pruning import prune_by_relevance
from avalanche_ext.buffers.held_back import HeldBack
from avalanche_ext.buffers.reference_samples import ReferenceSamples
from avalanche_ext.functional.pruning import Step
from avalanche_ext.functional.relevance import Capacity
from avalanche_ext.models import linear_head as heads
from avalanche_ext.models.cosine_classifier import classes_in
from avalanche_ext.models.cut_inputs import probe_inputs
from avalanche_ext.models.frozen_rows import FrozenRows, reinitialize_rows
from avalanche_ext.models.one_submodel import OneSubmodel
from avalanche_ext.models.submodels import NORMS, Submodels, widened
from avalanche_ext.models.unit_layers import mask_sites, unit_layers


class RelevanceFreezingPlugin(SupervisedPlugin):
    r"""After each experience keep a submodel of the units it needs, for good.

    The signed LRP relevances of all units, summed over reference samples, rank them:

    .. math:: R_\ell[c] = \sum_n \hat r_c^{(n)}, \qquad
        \hat r_c = r_c \big/ \textstyle\sum_{c'} |r_{c'}|

    Units are pruned from the least relevant on while the accuracy on validation samples
    has dropped by less than ``acc_drop`` points. What remains is the experience's
    submodel; in later experiences the weights of its units are frozen, and so are the
    head's rows of its classes and all batch normalisation. A kept unit reads only units
    that are frozen or, in the submodel, 0: **the submodel is the same function forever,
    bit for bit.** No loss term, no image is kept.

    Callbacks: ``after_train_dataset_adaptation`` holds a share of each class back;
    ``before_training_exp`` notes the frozen rows, ``before_forward`` keeps normalisation
    (and dropout, if wanted) in evaluation mode, ``after_backward`` takes frozen rows out
    of the gradients, ``after_update`` writes them back, ``after_training_exp`` prunes.
    ``after_eval_forward`` makes ``strategy.mb_output`` task-aware: each sample is
    answered by the submodel of its true class, other classes get -1000. Listed before
    `TaskRecognitionPlugin`, which answers without that knowledge.
    Keeps between experiences: classes and bool masks of the units of each submodel.

    Args:
        model: The strategy's model, with one linear head for all classes.
        input_shape: Shape of one input, such as ``(3, 32, 32)``.
        acc_drop: Points of accuracy that pruning may cost, 0 to 100. A step is undone
            that costs as much or, with 0, costs anything.
        validation_fraction: Share of each class that is held back, in [0, 1); with
            none, training data are used, with a warning.
        valid_stream: Experiences for validation instead, one for each of training.
        lrp: How relevance is computed; None: `LRP()`.
        reference: The samples it is computed on; None: `ReferenceSamples()`.
        head: Name of the head; None: the last linear layer.
        prune_head: Whether the head's rows may be pruned, as published.
        mask_batchnorm: Whether a pruned unit is 0 behind its batch normalisation, too;
            False, as published, lets a constant through.
        prune_step: Units removed a step; ``"bins"``: as many as share a bin of a
            histogram of 10,000, about one.
        min_units: Units that each layer keeps at least.
        patience: Steps that may break the limit before pruning ends, >= 0.
        freeze_dropout: Put the whole network in evaluation mode from the second
            experience on, as published, not only its normalisation.
        reinitialize_free: Draw the free units anew before each later experience.
        evaluate_unpruned_first: All units answer until two are learned, as published.
        on_repeat: What classes that come back meet. ``"ignore"``: they stay with their
            first submodel, and only new classes get another.
        strict_capacity: Raise where no unit is free, rather than warn.
        generator: Of validation split and new weights; None for torch's default.

    Raises:
        ValueError: If an argument is out of its range, or the model has layers that LRP
            has no rule for (named, with the reason).

    References:
        Bogacka et al., ReReLRP: Remembering and Recognizing Tasks with LRP, arXiv
        2502.10789, 2025; Ede et al., Explain to Not Forget, arXiv 2205.01929, 2022.
    """

    #: For metrics: whose answers are no task-agnostic ones.
    answers_task_aware = True

    def __init__(
        self,
        model: nn.Module,
        *,
        input_shape: Sequence[int],
        acc_drop: float = 1.0,
        validation_fraction: float = 0.1,
        valid_stream: Sequence[CLExperience] | None = None,
        lrp: LRP | None = None,
        reference: ReferenceSamples | None = None,
        head: str | None = None,
        prune_head: bool = False,
        mask_batchnorm: bool = True,
        prune_step: Step = "bins",
        min_units: int = 1,
        patience: int = 0,
        freeze_dropout: bool = False,
        reinitialize_free: bool = False,
        evaluate_unpruned_first: bool = False,
        on_repeat: Literal["raise", "ignore"] = "raise",
        strict_capacity: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        require_real(0, acc_drop=acc_drop)
        if acc_drop > 100:
            raise ValueError(f"acc_drop is {acc_drop}; wanted at most 100 points")
        require_whole(1, min_units=min_units)
        require_whole(0, patience=patience)
        if prune_step != "bins":
            require_whole(1, prune_step=prune_step)
            prune_step = int(prune_step)
        on = (True, False)
        require_choice(on, prune_head=prune_head, mask_batchnorm=mask_batchnorm)
        require_choice(
            on, freeze_dropout=freeze_dropout, strict_capacity=strict_capacity
        )
        require_choice(on, reinitialize_free=reinitialize_free)
        require_choice(on, evaluate_unpruned_first=evaluate_unpruned_first)
        require_choice(("raise", "ignore"), on_repeat=on_repeat)
        self.validation = HeldBack(
            validation_fraction, stream=valid_stream, generator=generator
        )
        x = probe_inputs(model, input_shape)
        name = heads.linear_head_name(model, head)
        heads.require_logits_of(model, name, x)
        self.lrp = LRP() if lrp is None else lrp
        require_kind(LRP, lrp=self.lrp)
        sites = mask_sites(model, x, mask_batchnorm=mask_batchnorm)
        self.submodels = Submodels(name, sites, unpruned_first=evaluate_unpruned_first)
        rows = range(heads.linear_head(model, name).out_features)
        self.lrp.require_supported(self.submodels.whole(model, rows).network, x)
        self.reference = ReferenceSamples() if reference is None else reference
        require_kind(ReferenceSamples, reference=self.reference)
        self.input_shape = tuple(input_shape)
        self.acc_drop, self.prune_step = acc_drop, prune_step
        self.min_units, self.patience = min_units, patience
        self.validation_fraction = validation_fraction
        self.prune_head, self.mask_batchnorm = prune_head, mask_batchnorm
        self.freeze_dropout, self.reinitialize_free = freeze_dropout, reinitialize_free
        self.evaluate_unpruned_first = evaluate_unpruned_first
        self.on_repeat, self.strict_capacity = on_repeat, strict_capacity
        self.generator = generator
        #: Of the last pruning, on validation samples: before it and after each step.
        self.accuracies: list[float] = []
        self.learning: tuple[int, ...] = ()  #: classes of the experience under way
        self._valid: Any = None
        self._frozen = FrozenRows(model, {})
        self._answering = OneSubmodel(self.submodels)

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Hold validation samples back."""
        classes, strict = classes_in(strategy.experience), self.on_repeat == "raise"
        self.learning = self.submodels.new_of(classes, strict=strict)
        self._valid = self.validation.take(strategy)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Note the rows that must not move."""
        model, head = strategy.model, self.submodels.head
        if unit_layers(model).keys() != self.submodels.sites.keys():
            raise ValueError(
                f"the strategy's model has layers {list(unit_layers(model))}; wanted "
                f"those of the plugin's model, {list(self.submodels.sites)}"
            )
        self._answering.clear()
        n = heads.linear_head(model, head).out_features
        if max(self.learning, default=0) >= n:
            raise ValueError(f"classes are {self.learning}; wanted all below {n}")
        if not len(self.submodels):
            return
        self._tell_capacity()
        rows = self.submodels.frozen_rows(model)
        for name in self.submodels.sites if self.reinitialize_free else ():
            if name != head:
                layer: Any = model.get_submodule(name)
                reinitialize_rows(layer, ~rows[name], self.generator)
        kinds = nn.Module if self.freeze_dropout else NORMS
        resting = (m for m in model.modules() if isinstance(m, kinds))
        self._frozen = FrozenRows(model, rows, resting)

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Hold normalisation still, also after an evaluation within an epoch."""
        self._frozen.hold_still()

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Take frozen rows out of the gradients."""
        self._frozen.zero_gradients(strategy.model)

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        """Write frozen rows back."""
        self._frozen.write_back(strategy.model)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Find the submodel of the experience."""
        self._frozen.release(strategy.model)
        self._frozen = FrozenRows(strategy.model, {})
        classes, valid = self.learning, self._valid
        self.learning, self._valid = (), None
        self.validation.release()
        if not classes:
            return
        model, head = strategy.model, self.submodels.head
        found = prune_by_relevance(
            model,
            self.submodels,
            classes,
            lrp=self.lrp,
            reference=self.reference.of(strategy, model, head, classes),
            validation=self.reference.load(strategy, valid, classes),
            acc_drop=self.acc_drop,
            prune_head=self.prune_head,
            step=self.prune_step,
            min_units=self.min_units,
            patience=self.patience,
        )
        self.accuracies = found.accuracies
        self.submodels.append(classes, found.keep)

    def after_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Answer each sample by the submodel of its class."""
        owners = self.submodels.owners(strategy.mb_y)
        answer = strategy.mb_output.clone()
        width = answer.shape[1]
        for k in torch.unique(owners).tolist():
            mine = owners == k
            if k >= 0:
                own = self._answering.of(strategy.model, k)
                # the whole batch where possible, so that the same kernels run
                x = strategy.mb_x if bool(mine.all()) else strategy.mb_x[mine]
                answer[mine] = widened(own(x), own.classes, width)
            elif self.learning:  # evaluated within training, not pruned yet
                classes = list(self.learning)
                answer[mine] = widened(answer[mine][:, classes], classes, width)
        strategy.mb_output = answer

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Drop the copy."""
        self._answering.clear()

    def capacity(self) -> dict[str, Capacity]:
        """How the experiences share the units of each layer.

        Returns:
            See `avalanche_ext.functional.relevance.capacity`.
        """
        return self.submodels.capacity()

    def memory_bytes(self) -> dict[str, int]:
        """Bytes kept between experiences, as ``{"masks": bytes}``."""
        return {"masks": self.submodels.memory_bytes()}

    def state_dict(self) -> dict[str, Any]:
        """Submodels, and the state of the generator."""
        own = {"submodels": self.submodels.state_dict(), "accuracies": self.accuracies}
        return own | generator_state(self.generator)

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Put them back.

        Args:
            state: As returned by `state_dict`.
            experiences: Those trained so far; not needed here.
        """
        restore_generator(self.generator, state)
        self.accuracies = list(state["accuracies"])
        self.submodels.load_state_dict(state["submodels"])

    def _tell_capacity(self) -> None:
        """Warn, or raise, where nothing but the head is left to train."""
        table = self.capacity()
        if not table or any(layer.free for layer in table.values()):
            return
        text = f"no unit is free, only the head is trained: {table}; wanted more units"
        if self.strict_capacity:
            raise ValueError(text)
        warnings.warn(text, stacklevel=2)
