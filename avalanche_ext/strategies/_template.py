"""What all strategies of this package share on top of Avalanche's template."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal, get_args

import torch
from avalanche.core import BasePlugin
from avalanche.models import MultiHeadClassifier
from avalanche.training.templates import SupervisedTemplate
from torch import nn
from torch.optim import SGD, Optimizer

from avalanche_ext._checks import require_choice, require_kind, require_whole
from avalanche_ext.models.compiled_parts import CompiledParts
from avalanche_ext.plugins.memory_resident import MemoryResidentPlugin

Precision = Literal["fp32", "bf16"]
OptimizerImplementation = Literal["foreach", "fused"]

_IMPLEMENTATIONS = set(get_args(OptimizerImplementation))


class ResidentTemplate(SupervisedTemplate):
    """Avalanche's supervised template with fast batches and undisturbed evaluation.

    - Data that fit in memory stay there (see `MemoryResidentPlugin`).
    - Evaluation, also inside training, draws nothing from the random generators:
      the weights do not depend on whether and when one evaluates.
    - `stop_training` ends the experience it was called in, not the next one too.

    Args:
        model: As in Avalanche.
        optimizer: Any torch optimizer; as in Avalanche it gets all parameters.
        plugins: As in Avalanche; the list is not modified.
        memory_resident: ``"auto"``, True or False; see `MemoryResidentPlugin`.
        generator: Of the shuffling and augmentation; None for torch's default
            generator, which `torch.manual_seed` governs.
        precision: ``"bf16"`` runs forward passes under autocast to bfloat16; losses,
            statistics and the sums in norms are computed in float32.
        channels_last: Keep images and convolution weights in that memory format.
        compile: Run the strategy's passes through `torch.compile`, but for heads that
            grow; see `CompiledParts`.
        optimizer_implementation: ``"foreach"`` or ``"fused"`` update many weights in
            one operation; None: as the optimizer was made.
        inference_mode: Run frozen copies of the model under `torch.inference_mode`.
        base_kwargs: Those of Avalanche's `SupervisedTemplate`.

    Raises:
        ValueError: If one of these is unknown, the model has no part to compile, the
            optimizer has no such implementation, or a size is not positive.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        plugins: Sequence[BasePlugin] | None = None,
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
        precision: Precision = "fp32",
        channels_last: bool = False,
        compile: bool = False,
        optimizer_implementation: OptimizerImplementation | None = None,
        inference_mode: bool = False,
        **base_kwargs: Any,
    ) -> None:
        require_kind(nn.Module, model=model)
        require_kind(Optimizer, optimizer=optimizer)
        require_choice(("fp32", "bf16"), precision=precision)
        require_choice((True, False), channels_last=channels_last, compile=compile)
        require_choice((True, False), inference_mode=inference_mode)
        require_implementation(optimizer, optimizer_implementation)
        multihead = [m for m in model.modules() if isinstance(m, MultiHeadClassifier)]
        if precision == "bf16" and multihead:
            raise ValueError(
                "precision is 'bf16', in which Avalanche's MultiHeadClassifier fails; "
                "wanted a TaskIncrementalClassifier, or 'fp32'"
            )
        sizes = {"train_mb_size", "train_epochs"}
        if base_kwargs.get("eval_mb_size") is not None:  # None: as train_mb_size
            sizes.add("eval_mb_size")
        require_whole(1, **{k: v for k, v in base_kwargs.items() if k in sizes})
        resident = MemoryResidentPlugin(
            memory_resident=memory_resident, generator=generator
        )
        super().__init__(
            model=model,
            optimizer=optimizer,
            plugins=[resident, *(plugins or [])],
            **base_kwargs,
        )
        self.precision, self.channels_last = precision, channels_last
        self.compile, self.inference_mode = compile, inference_mode
        self.optimizer_implementation = optimizer_implementation
        self._compiled_parts = CompiledParts(model) if compile else None
        if channels_last:
            model.to(memory_format=torch.channels_last)

    def eval(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Evaluate as Avalanche does; the random generators are left as found.

        Args:
            args: The experiences.
            kwargs: As in Avalanche.

        Returns:
            The last value of each metric.
        """
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            return super().eval(*args, **kwargs)  # type: ignore[no-any-return]

    def forward(self) -> torch.Tensor:
        """Logits of the batch, in float32 at least."""
        with ExitStack() as stack:
            stack.enter_context(self._autocast())
            if (parts := self._compiled_parts) is not None:
                if parts.model is not self.model:  # it was replaced
                    parts = self._compiled_parts = CompiledParts(self.model)
                stack.enter_context(parts)
            output: Any = super().forward()
        half = isinstance(output, torch.Tensor) and output.dtype == torch.bfloat16
        return output.float() if half else output  # type: ignore[no-any-return]

    def make_optimizer(self, **kwargs: Any) -> None:
        """As Avalanche's, in the implementation that was asked for.

        Args:
            kwargs: As in Avalanche.
        """
        super().make_optimizer(**kwargs)
        if (chosen := self.optimizer_implementation) is not None:
            for options in (self.optimizer.defaults, *self.optimizer.param_groups):
                # one alone may be True
                options.update({n: n == chosen for n in _IMPLEMENTATIONS & {*options}})

    def optimizer_step(self) -> None:
        """Take a step; a fused one, too, where weights join later than others."""
        if self.optimizer_implementation == "fused" and type(self.optimizer) is SGD:
            _begin_momenta(self.optimizer)
        super().optimizer_step()

    def _before_training_exp(self, **kwargs: Any) -> None:
        self._stop_training = False
        if self._compiled_parts is not None:
            self._compiled_parts.look_again()
        super()._before_training_exp(**kwargs)

    def _before_backward(self, **kwargs: Any) -> None:
        # Penalties may run the model, or a copy of it, once more.
        with self._autocast():
            super()._before_backward(**kwargs)

    def _unpack_minibatch(self) -> None:
        super()._unpack_minibatch()
        if self.channels_last and self.mb_x.ndim == 4:
            self.mbatch[0] = self.mb_x.contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


def require_implementation(optimizer: Optimizer, name: str | None) -> None:
    """Refuse an implementation that the optimizer does not have.

    Args:
        optimizer: Any torch optimizer.
        name: As in `ResidentTemplate`.

    Raises:
        ValueError: If the name is unknown, or not among the optimizer's options.
    """
    require_choice(
        (None, *get_args(OptimizerImplementation)), optimizer_implementation=name
    )
    if name is not None and name not in optimizer.defaults:
        raise ValueError(
            f"optimizer_implementation is {name!r}, which {type(optimizer).__name__} "
            "does not have; wanted None, or an optimizer such as torch.optim.SGD"
        )
    dampened = any(group.get("dampening") for group in optimizer.param_groups)
    if name == "fused" and dampened:
        raise ValueError(
            "optimizer_implementation is 'fused' and dampening not 0; wanted 'foreach'"
        )


def _begin_momenta(optimizer: SGD) -> None:
    """Momentum 0 for weights without any: torch's kernel takes all or none.

    A momentum that begins with 0 is the gradient after a step, as one that begins with
    none; with dampening it is less, which the template refuses.
    """
    for group in optimizer.param_groups:
        for weight in group["params"] if group["momentum"] else ():
            if weight.grad is not None:
                state = optimizer.state[weight]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(weight)


def refuse_own_plugins(
    strategy: str, own: Sequence[BasePlugin], given: Sequence[BasePlugin] | None
) -> None:
    """Refuse plugins that a strategy brings itself: they would act twice.

    Args:
        strategy: Its name.
        own: Its plugins.
        given: Those of the user.

    Raises:
        ValueError: If one of the latter is of a class among the former.
    """
    twice = {type(p) for p in own} & {type(p) for p in given or ()}
    if twice:
        raise ValueError(
            f"plugins hold {sorted(kind.__name__ for kind in twice)}, which {strategy} "
            f"brings itself; wanted others, or the arguments of {strategy}"
        )
