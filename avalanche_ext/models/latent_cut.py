"""Cut a model in two at any of its modules, without taking it apart."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_ext.models.cut_inputs import Example, probe_inputs, task_labels_for
from avalanche_ext.models.cut_points import (
    require_layer,
    same_outputs,
    valid_cuts_near,
    why_not,
)
from avalanche_ext.models.cut_trace import (
    NotRunnableError,
    Trace,
    run,
    trace,
    untouched,
)
from avalanche_ext.models.feature_classifier import evaluating
from avalanche_ext.models.past_data import forward


class LatentCut:
    r"""The output of one module, where stored latents can join the batch.

    .. math:: f(x) = h(g(x)), \qquad \text{in training } h([g(x); z])

    with g everything that runs up to the module, inclusive, and z latents that are not
    computed again. The model stays one: a hook on the module appends z on the batch
    axis. What is below is found by running the model, not from the order in which its
    parts are declared. Whether the model can be cut there is probed with 2 samples and
    1 latent, which must give what the model gives for all 3.

    The model is left as found: modes, gradients, buffers, hooks, random generators.

    Args:
        model: Any model that maps a batch to a tensor, with or without task labels.
        layer: Dotted name of a module, as in ``model.named_modules()``.
        example: The shape of one input, ``(C, H, W)`` for instance, or a batch.
        task_label: For models that take task labels, one that has a head.

    Attributes:
        latent_shape: Shape of one latent.
        modules_below: Those of g, in the order in which they end.
        parameters_below: Those that g's output depends on, by name.
        share_above: Share of h in the multiply-accumulates, see `macs_by_module`, in
            ``[0, 1]``; 0 for a model without any.
        runs_from_latents: What is above the cut can run alone, see `arm`.

    Raises:
        ValueError: If there is no such module (the message lists close names), or the
            model cannot be cut there (it says why); the message says where it can.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> cut = LatentCut(net, "1", (4,))
        >>> cut.latent_shape, list(cut.parameters_below)
        ((3,), ['0.weight', '0.bias'])
        >>> with cut.inject(torch.ones(5, 3)):
        ...     net(torch.ones(2, 4)).shape
        torch.Size([7, 2])

    References:
        Pellegrini et al., IROS 2020 (latent replay).
    """

    def __init__(
        self, model: nn.Module, layer: str, example: Example, *, task_label: int = 0
    ) -> None:
        x = probe_inputs(model, example)
        t = task_labels_for(model, x, task_label)
        self.module = require_layer(model, layer, x, t)
        self.model, self.layer = model, layer
        found = trace(model, self.module, x, t)
        reason = why_not(model, self.module, found, x, t)
        if reason:
            raise ValueError(
                f"latent_layer is {layer!r}: {reason}; wanted a module where the model "
                f"can be cut, near it {valid_cuts_near(model, layer, x, t)}"
            )
        assert found.latents is not None
        self.input_shape = tuple(x.shape[1:])
        self.latent_shape = tuple(found.latents.shape[1:])
        self.modules_below = list(dict.fromkeys(found.below))
        below = found.parameters_below
        named = dict(model.named_parameters())
        self.parameters_below = {n: p for n, p in named.items() if p in below}
        done, total = found.macs
        self.share_above = (total - done) / total if total else 0.0
        self._modules = set(model.modules())
        self._handles: list[Any] = []
        self._input_dtype = x.dtype
        self.fired = False
        self.dummies = 0
        self.runs_from_latents = self._runs_from_latents(found, t)

    def is_current(self) -> bool:
        """Whether the model still consists of the modules that were probed.

        Returns:
            False after it grew, for instance.
        """
        return self._modules == set(self.model.modules())

    def latents(self, x: Tensor, task_labels: Tensor | None = None) -> Tensor:
        """Run what is below the cut, in evaluation mode and without gradients.

        Args:
            x: Inputs, shape ``(B, ...)``.
            task_labels: Shape ``(B,)``; None on streams without.

        Returns:
            Shape ``(B, *latent_shape)``.
        """
        reached: list[Tensor] = []

        def stop(module: nn.Module, args: Any, output: Tensor) -> None:
            reached.append(output)
            raise _Reached

        handle = self.module.register_forward_hook(stop)
        try:
            with evaluating(self.model), suppress(_Reached):
                forward(self.model, x, task_labels)
        finally:
            handle.remove()
        return reached[0]

    @contextmanager
    def inject(self, replay: Tensor | None, **options: Any) -> Iterator[None]:
        """Append latents in the model's next forward pass, inside a ``with``.

        Args:
            replay: See `arm`.
            **options: See `arm`.
        """
        self.arm(replay, **options)
        try:
            yield
        finally:
            self.disarm()

    def arm(
        self,
        replay: Tensor | None,
        *,
        detach: bool = True,
        from_latents: bool = False,
        watch: Callable[[Tensor], None] | None = None,
    ) -> None:
        """Append latents in the model's next forward pass, and only in that one.

        An error in that pass ends it, too.

        Args:
            replay: Latents z, shape ``(R, *latent_shape)``; None appends nothing.
            detach: No gradient goes below the cut.
            from_latents: The model is called with latents in place of its input, and
                what is below does not run.
            watch: Called with the latents of the model's input. It must copy what it
                keeps: layers above may overwrite them.
        """
        self.disarm()
        given: list[Tensor] = []

        def swap(module: nn.Module, args: Any) -> Any:
            given.append(args[0])
            empty = args[0].new_zeros((self.dummies, *self.input_shape))
            return (empty.to(self._input_dtype), *args[1:])

        def join(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            self.fired = True
            current = given.pop() if from_latents else output
            current = current.detach() if detach else current
            if watch is not None:
                watch(current.detach())
            if replay is None:
                return current.clone() if from_latents else current
            if replay.shape[1:] != current.shape[1:]:
                raise ValueError(
                    f"the latents at {self.layer} have shape "
                    f"{tuple(current.shape[1:])}; wanted {tuple(replay.shape[1:])} "
                    "as in the memory: did the size of the inputs change?"
                )
            return torch.cat([current, replay.to(current.dtype)])

        def ended(module: nn.Module, args: Any, output: Any) -> None:
            # After an error torch goes through this very dictionary: the hook then
            # stays for one more pass, without effect.
            self._remove(self._handles if output is not None else self._handles[1:])

        self.fired = False
        hook = self.model.register_forward_hook(ended, always_call=True)
        self._handles = [hook, self.module.register_forward_hook(join)]
        if from_latents:
            self._handles.append(self.model.register_forward_pre_hook(swap))

    def disarm(self) -> None:
        """Take the hooks out, if there are any."""
        self._remove(self._handles)

    def checksum(self, *, buffers: bool = True) -> int:
        """A number that changes with any bit of what is below the cut.

        Args:
            buffers: Count statistics of norm layers, too.

        Returns:
            CRC-32 of the parameters and buffers.
        """
        state: list[Tensor] = list(self.parameters_below.values())
        if buffers:
            state += [b for m in self.modules_below for b in m.buffers(recurse=False)]
        total = 0
        for tensor in state:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            total = zlib.crc32(flat.view(torch.uint8).numpy().tobytes(), total)
        return total

    def _remove(self, handles: list[Any]) -> None:
        for handle in handles:
            handle.remove()
        self._handles = [h for h in self._handles if h not in handles]

    def _runs_from_latents(self, found: Trace, t: Tensor | None) -> bool:
        """Whether the model bears a batch of no sample, or one, below the cut."""
        assert found.latents is not None
        for n in 0, 1:
            self.dummies = n
            with (
                untouched(self.model),
                self.inject(None, from_latents=True),
                suppress(NotRunnableError),
            ):
                if same_outputs(run(self.model, found.latents, t), found.output):
                    return True
        return False


class _Reached(Exception):
    """The forward pass has come to the cut."""
