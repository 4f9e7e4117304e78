"""How the options of a sweep are written: seeds, pairs, lists of values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import yaml

from benchmarks.names import UsageError
from benchmarks.runs.options import LARGEST_SEED

MOST_SEEDS = 10_000
"""More are a slip of the finger."""


def read_seeds(text: str) -> list[int]:
    """Read a list of seeds.

    Args:
        text: Numbers and ranges, both ends included.

    Returns:
        The seeds, each once.

    Raises:
        UsageError: If the text is no such list, or one of too many.

    Example:
        >>> read_seeds("0-2,7")
        [0, 1, 2, 7]
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", part.strip())
        span = match and range(int(match[1]), int(match[2] or match[1]) + 1)
        if not span:
            raise UsageError(f"--seeds is {text}; wanted for instance 0-4 or 0,2,5")
        if len(seeds) + len(span) > MOST_SEEDS:
            raise UsageError(f"--seeds is {text}; wanted at most {MOST_SEEDS} seeds")
        if span[-1] > LARGEST_SEED:
            raise UsageError(f"--seeds is {text}; wanted seeds up to {LARGEST_SEED}")
        seeds |= dict.fromkeys(span)
    return list(seeds)


def read_pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Read ``key=value`` words.

    Args:
        option: Where they were given.
        texts: The words.

    Returns:
        Value by key, as an option of a recipe is written in Python.

    Raises:
        UsageError: If a word is something else, or a key comes twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.removeprefix("--").replace("-", "_")
        if not (key.isidentifier() and equals and value):
            raise UsageError(f"{option} is {text}; wanted KEY=VALUE")
        if key in pairs:
            raise UsageError(f"{option} {key} is given twice; wanted it once")
        pairs[key] = value
    return pairs


def split_values(text: str) -> list[str]:
    """Split at the commas that stand outside brackets and quotes, as YAML does.

    Args:
        text: YAML scalars or lists.

    Returns:
        Each value as it was written, each once.

    Raises:
        UsageError: If the text is not YAML.

    Example:
        >>> split_values("0.1,0.05"), split_values("[0],[2,3]")
        (['0.1', '0.05'], ['[0]', '[2,3]'])
    """
    try:
        items = yaml.compose(f"[{text}]", yaml.SafeLoader).value
    except (yaml.YAMLError, AttributeError) as error:
        raise UsageError(
            f"--override has the values {text}; wanted YAML between commas"
        ) from error
    # positions are those in the text with a bracket before it
    cut = [text[item.start_mark.index - 1 : item.end_mark.index - 1] for item in items]
    plain = [
        item.value if isinstance(item, yaml.ScalarNode) else part
        for item, part in zip(items, cut, strict=True)
    ]
    return list(dict.fromkeys(plain))


def folder_name(values: Mapping[str, str]) -> str:
    """Name the folder of one combination of overrides.

    Args:
        values: Value of each option.

    Returns:
        A name of letters, digits and ``=,._+-``.

    Example:
        >>> folder_name({"lr": "0.1", "milestones": "[80, 120]"})
        'lr=0.1,milestones=80_120'
    """
    safe = (re.sub(r"[^\w.+-]+", "_", v, flags=re.ASCII) for v in values.values())
    return ",".join(
        f"{k}={v.strip('_') or '_'}" for k, v in zip(values, safe, strict=True)
    )
