"""ReReLRP: freeze what relevance says is needed, recognise experiences by relevance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from avalanche.core import BasePlugin
from torch import Tensor, nn
from torch.optim import Optimizer

from avalanche_ext._checks import require_choice, require_kind
from avalanche_ext.attribution import LRP
from avalanche_ext.buffers.reference_samples import ReferenceSamples
from avalanche_ext.figures import capacity_figure, heatmap_figure
from avalanche_ext.functional.functional_prior import MASKED
from avalanche_ext.functional.pruning import Step
from avalanche_ext.functional.recognition import Table
from avalanche_ext.functional.relevance import Capacity
from avalanche_ext.models.experience_detectors import ExperienceDetectors
from avalanche_ext.models.submodel import Submodel
from avalanche_ext.plugins.relevance_freezing import RelevanceFreezingPlugin
from avalanche_ext.plugins.task_recognition import TaskRecognitionPlugin
from avalanche_ext.strategies._template import ResidentTemplate, refuse_own_plugins


class ReReLRP(ResidentTemplate):
    r"""Remember and recognise experiences with layer-wise relevance propagation.

    After each experience the units it does not need are pruned from its submodel; the
    others are frozen for good, so that a submodel never changes by a bit and
    task-aware accuracy is never forgotten. At test time every submodel looks at a
    sample, and a chain of random forests on the relevances of its units picks the one
    to answer. See `RelevanceFreezingPlugin` and `TaskRecognitionPlugin`.

    Nothing of the past is replayed and no image is kept: between experiences there are
    masks, a few relevances of reference samples, and forests. No loss is added.

    Args:
        model: Any network of convolutions, linear layers, batch normalisation and one
            linear head: torchvision's ResNet and VGG, those of this package, ...
        optimizer: Any torch optimizer.
        input_shape: Shape of one input, such as ``(3, 32, 32)``.
        acc_drop: Points of accuracy that pruning may cost, 0 to 100; see
            `RelevanceFreezingPlugin`, as the following ones.
        validation_fraction: Share of each class that is held back for pruning.
        valid_stream: Experiences for pruning instead.
        reference_per_class: Reference samples a class, >= 1; see `ReferenceSamples`.
        reference_selection: ``"herding"`` or ``"random"``.
        reference_transform: ``"train"`` reproduces the published code.
        composite: Rules of relevance propagation, see `LRP`, as the following ones.
        canonizers: Those of zennit, for architectures this package does not know.
        start: ``"one"``: relevance starts at 1 instead of at the logit, whose sign
            flips all others.
        head: Name of the head; None: the last linear layer.
        prune_head: True reproduces the published code.
        mask_batchnorm: False reproduces the published code.
        prune_step: Units removed a step, or ``"bins"``, about one.
        min_units: Units that each layer keeps at least.
        patience: Steps that may break the limit before pruning ends.
        freeze_dropout: True reproduces the published code.
        reinitialize_free: Draw free units anew before each later experience.
        evaluate_unpruned_first: True reproduces the published code.
        on_repeat: What classes that come back meet.
        strict_capacity: Raise where no unit is free any more.
        features: Units that a detector looks at; see `ExperienceDetectors`, as the
            following ones.
        num_trees: Trees of a forest.
        max_depth: Of a tree.
        min_samples_leaf: Of a tree.
        class_weight: Of the forests.
        table: ``"code"`` reproduces the published code.
        recognition_layers: Layers whose units count; None: all.
        recognition_pass: ``"stacked"``: all submodels of a batch at once; ``"each"``;
            ``"auto"``: stacked, but for ``mask_batchnorm=False``, where constants of
            pruned units would be lost.
        seed: Of the forests.
        eval_mode: ``"task_agnostic"`` answers by the experience recognised,
            ``"task_aware"`` by the true one. Metrics report both, see
            `TaskRecognitionAccuracy`.
        plugins: Further plugins; they act after these.
        memory_resident: Hold the images on the device; "auto": where they fit.
        generator: Of shuffling, augmentation, validation split and selection; None for
            torch's default.
        train_mb_size: Images of a mini-batch.
        train_epochs: Of each experience.
        base_kwargs: Others of Avalanche's `SupervisedTemplate`, and the switches
            of `ResidentTemplate`.

    Raises:
        ValueError: If an argument is out of its range, or the model has layers that LRP
            has no rule for (named, with the reason). Model and optimizer are unchanged.

    References:
        Bogacka, Höfler, Ganzha, Samek, Wasielewska-Michniewska, ReReLRP: Remembering
        and Recognizing Tasks with LRP, arXiv 2502.10789, 2025.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        input_shape: Sequence[int],
        acc_drop: float = 1.0,
        validation_fraction: float = 0.1,
        valid_stream: Any = None,
        reference_per_class: int = 67,
        reference_selection: Literal["herding", "random"] = "herding",
        reference_transform: Literal["eval", "train"] = "eval",
        composite: Any = "epsilon_plus_flat",
        canonizers: Sequence[Any] | None = None,
        start: Literal["logit", "one"] = "logit",
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
        features: int = 40,
        num_trees: int = 300,
        max_depth: int = 40,
        min_samples_leaf: int = 5,
        class_weight: Literal["balanced"] | None = None,
        table: Table = "balanced",
        recognition_layers: Sequence[str] | None = None,
        recognition_pass: Literal["auto", "stacked", "each"] = "auto",
        seed: int = 0,
        eval_mode: Literal["task_agnostic", "task_aware"] = "task_agnostic",
        plugins: Sequence[BasePlugin] | None = None,
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
        train_mb_size: int = 512,
        train_epochs: int = 10,
        **base_kwargs: Any,
    ) -> None:
        require_kind(nn.Module, model=model)
        require_kind(Optimizer, optimizer=optimizer)
        passes = ("auto", "stacked", "each")
        require_choice(passes, recognition_pass=recognition_pass)
        if recognition_pass == "stacked" and mask_batchnorm is False:
            raise ValueError(
                "recognition_pass is 'stacked' and mask_batchnorm False; wanted 'each'"
            )
        lrp = LRP(composite=composite, canonizers=canonizers, start=start)
        reference = ReferenceSamples(
            reference_per_class,
            selection=reference_selection,
            transform=reference_transform,
            memory_resident=memory_resident,
            generator=generator,
        )
        detectors = ExperienceDetectors(
            features,
            num_trees=num_trees,
            max_depth=max_depth,
            min_samples_leaf=min_samples_leaf,
            class_weight=class_weight,
            table=table,
            seed=seed,
        )
        freezing = RelevanceFreezingPlugin(
            model,
            input_shape=input_shape,
            acc_drop=acc_drop,
            validation_fraction=validation_fraction,
            valid_stream=valid_stream,
            lrp=lrp,
            reference=reference,
            head=head,
            prune_head=prune_head,
            mask_batchnorm=mask_batchnorm,
            prune_step=prune_step,
            min_units=min_units,
            patience=patience,
            freeze_dropout=freeze_dropout,
            reinitialize_free=reinitialize_free,
            evaluate_unpruned_first=evaluate_unpruned_first,
            on_repeat=on_repeat,
            strict_capacity=strict_capacity,
            generator=generator,
        )
        submodels, stacked = freezing.submodels, recognition_pass != "each"
        stacked = stacked and mask_batchnorm
        networks: Any = submodels.stack if stacked else submodels.all_of
        recognition = TaskRecognitionPlugin(
            partial(_now, networks),
            detectors=detectors,
            layers=recognition_layers,
            lrp=lrp,
            reference=reference,
            eval_mode=eval_mode,
            task_aware="strategy",  # exact, where a stack rounds
        )
        for name in recognition_layers or ():
            if name not in submodels.sites:
                raise ValueError(
                    f"recognition_layers have {name!r}; wanted some of "
                    f"{', '.join(map(repr, submodels.sites))}"
                )
        refuse_own_plugins("ReReLRP", [freezing, recognition], plugins)
        super().__init__(
            model=model,
            optimizer=optimizer,
            plugins=[freezing, recognition, *(plugins or [])],
            memory_resident=memory_resident,
            generator=generator,
            train_mb_size=train_mb_size,
            train_epochs=train_epochs,
            **{"eval_mb_size": 128, **base_kwargs},
        )
        self._freezing, self._detectors = freezing, detectors
        # By their names as arguments: a checkpoint compares them.
        self.reference_per_class = reference_per_class
        self.reference_selection = reference_selection
        self.reference_transform = reference_transform
        # of zennit's objects the kind: they hold hooks
        named = isinstance(composite, str)
        self.composite = composite if named else type(composite).__name__
        self.canonizers = canonizers and tuple(type(c).__name__ for c in canonizers)
        self.start = start
        self.features, self.num_trees, self.max_depth = features, num_trees, max_depth
        self.min_samples_leaf, self.class_weight = min_samples_leaf, class_weight
        self.table, self.seed, self.eval_mode = table, seed, eval_mode

    def submodel(self, k: int) -> Submodel:
        """The network of one experience, which never changes.

        Args:
            k: Number of the experience, among those with new classes.

        Returns:
            A frozen copy: inputs to logits of its classes.

        Raises:
            ValueError: If there is none of that number yet.
        """
        return self._freezing.submodels.of(self.model, k)

    def capacity(self) -> dict[str, Capacity]:
        """How the experiences share the units of each layer.

        Returns:
            By layer, see `avalanche_ext.functional.relevance.capacity`.
        """
        return self._freezing.capacity()

    def figures(self, test_stream: Any) -> dict[str, Any]:
        """Pictures of what was learned.

        Args:
            test_stream: Its very first image is shown.

        Returns:
            ``capacity``: units of each layer by experience; ``heatmaps``: where on an
            image each submodel finds its prediction.

        Raises:
            ValueError: If nothing is learned yet.
        """
        if not len(self._freezing.submodels):
            raise ValueError("no experience is learned yet; wanted training first")
        x = test_stream[0].dataset.eval()[0][0][None].to(self.device)
        networks = self._freezing.submodels.all_of(self.model)
        lrp = self._freezing.lrp
        found = [lrp(own.network, x, heatmap=True) for own in networks]
        titles = [
            f"experience {k}: {own.classes[int(each.logits.argmax())]}"
            for k, (own, each) in enumerate(zip(networks, found, strict=True))
        ]
        maps = torch.cat([each.heatmap for each in found if each.heatmap is not None])
        return {
            "capacity": capacity_figure(self.capacity()),
            "heatmaps": heatmap_figure(x[0].cpu(), maps.cpu(), titles),
        }

    def forward(self) -> Tensor:
        """Logits of the batch; in training those of classes to come are masked."""
        output = super().forward()
        if not self.is_training:
            return output
        unseen = torch.ones(output.shape[1], dtype=torch.bool)
        unseen[self._freezing.submodels.known + list(self._freezing.learning)] = False
        return output.masked_fill(unseen.to(output.device), MASKED)


def _now(networks: Callable[..., Any], strategy: Any) -> Any:
    """Submodels as they answer; detectors learn from those they will see for good."""
    return networks(strategy.model, answering=not strategy.is_training)
