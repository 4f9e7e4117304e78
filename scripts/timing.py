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

import argparse
import sys
import warnings
from pathlib import Path

import torch
from timings import experiences_command, method_memory
from timings.entries import ENTRIES
from timings.experiences import FEWEST
from timings.many_experiences import METHODS as MANY
from timings.many_experiences import Long
from timings.methods import command
from timings.methods.registry import METHODS

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks.runs.environment

JSON = Path("timing.json")


def main(arguments: list[str] | None = None) -> None:
    """Measure what was asked for and print a table.

    Args:
        arguments: Of the command line; None: those of this process.
    """
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")  # a script may; the package does not
    from benchmarks.runs.environment import hardware

    machine = hardware(options.device)
    print(
        f"torch {torch.__version__}, {machine['gpu'] or machine['cpu']}, threads: "
        f"{options.threads}, median of {options.repeats} turns"
    )
    if options.experiences:
        names = [n for n in MANY if options.experiences in ("all", n)]
        stream = Long(n=options.n_experiences, device=options.device)
        experiences_command.run(names, stream, options.json, options.curve)
        return
    if options.memory:
        names = [n for n in MANY if options.memory in ("all", n)]
        method_memory.run(names, options.device, options.json)
        return
    if options.method:
        chosen = [m for m in METHODS if options.method in ("all", m.name)]
        device, out = options.device, options.json
        given = {"switches": options.switches}
        command.run(chosen, device, options.repeats, out, options.profile, **given)
        return
    for entry in ENTRIES:
        if options.only in (None, entry.name):
            print(entry.figure(options.repeats), flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        arguments: As in `main`.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--only", choices=[e.name for e in ENTRIES], help="one figure instead of all"
    )
    what.add_argument(
        "--method", choices=["all", *(m.name for m in METHODS)], help="whole methods"
    )
    what.add_argument(
        "--experiences", choices=["all", *MANY], help="cost of small experiences"
    )
    what.add_argument(
        "--memory", choices=["all", *MANY], help="copies of data in memory"
    )
    parser.add_argument("--n-experiences", type=int, default=100, help="of these")
    parser.add_argument("--curve", type=Path, help="picture of their cost: .svg, .png")
    parser.add_argument("--device", help="of the methods: cpu (default), cuda, cuda:1")
    parser.add_argument("--json", type=Path, help=f"file of what was found; {JSON}")
    parser.add_argument("--profile", type=Path, help="folder for the methods' traces")
    parser.add_argument(
        "--switches", action="store_true", help="of the methods, one at a time"
    )
    parser.add_argument("--repeats", type=int, default=7, help="turns of each side")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; more need idle cores"
    )
    options = parser.parse_args(arguments)
    for name in ("repeats", "threads"):
        if (value := getattr(options, name)) < 1:
            parser.error(f"--{name} is {value}, wanted at least 1")
    if options.n_experiences < FEWEST:
        parser.error(f"--n-experiences is {options.n_experiences}, wanted >= {FEWEST}")
    written = options.method or options.experiences or options.memory
    several = "--method, --experiences or --memory"
    for name, wanted, there in (
        ("device", several, written),
        ("json", several, written),
        ("profile", "--method", options.method),
        ("switches", "--method", options.method),
        ("curve", "--experiences", options.experiences),
    ):
        if (value := getattr(options, name)) not in (None, False) and not there:
            parser.error(f"--{name} is {value}, wanted only with {wanted}")
    if options.curve is not None and options.curve.suffix not in (".svg", ".png"):
        parser.error(f"--curve is {options.curve}; wanted a file .svg or .png")
    options.device = _device(options.device or "cpu", parser)
    options.json = options.json or JSON
    if options.json.is_dir() or not options.json.parent.is_dir():
        parser.error(f"--json is {options.json}; wanted a file in a folder that exists")
    if options.profile is not None and options.profile.is_file():
        parser.error(f"--profile is {options.profile}, a file; wanted a folder")
    return options


def _device(name: str, parser: argparse.ArgumentParser) -> torch.device:
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if there[1:]:
        there.append("cuda")
    if name not in there:
        parser.error(f"--device is {name}; wanted one that is here: {', '.join(there)}")
    return torch.device(name)


if __name__ == "__main__":
    main()
