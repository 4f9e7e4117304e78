"""Replay of activations, below which nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from avalanche.benchmarks import CLExperience
from avalanche.core import SupervisedPlugin
from avalanche.models import DynamicModule
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor, nn

from avalanche_ext._criteria import refuse_beside
from avalanche_ext.buffers.latent import LatentBuffer, LatentDtype
from avalanche_ext.buffers.latent_batches import (
    LatentBatches,
    ReplayOrder,
    require_replay_options,
)
from avalanche_ext.buffers.latent_checks import require_state
from avalanche_ext.buffers.latent_collection import LatentCollection, insert_latents_of
from avalanche_ext.functional.replay_policy import Replacement
from avalanche_ext.loaders import worker_options
from avalanche_ext.models.cut_inputs import Example
from avalanche_ext.models.cut_trace import NotRunnableError
from avalanche_ext.models.frozen_below import FrozenBelow
from avalanche_ext.models.latent_cut import LatentCut


class LatentReplayPlugin(SupervisedPlugin):
    r"""Replay latents of past experiences from the middle of the network.

    .. math:: L = \frac{1}{c + r} \sum_{j=1}^{c+r} \ell(h([g(x); z])_j, [y; y_z]_j)

    with c samples x of the experience and r stored latents z in each mini-batch (see
    `minibatch_composition`; the last, smaller batch is dropped). g is what runs up to
    the latent layer, h the rest. g is frozen: no gradients, evaluation mode.

    A random share of the experience's latents goes to the memory, see `LatentBuffer`.
    They are copied out of the first epoch's batches; where g changed meanwhile, or
    training stopped within that epoch, they are computed afterwards. The host's labels,
    task labels and outputs hold old and new, ``mb_x`` the new only: plugins that run
    the model on ``mb_x`` themselves (LwF) do not go with this one.

    Callbacks: before an experience it freezes g and replaces the loader; before each
    forward pass it appends labels, and a hook latents. After the experience it fills
    the memory and puts back what it froze (after an error: at the next ``train()``).
    Keeps between experiences: the memory, which a checkpoint holds.

    Args:
        model: The strategy's model. It is probed at once, or, if it has no classes
            yet, before the first experience.
        latent_layer: Dotted name of the last module of g.
        input_shape: Of one input, or a batch of inputs.
        memory_size: Latents kept, >= 0; with 0 g is frozen and nothing replayed.
        latent_dtype: See `LatentBuffer`.
        freeze_first: Freeze g in experience 0, too; else all is trained there.
        below: ``"adapt"``: statistics of norm layers in g go on adapting to new data.
        cache_current: Compute the new data's latents once an experience and keep them;
            needs deterministic transforms. ``mb_x`` holds latents where g is frozen.
        order: ``"published"``: see `LatentBatches`; the data are shuffled once an
            experience, those of experience 0 first filled up to whole batches.
        replacement: See `LatentBuffer`.
        generator: Of order, choice and augmentation, on the CPU; None for torch's
            default.
        memory_resident: See `avalanche_ext.loaders.make_loader`.

    Attributes:
        buffer: The `LatentBuffer`.

    Raises:
        ValueError: If an argument is out of its range or the model cannot be cut
            there; in training, if batches are too small for old and new, transforms
            are random where latents are cached, or latents are not finite or of
            another shape than the memory's. If g changed meanwhile, there is a warning.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> plugin = LatentReplayPlugin(net, "1", input_shape=(4,), memory_size=10)
        >>> plugin.cut.latent_shape, len(plugin.buffer)
        ((3,), 0)

    References:
        Pellegrini et al., IROS 2020.
    """

    def __init__(
        self,
        model: nn.Module,
        latent_layer: str,
        *,
        input_shape: Example,
        memory_size: int = 1500,
        latent_dtype: LatentDtype = "float32",
        freeze_first: bool = True,
        below: Literal["frozen", "adapt"] = "frozen",
        cache_current: bool = False,
        order: ReplayOrder = "shuffled",
        replacement: Replacement = "fill",
        generator: torch.Generator | None = None,
        memory_resident: Literal["auto"] | bool = "auto",
    ) -> None:
        super().__init__()
        require_replay_options(
            memory_size, latent_dtype, order, below, cache_current, freeze_first
        )
        self.buffer = LatentBuffer(
            memory_size,
            dtype=latent_dtype,
            replacement=replacement,
            generator=generator,
        )
        self.latent_layer, self.input_shape = latent_layer, input_shape
        self.memory_size, self.latent_dtype = memory_size, latent_dtype
        self.freeze_first, self.below = freeze_first, below
        self.cache_current, self.order = cache_current, order
        self.replacement, self.generator = replacement, generator
        self.memory_resident = memory_resident
        self._model = model
        self._cut: LatentCut | None = None
        try:
            self._probe()
        except NotRunnableError:
            if not any(isinstance(m, DynamicModule) for m in model.modules()):
                raise
        self._frozen: FrozenBelow | None = None
        self._collection: LatentCollection | None = None
        self._batches: LatentBatches | None = None
        self._cached = False

    @property
    def cut(self) -> LatentCut:
        """Where the model is cut; a ValueError before it has any classes."""
        if self._cut is None:
            raise ValueError("the model has no classes yet; wanted training first")
        return self._cut

    def look_again(self) -> None:
        """Find the cut anew, after modules of the model were replaced."""
        if self._cut is not None:
            self._probe()

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse what does not fit; put back what an error may have left."""
        self._put_back()
        refuse_beside(self, strategy, LatentReplayPlugin, ReplayPlugin)
        if strategy.model is not self._model:
            raise ValueError(
                f"the strategy trains another {type(strategy.model).__name__} than the "
                "LatentReplayPlugin was given; wanted the same model"
            )
        if self.memory_size and strategy.train_mb_size < 2:
            raise ValueError(
                f"train_mb_size is {strategy.train_mb_size}; wanted at least 2, for "
                "new samples and latents of old ones"
            )

    def before_training_exp(
        self, strategy: Any, *, shuffle: bool = True, **kwargs: Any
    ) -> None:
        """Freeze what is below the cut, and replace the loader."""
        self._put_back()
        tasks = getattr(strategy.experience, "task_labels", None) or [0]
        if self._cut is None or not self._cut.is_current():
            self._probe(int(next(iter(tasks))))
        experience = strategy.clock.train_exp_counter
        if self.freeze_first or experience > 0:
            adapt = self.below == "adapt"
            self._frozen = FrozenBelow(self.cut, adapt=adapt)
            self.buffer.warn_if_stale(self.cut.checksum(buffers=not adapt))
        self._cached = self.cache_current and self._frozen is not None
        self._batches = LatentBatches(
            self.buffer,
            self.order,
            len(strategy.adapted_dataset),
            strategy.train_mb_size,
            self._permutation,
        )
        strategy.dataloader = self._batches.loader(
            strategy.adapted_dataset,
            self.cut if self._cached else None,
            shuffle=shuffle,
            device=strategy.device,
            memory_resident=self.memory_resident,
            generator=self.generator,
            **worker_options(kwargs),
        )
        if self.memory_size and self._frozen and self.below == "frozen":
            self._collection = LatentCollection(
                self.buffer,
                experience,
                iterations=len(strategy.dataloader),
                current=self._batches.composition.current,
                device=strategy.device,
            )

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Deal the memory out to the batches of the epoch."""
        if self._batches is not None:
            self._batches.deal(strategy.device)

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Append labels of old samples to the batch, and let a hook append latents."""
        if self._frozen is not None:
            self._frozen.set_modes()
        batch = strategy.mbatch
        labels, tasks = batch[1], batch[-1] if len(batch) > 2 else None
        assert self._batches is not None
        replay = self._batches.append(batch, strategy.device)
        collection = self._collection if strategy.clock.train_exp_epochs == 0 else None

        def watch(latents: Tensor) -> None:
            if collection is not None:
                collection.add(latents, labels, tasks)

        self.cut.arm(
            replay,
            detach=self._frozen is not None,
            from_latents=self._cached,
            watch=watch,
        )

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Take the hook out."""
        self.cut.disarm()
        if not self.cut.fired:
            raise ValueError(
                f"{self.latent_layer} did not run in the forward pass; wanted a "
                "strategy that runs the whole model, not compiled, once in a batch"
            )

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Fill the memory, and put back what was frozen."""
        collection = self._collection
        self._put_back()
        if not self.memory_size:
            return
        if collection is not None and collection.complete:
            collection.insert()
        else:
            insert_latents_of(
                strategy.adapted_dataset,
                self.cut,
                self.buffer,
                strategy.clock.train_exp_counter,
                batch_size=strategy.train_mb_size,
                device=strategy.device,
                memory_resident=self.memory_resident,
                generator=self.generator,
            )
        self.buffer.checksum = self.cut.checksum(buffers=self.below == "frozen")

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Take out a hook that an error left."""
        if self._cut is not None:
            self._cut.disarm()

    def memory_bytes(self) -> dict[str, int]:
        """Return the bytes of the memory, in all."""
        return {"latents": self.buffer.nbytes}

    def state_dict(self) -> dict[str, Any]:
        """Return the memory, and the state of the generator if there is one."""
        return {"buffer": self.buffer.state_dict()}

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Put the memory back; see `LatentBuffer.load_state_dict`."""
        require_state(state, ["buffer"])
        self.buffer.load_state_dict(state["buffer"], experiences)

    def _permutation(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self.generator)

    def _probe(self, task_label: int = 0) -> None:
        cut = LatentCut(
            self._model, self.latent_layer, self.input_shape, task_label=task_label
        )
        if self.cache_current and not cut.runs_from_latents:
            raise ValueError(
                f"cache_current is True, but {type(self._model).__name__} cannot run "
                f"above {self.latent_layer} alone; wanted cache_current=False"
            )
        self._cut = cut

    def _put_back(self) -> None:
        if self._cut is not None:
            self._cut.disarm()
        if self._frozen is not None:
            self._frozen.put_back()
        self._frozen = self._collection = self._batches = None
        self._cached = False
