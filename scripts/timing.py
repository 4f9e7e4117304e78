"""Speed of this package as ratios, each measured in one run on this machine.

Each figure compares ours with Avalanche's own path, a bare PyTorch loop or a slow
restatement, on the same generated data and the same model. The two take turns, and
medians are compared, so that a busy machine slows both alike::

    python scripts/timing.py                      # everything
    python scripts/timing.py --only loader --repeats 9

A new figure is one more `Entry` in a module of ``timings``.
"""

from __future__ import annotations

import argparse
import platform
import warnings

import torch
from timings import (
    ar1_star,
    bdr_cwd,
    ewc_fr_replay,
    foundation,
    mnemonics,
    pruning,
    rerelrp,
)

ENTRIES = (
    *foundation.ENTRIES,
    *bdr_cwd.ENTRIES,
    *ewc_fr_replay.ENTRIES,
    *ar1_star.ENTRIES,
    *pruning.ENTRIES,
    *rerelrp.ENTRIES,
    *mnemonics.ENTRIES,
)


def main() -> None:
    """Measure what was asked for and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [entry.name for entry in ENTRIES]
    parser.add_argument("--only", choices=names, help="one figure instead of all")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each side")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; more need idle cores"
    )
    options = parser.parse_args()
    for name in ("repeats", "threads"):
        if (value := getattr(options, name)) < 1:
            parser.error(f"--{name} is {value}, wanted at least 1")
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")  # a script may; the package does not
    print(
        f"torch {torch.__version__}, {processor()}, threads: {options.threads}, "
        f"median of {options.repeats} turns"
    )
    for entry in ENTRIES:
        if options.only in (None, entry.name):
            name, figure, target, verdict, what = entry.row(options.repeats)
            print(f"{name:12}{figure:>9}  {target:10}{verdict:9}{what}", flush=True)


def processor() -> str:
    """Name of the CPU."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":")[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
