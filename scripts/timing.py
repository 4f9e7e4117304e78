"""Speed of this package as ratios, each measured in one run on this machine.

Each figure compares ours with Avalanche's own path, a bare PyTorch loop or a slow
restatement, on the same generated data and the same model. The two take turns, and
medians are compared, so that a busy machine slows both alike::

    python scripts/timing.py                      # all figures of parts
    python scripts/timing.py --only loader --repeats 9
    python scripts/timing.py --method all         # whole methods
    python scripts/timing.py --method bdr --device cuda --profile profiles
    python scripts/timing.py --method bdr --switches      # bf16, compile, ...
    python scripts/timing.py --experiences all --curve experiences.svg
    python scripts/timing.py --memory all         # copies of data that methods make

A new figure is one more `Entry` in a module of ``timings``, a new method one more
`Method` in a module of ``timings.methods``.
"""

from __future__ import annotations

import atexit
import os
import sys
import warnings
from pathlib import Path
from types import TracebackType

# what takes seconds to import is imported in `main`, where Ctrl-C ends in one line

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks.runs.environment


def main(arguments: list[str] | None = None) -> None:
    """Measure what was asked for and print a table.

    Args:
        arguments: Of the command line; None: those of this process.
    """
    from timings.options import parse

    options = parse(arguments, (__doc__ or "").splitlines()[0])
    import torch
    from timings.entries import ENTRIES
    from timings.many_experiences import METHODS as MANY

    from benchmarks.runs.environment import hardware

    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")  # a script may; the package does not
    machine = hardware(options.device)
    turns = f", median of {options.repeats} turns" if options.repeats else ""
    print(
        f"torch {torch.__version__}, {machine['gpu'] or machine['cpu']}, threads: "
        f"{options.threads}{turns}"
    )
    if options.experiences:
        from timings import experiences_command
        from timings.many_experiences import Long

        names = [n for n in MANY if options.experiences in ("all", n)]
        stream = Long(n=options.n_experiences, device=options.device)
        experiences_command.run(names, stream, options.json, options.curve)
        return
    if options.memory:
        from timings import method_memory

        names = [n for n in MANY if options.memory in ("all", n)]
        method_memory.run(names, options.device, options.json)
        return
    if options.method:
        from timings.methods import command
        from timings.methods.registry import METHODS

        chosen = [m for m in METHODS if options.method in ("all", m.name)]
        device, out = options.device, options.json
        given = {"switches": options.switches}
        command.run(chosen, device, options.repeats, out, options.profile, **given)
        return
    for entry in ENTRIES:
        if options.only in (None, entry.name):
            print(entry.figure(options.repeats), flush=True)


def _end(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """End at once after Ctrl-C: loops that take turns in threads are not waited for."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print("\nstopped", file=sys.stderr, flush=True)
    sys.stdout.flush()
    atexit._run_exitfuncs()  # frees what processes share
    os._exit(130)


if __name__ == "__main__":
    sys.excepthook = _end
    main()
