"""Blocks of code, commands and links of the pages people read."""

from __future__ import annotations

import re
import shlex
from configparser import ConfigParser
from pathlib import Path
from typing import NamedTuple

import torch
from avalanche.benchmarks import nc_benchmark
from torch.utils.data import TensorDataset

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

#: How a command begins that is checked also where it stands within a line.
PROGRAMS = ("python -m benchmarks ", "python scripts/", "bash scripts/")


class Block(NamedTuple):
    """A fenced block: the page's line it begins at, its language and its text."""

    line: int
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Fenced blocks of a page, in order."""
    text = page.read_text()
    found = re.finditer(r"^```(\S*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(text[: m.start()].count("\n") + 2, m[1], m[2]) for m in found]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Words of each command line, of blocks and within lines; comments are gone."""
    lines = re.findall(r"`([^`\n]+)`", prose(page))
    lines = [line for line in lines if line.startswith(PROGRAMS)]
    for block in blocks(page):
        if block.language == "bash":
            lines += block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def links(page: Path) -> list[str]:
    """Targets of the links of a page, without those to other hosts."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target for target in found if "://" not in target]


def anchors(page: Path) -> set[str]:
    """What a link may have behind its #: the headings, as code hosts write them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", head).strip().lower() for head in heads]
    return {head.replace(" ", "-") for head in plain}


def autodoc_names(page: Path) -> list[str]:
    """Public names whose docstrings a page shows."""
    text = "".join(b.text for b in blocks(page) if b.language == "{eval-rst}")
    return re.findall(
        r"^\.\. auto(?:class|function):: (?:avalanche_ext\.)?(\w+)$", text, re.MULTILINE
    )


def extras() -> set[str]:
    """Extras that pip can install."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return set(config["options.extras_require"])


def small_mnist(n_experiences, return_task_id=False, **options):
    """Images of MNIST's shape, in place of the benchmark, without a download."""
    data = TensorDataset(torch.rand(200, 1, 28, 28), torch.arange(200) % 10)
    data.targets = data.tensors[1].tolist()
    return nc_benchmark(
        data, data, n_experiences, task_labels=return_task_id, **options
    )
