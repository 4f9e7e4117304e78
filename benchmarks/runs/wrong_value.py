"""What the parser says of a wrong value, in words that name what is wanted."""

from __future__ import annotations

import re

KINDS = {
    "PositiveInt": "a whole number >= 1",
    "NonNegativeInt": "a whole number >= 0",
    "Seed": "a whole number from 0 to 4294967295",
    "PositiveFloat": "a number > 0",
    "NonNegativeFloat": "a number >= 0",
    "ClosedUnitInterval": "a number from 0 to 1",
    "NotEmptyStr": "some text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list, e.g. [80,120]",
    "list": "a list, e.g. [80,120]",
    "NoneType": "null",
}
SEEN = re.compile(
    r"(?:Got value|Given value): (.*)$|: (\S*?) ?does not (?:conform|match)"
    r"|(?:with base 10|to float): '(.*)'$"
)
WANTED = re.compile(
    r"Not of type (\w+)|Expected an? (?:<class (\w+)>|Literal\[(.*?)\](?=[ .]))"
)


def in_plain_words(text: str) -> str:
    """Say what was seen and what was wanted.

    Args:
        text: ``--name: `` and what the parser says of the value, in one line.

    Returns:
        The line; the text itself where it is of something else.

    Example:
        >>> in_plain_words("--lr: Not of type PositiveFloat: 0 does not conform to v>0")
        '--lr is 0; wanted a number > 0'
    """
    option = re.match(r"(--\w+): ", text)
    seen = SEEN.findall(text)
    wanted = dict.fromkeys(
        KINDS.get(kind or of_python) if not names else f"one of {names}"
        for kind, of_python, names in WANTED.findall(text.replace("'", ""))
    )
    if not (option and seen and wanted) or None in wanted:
        return text
    # where several kinds fail, the whole value stands at the end
    value = "".join(seen[-1]) or "''"
    return f"{option[1]} is {value}; wanted {' or '.join(wanted)}"
