"""The command line of ``timing.py``."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryFile

import torch

from timings.entries import ENTRIES
from timings.experiences import FEWEST
from timings.many_experiences import METHODS as MANY
from timings.many_experiences import Long
from timings.methods.registry import METHODS

JSON = Path("timing.json")
LONG = Long.n
TURNS = 7


def parse(
    arguments: list[str] | None = None, description: str = ""
) -> argparse.Namespace:
    """Read the command line, and refuse what cannot be done or would be ignored.

    Args:
        arguments: Of the command line; None: those of this process.
        description: The first line of its help.

    Returns:
        The options; ``repeats`` and ``n_experiences`` are None where they mean nothing.
    """
    parser = argparse.ArgumentParser(description=description)
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
    parser.add_argument("--n-experiences", type=int, help=f"of these; {LONG}")
    parser.add_argument("--curve", type=Path, help="picture of their cost: .svg, .png")
    parser.add_argument("--device", help="of the methods: cpu (default), cuda, cuda:1")
    parser.add_argument("--json", type=Path, help=f"file of what was found; {JSON}")
    parser.add_argument("--profile", type=Path, help="folder for the methods' traces")
    parser.add_argument(
        "--switches", action="store_true", help="of the methods, one at a time"
    )
    parser.add_argument("--repeats", type=int, help=f"turns of each side; {TURNS}")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; more need idle cores"
    )
    options = parser.parse_args(arguments)
    _refuse(options, parser)
    if not (options.experiences or options.memory):
        options.repeats = options.repeats or TURNS
    if options.experiences:
        options.n_experiences = options.n_experiences or LONG
    options.device = _device(options.device or "cpu", parser)
    options.json = options.json or JSON
    if options.method or options.experiences or options.memory:
        _try_to_write(options, parser)
    return options


def _refuse(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Numbers that are too small, and options without those that they belong to."""
    least = {"repeats": 1, "threads": 1, "n_experiences": FEWEST}
    for name, fewest in least.items():
        if (value := getattr(options, name)) is not None and value < fewest:
            option = name.replace("_", "-")
            parser.error(f"--{option} is {value}, wanted at least {fewest}")
    written = options.method or options.experiences or options.memory
    several = "--method, --experiences or --memory"
    in_turns = not (options.experiences or options.memory)
    for name, wanted, there in (
        ("device", several, written),
        ("json", several, written),
        ("profile", "--method", options.method),
        ("switches", "--method", options.method),
        ("curve", "--experiences", options.experiences),
        ("n_experiences", "--experiences", options.experiences),
        ("repeats", "figures of parts or --method", in_turns),
    ):
        if (value := getattr(options, name)) not in (None, False) and not there:
            option = name.replace("_", "-")
            parser.error(f"--{option} is {value}, wanted only with {wanted}")
    if options.curve is not None and options.curve.suffix not in (".svg", ".png"):
        parser.error(f"--curve is {options.curve}; wanted a file .svg or .png")


def _try_to_write(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse files that cannot be written, before anything is measured."""
    others = {"curve": [options.curve]} if options.curve else {}
    if options.profile:
        others["profile"] = [options.profile / f"{m.name}.json" for m in METHODS]
    for name, paths in others.items():
        if options.json.resolve() in [path.resolve() for path in paths]:
            parser.error(
                f"--json is {options.json}, which --{name} writes; wanted another file"
            )
    wanted = "file"
    try:  # asking for permission is not enough: root has it everywhere
        for name in ("json", "curve"):
            if path := getattr(options, name):
                _open(path.resolve())
        name, wanted = "profile", "folder"
        if options.profile:
            options.profile.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=options.profile).close()
    except OSError as error:
        parser.error(
            f"--{name} is {getattr(options, name)}; wanted a {wanted} that can be "
            f"written: {error.strerror}"
        )


def _open(path: Path) -> None:
    """Open a file for writing, and leave what is there, or nothing, as it is."""
    new = not path.exists()
    path.open("ab").close()
    if new:
        path.unlink()


def _device(name: str, parser: argparse.ArgumentParser) -> torch.device:
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if there[1:]:
        there.append("cuda")
    if name not in there:
        parser.error(f"--device is {name}; wanted one that is here: {', '.join(there)}")
    return torch.device(name)
