"""States of random generators as plain data."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from avalanche_ext.checkpoint.kinds import class_name

#: Generators that plugins may hold.
GENERATORS = (
    torch.Generator,
    random.Random,
    np.random.RandomState,
    np.random.Generator,
)


_NEW: dict[str, Callable[[torch.device], Any]] = {
    class_name(torch.Generator): torch.Generator,
    class_name(random.Random): lambda device: random.Random(),
    class_name(np.random.RandomState): lambda device: np.random.RandomState(),
    class_name(np.random.Generator): lambda device: np.random.default_rng(),
}


def new_generator(name: str, device: torch.device) -> Any:
    """A generator of the class of that name; torch's on the device."""
    return _NEW[name](device)


def generator_state(generator: Any) -> Any:
    """State of one generator."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.bit_generator.state


def set_generator_state(generator: Any, state: Any) -> None:
    """Put a state back into a generator of the same class."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def global_state() -> dict[str, Any]:
    """States of the generators of Python, NumPy and torch on CPU and CUDA."""
    drawn = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if drawn else [],
    }


def set_global_state(state: dict[str, Any]) -> None:
    """Put all of them back; CUDA's only where there are as many devices."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


def generators_of(loader: Any) -> list[torch.Generator]:
    """The generators that a loader and its samplers draw from, besides the global."""
    batches = getattr(loader, "batch_sampler", None)
    parts = (
        loader,
        getattr(loader, "sampler", None),
        getattr(batches, "sampler", None),
    )
    found = (getattr(part, "generator", None) for part in parts)
    return [g for g in found if isinstance(g, torch.Generator)]


@contextmanager
def random_state_kept(*generators: torch.Generator) -> Iterator[None]:
    """Put all global generators back at the end, and those given."""
    found = global_state()
    states = [(own, own.get_state()) for own in generators]
    try:
        yield
    finally:
        set_global_state(found)
        for own, state in states:
            own.set_state(state)
