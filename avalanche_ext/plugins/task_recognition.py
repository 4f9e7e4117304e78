"""Recognise by relevance which experience a sample belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from avalanche.benchmarks import CLExperience
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_ext._checks import (
    generator_state,
    require_choice,
    require_kind,
    restore_generator,
)
from avalanche_ext.attribution import LRP
from avalanche_ext.attribution.relevance_rows import Network, relevance_rows
from avalanche_ext.buffers.reference_samples import ReferenceSamples
from avalanche_ext.models.cosine_classifier import classes_in
from avalanche_ext.models.experience_detectors import ExperienceDetectors
from avalanche_ext.models.submodel_stack import SubmodelStack
from avalanche_ext.models.submodels import owners_of, widened


class Recognition(NamedTuple):
    """What is known of an evaluation batch; ``strategy.recognition`` for metrics.

    Attributes:
        owner: Number of the submodel that knows the true class, ``(B,)``; -1: none.
        chosen: Number of the submodel that was recognised, ``(B,)``.
        task_aware: Logits ``(B, K)`` with the owner known.
        task_agnostic: Logits ``(B, K)`` of the submodel recognised.
    """

    owner: Tensor
    chosen: Tensor
    task_aware: Tensor
    task_agnostic: Tensor


class TaskRecognitionPlugin(SupervisedPlugin):
    r"""Choose for each sample the submodel whose relevances look familiar.

    A submodel's relevance row of a sample is that of all its units for the class it
    predicts. Detector m, a random forest, tells rows of experience m's samples from
    those of later experiences, on the few units that are most relevant to its own;

    .. math:: P(i) = p_i \prod_{j < i} (1 - p_j), \qquad
        P(T - 1) = \prod_{j < T - 1} (1 - p_j)

    with :math:`p_m` the probability of "own". The most likely experience's submodel
    answers.

    Callbacks: ``after_training_exp`` computes rows of reference samples of the new
    experience in all submodels, and fits the detectors. ``after_eval_forward`` sets
    ``strategy.recognition``, a `Recognition`, and, unless ``eval_mode`` is
    ``"task_aware"``, ``strategy.mb_output`` to its ``task_agnostic``: other classes get
    -1000. Within training, samples of the experience that is being learned cannot be
    recognised yet: they keep the strategy's own answer.
    Keeps between experiences: for each pair of submodel m and experience k >= m the few
    features of its reference samples, ``4 S`` bytes a sample, and the forests, which a
    checkpoint makes anew from them. No image is kept.

    Args:
        submodels: Given the strategy, the submodels of the experiences so far, each
            with its classes, or all as a `SubmodelStack`. A submodel must never change.
        detectors: The forests; None: `ExperienceDetectors()`.
        layers: Names of the layers whose units count; None: all.
        lrp: How relevance is computed; None: `LRP()`.
        reference: The samples; None: `ReferenceSamples()`.
        eval_mode: Whether predictions are made by the experience recognised, or as the
            strategy makes them. Both are measured in either case.
        task_aware: What is reported as such: the answers of the true class's submodel,
            or those of the ``"strategy"``, where these are task-aware.

    Raises:
        ValueError: If an argument is out of its range; on evaluation before any
            experience is learned.

    References:
        Bogacka et al., ReReLRP: Remembering and Recognizing Tasks with LRP, arXiv
        2502.10789, 2025.
    """

    def __init__(
        self,
        submodels: Callable[[Any], Network],
        *,
        detectors: ExperienceDetectors | None = None,
        layers: Sequence[str] | None = None,
        lrp: LRP | None = None,
        reference: ReferenceSamples | None = None,
        eval_mode: Literal["task_agnostic", "task_aware"] = "task_agnostic",
        task_aware: Literal["submodels", "strategy"] = "submodels",
    ) -> None:
        super().__init__()
        if not callable(submodels):
            raise ValueError(  # noqa: TRY004
                f"submodels is {submodels!r}; wanted a function of the strategy"
            )
        require_choice(("task_agnostic", "task_aware"), eval_mode=eval_mode)
        require_choice(("submodels", "strategy"), task_aware=task_aware)
        if layers is not None and (isinstance(layers, str) or not len(layers)):
            raise ValueError(
                f"layers is {layers!r}; wanted names of layers, at least one, or None"
            )
        self.submodels = submodels
        self.detectors = ExperienceDetectors() if detectors is None else detectors
        self.layers = None if layers is None else tuple(layers)
        self.lrp = LRP() if lrp is None else lrp
        self.reference = ReferenceSamples() if reference is None else reference
        require_kind(ExperienceDetectors, detectors=self.detectors)
        require_kind(LRP, lrp=self.lrp)
        require_kind(ReferenceSamples, reference=self.reference)
        self.eval_mode, self.task_aware = eval_mode, task_aware
        self._asked: Network | None = None

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Look at the new experience with all submodels."""
        submodels = self.submodels(strategy)
        classes = _classes(submodels)
        if len(classes) == len(self.detectors):
            new = {*classes_in(strategy.experience)}.difference(*classes)
            if new:
                raise ValueError(
                    f"no submodel has the classes {sorted(new)} just learned; wanted "
                    "the plugin that makes submodels listed before this one"
                )
            return  # nothing new to recognise
        if len(classes) != len(self.detectors) + 1:
            raise ValueError(
                f"there are {len(classes)} submodels after {len(self.detectors)} known "
                "ones; wanted one more an experience"
            )
        if isinstance(submodels, SubmodelStack):
            network, head = submodels.network, submodels.head
        else:
            network, head = submodels[-1].network, submodels[-1].head
        x, y = self.reference.of(strategy, network, head, classes[-1])
        found = relevance_rows(self.lrp, submodels, x, self.layers)
        logits, rows = zip(*found, strict=True)
        self.detectors.add(rows, [z.argmax(1) for z in logits], y)

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse an evaluation before anything was learned."""
        if not len(self.detectors) and strategy._eval_streams is None:
            raise ValueError(
                "evaluated before any experience was learned; wanted training first"
            )
        self._asked = self.submodels(strategy) if len(self.detectors) else None

    def after_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Recognise the batch and answer it."""
        if self._asked is None:
            return
        known = _classes(self._asked)
        owner = owners_of(known, strategy.mb_y)
        found = relevance_rows(self.lrp, self._asked, strategy.mb_x, self.layers)
        logits, rows = zip(*found, strict=True)
        chosen = self.detectors.probabilities(rows).argmax(1)
        width = strategy.mb_output.shape[1]
        wide = torch.stack(
            [widened(z, c, width) for z, c in zip(logits, known, strict=True)]
        )
        at = torch.arange(len(chosen), device=chosen.device)
        task_aware = strategy.mb_output
        if self.task_aware == "submodels":
            of_owner = wide[owner.clamp(min=0), at]
            task_aware = torch.where(owner[:, None] >= 0, of_owner, task_aware)
        task_agnostic = wide[chosen, at]
        if strategy._eval_streams is not None:
            # within training: what is being learned cannot be recognised yet
            finished = owner[:, None] >= 0
            task_agnostic = torch.where(finished, task_agnostic, strategy.mb_output)
        recognition = Recognition(owner, chosen, task_aware, task_agnostic)
        strategy.recognition = recognition
        if self.eval_mode == "task_agnostic":
            strategy.mb_output = recognition.task_agnostic

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Drop what was made for the evaluation."""
        self._asked = None
        if hasattr(strategy, "recognition"):
            del strategy.recognition

    def memory_bytes(self) -> dict[str, int]:
        """Bytes kept between experiences.

        Returns:
            Those of `ExperienceDetectors`.
        """
        return self.detectors.memory_bytes()

    def state_dict(self) -> dict[str, Any]:
        """What the detectors are made of, and the state of the generator."""
        return {
            "detectors": self.detectors.state_dict(),
            **generator_state(self.reference.generator),
        }

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Put them back.

        Args:
            state: As returned by `state_dict`.
            experiences: Those trained so far; not needed here.
        """
        restore_generator(self.reference.generator, state)
        self.detectors.load_state_dict(state["detectors"])


def _classes(submodels: Network) -> list[tuple[int, ...]]:
    """Classes of each submodel."""
    if isinstance(submodels, SubmodelStack):
        return list(submodels.classes)
    return [own.classes for own in submodels]
