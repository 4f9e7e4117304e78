"""Tables in pages of Markdown: written by the command that a comment there names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO

PLACE = re.compile(r"(<!-- table (.*?) -->\n).*?(<!-- /table -->)", re.DOTALL)
"""``<!-- table RESULTS --format FORMAT -->``, the table, ``<!-- /table -->``."""


def with_tables(page: str, table: Callable[[Sequence[str]], int]) -> str:
    """Write the tables of a page anew.

    Args:
        page: Its text.
        table: Prints a table; takes what stands after ``table`` on the command line.

    Returns:
        The text with its tables; the same where nothing has changed.

    Example:
        >>> page = "<!-- table results -->\\n<!-- /table -->"
        >>> print(with_tables(page, lambda words: print(*words) or 0))
        <!-- table results -->
        <BLANKLINE>
        results
        <BLANKLINE>
        <!-- /table -->
    """

    def fill(match: re.Match[str]) -> str:
        with redirect_stdout(StringIO()) as printed:
            table(shlex.split(match[2]))
        return f"{match[1]}\n{printed.getvalue()}\n{match[3]}"

    return PLACE.sub(fill, page)
