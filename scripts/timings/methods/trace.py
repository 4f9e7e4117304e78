"""A profile of one epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from timings.methods.compare import trained
from timings.methods.method import Frame, Method
from timings.watch import around_epochs

ROWS = 10


def trace(method: Method, frame: Frame, folder: Path) -> list[str]:
    """Profile the second epoch of the second experience of ours.

    Args:
        method: Which.
        frame: Its frame.
        folder: Gets ``<method>.json``, which Chrome and Perfetto show.

    Returns:
        Lines: the costliest operations by their own time, on the GPU if there is one.
    """
    cuda = frame.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    profiles: list[profile] = []

    @contextmanager
    def epoch() -> Iterator[None]:
        profiles.append(profile(activities=activities))
        with profiles[-1]:
            yield

    run = trained(method.ours, frame)
    around_epochs(run.strategy, epoch)
    run.strategy.train_epochs = 2
    run.strategy.train(run.experiences[1])
    folder.mkdir(parents=True, exist_ok=True)
    profiles[-1].export_chrome_trace(str(folder / f"{method.name}.json"))
    own = f"self_{'device' if cuda else 'cpu'}_time_total"
    rows = [(getattr(r, own), r.count, r.key) for r in profiles[-1].key_averages()]
    total = sum(microseconds for microseconds, _, _ in rows) or 1
    return [
        f"  {'own ms':>9}{'share':>8}{'calls':>8}  operation",
        *(
            f"  {microseconds / 1000:9.1f}{microseconds / total:8.1%}{calls:8}  {key}"
            for microseconds, calls, key in sorted(rows, reverse=True)[:ROWS]
        ),
    ]
