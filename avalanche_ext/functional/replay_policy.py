"""How many new and old latents a mini-batch holds, and how many a memory exchanges."""

from __future__ import annotations

from typing import Literal, NamedTuple

from avalanche_ext._checks import require_choice, require_whole

Replacement = Literal["fill", "published"]


class Composition(NamedTuple):
    """Of what the mini-batches of an epoch consist."""

    iterations: int
    """Mini-batches in an epoch."""
    current: int
    """Samples of the experience in each."""
    replayed: int
    """Rows from the memory in each."""


def minibatch_composition(
    n_current: int, n_memory: int, batch_size: int, *, legacy: bool = False
) -> Composition:
    r"""Split mini-batches between new samples and memory, in proportion.

    .. math:: I = \max(1, \min(N, \lfloor (N + M) / B \rfloor)), \quad
        c = \lfloor N / I \rfloor, \quad I \leftarrow \lfloor N / c \rfloor, \quad
        r = \min(B - c, \lfloor M / I \rfloor)

    so that an epoch sees nearly all of both, each once. Where this would make a batch
    larger than B, or a memory that is not empty were never replayed, the new samples
    get more batches: c is B at most (B - 1 beside a memory), and r is at least 1.

    Args:
        n_current: N, samples of the experience, >= 1.
        n_memory: M, latents in the memory, >= 0 (``legacy``: places in it).
        batch_size: B >= 1.
        legacy: The published rule: r = max(0, B - c) whatever the memory holds.

    Returns:
        I, c and r.

    Raises:
        ValueError: If a number is out of its range; with ``legacy``, where the
            published code divides by zero.

    Example:
        >>> minibatch_composition(300, 1500, 128)
        Composition(iterations=14, current=21, replayed=107)

    References:
        Pellegrini et al., IROS 2020 (latent replay).
    """
    require_whole(1, n_current=n_current, batch_size=batch_size)
    require_whole(0, n_memory=n_memory)
    if legacy:
        return _published_composition(n_current, n_memory, batch_size)
    iterations = max(1, min(n_current, (n_current + n_memory) // batch_size))
    room = batch_size - 1 if n_memory and batch_size > 1 else batch_size
    if n_current // iterations > room:
        iterations = -(-n_current // room)
    current = n_current // iterations
    iterations = n_current // current
    replayed = max(1, n_memory // iterations) if n_memory else 0
    return Composition(iterations, current, min(batch_size - current, replayed))


def _published_composition(n: int, m: int, batch_size: int) -> Composition:
    iterations = (n + m) // batch_size
    current = n // iterations if iterations else 0
    if not current:
        raise ValueError(
            f"n_current is {n}, n_memory {m} and batch_size {batch_size}; wanted "
            "numbers that the published rule does not divide by zero for: at least "
            "one mini-batch, with at least one new sample (legacy=False does without)"
        )
    return Composition(n // current, current, max(0, batch_size - current))


def replaced_latents(max_size: int, experience: int, n_seen: int) -> int:
    r"""Share of an experience in the memory: all experiences get the same.

    .. math:: h = \min(\lfloor R / (i + 1) \rfloor, A)

    Args:
        max_size: R, places in the memory, >= 0.
        experience: i, number of the experience, from 0.
        n_seen: A, latents of the experience, >= 0.

    Returns:
        h.

    Example:
        >>> replaced_latents(1500, experience=9, n_seen=294)
        150

    References:
        Pellegrini et al., IROS 2020 (latent replay).
    """
    require_whole(0, max_size=max_size, experience=experience, n_seen=n_seen)
    return min(max_size // (experience + 1), n_seen)


def filled_and_overwritten(
    max_size: int,
    n_stored: int,
    experience: int,
    n_seen: int,
    replacement: Replacement = "fill",
) -> tuple[int, int]:
    """Latents of an experience that go to free places, and in place of others.

    Args:
        max_size: R, places in the memory, >= 0.
        n_stored: Of them taken, 0 to R.
        experience: Number of the experience, from 0.
        n_seen: Latents of the experience, >= 0.
        replacement: ``"fill"``: free places are filled first; what then is missing to
            h (see `replaced_latents`) overwrites. ``"published"``: h in experience 0,
            and then h in place of others; the memory never grows again. Both are the
            same while the memory is full.

    Returns:
        The two numbers.

    Raises:
        ValueError: If ``replacement`` is unknown; if by the published rule more
            latents would be replaced than there are.

    Example:
        >>> filled_and_overwritten(100, 80, experience=1, n_seen=300)
        (20, 30)
    """
    require_choice(("fill", "published"), replacement=replacement)
    h = replaced_latents(max_size, experience, n_seen)
    if replacement == "fill":
        filled = min(max_size - n_stored, n_seen)
        return filled, max(0, h - filled)
    if experience == 0:
        return h, 0
    if h > n_stored:
        raise ValueError(
            f"the memory holds {n_stored} latents, of which experience {experience} "
            f"would replace {h}; wanted an experience 0 with at least max_size = "
            f"{max_size} samples, or replacement='fill', which fills free places first"
        )
    return 0, h
