"""Tables in pages of Markdown: written by the command that a comment there names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from benchmarks.names import UsageError
from benchmarks.runs.results import write_atomically

FORM = "<!-- table RESULTS --format FORMAT -->, and <!-- /table --> in a line below"
PLACE = re.compile(
    r"^(?P<start><!-- table (?P<words>[^\r\n]*?) -->(?P<end_of_line>\r?\n))"
    r"(?:(?!^<!-- table ).)*?(?P<end>^<!-- /table -->)",
    re.DOTALL | re.MULTILINE,
)
PART = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,}).*?(?:^ {0,3}(?P=fence)|\Z)"
    rf"|{PLACE.pattern}|(?P<stray>^<!-- /?table\b[^\r\n]*)",
    PLACE.flags,
)
"""A fenced block, which shows the form only; the place of a table; or half of one."""


def write_tables(pages: Sequence[Path], table: Callable[[Sequence[str]], int]) -> None:
    """Write the tables of pages anew; none is touched if one cannot be written.

    Args:
        pages: Files of Markdown. Their line ends are kept.
        table: Prints a table; takes what stands after ``table`` on the command line.

    Raises:
        UsageError: If a page is none, or has no table, half of one, or a wrong one.
    """
    texts: dict[Path, str] = {}
    for page in pages:
        if not page.is_file():
            raise UsageError(f"no page {page}; wanted a file of Markdown")
        try:
            text = page.read_bytes().decode("utf-8")
            texts[page] = with_tables(text, table)
        except UnicodeDecodeError as error:
            raise UsageError(f"{page} is {error}; wanted UTF-8") from error
        except UsageError as error:
            raise UsageError(f"{page}: {error}") from error
    for page, text in texts.items():
        write_atomically(page, text)


def with_tables(page: str, table: Callable[[Sequence[str]], int]) -> str:
    """Write the tables of a page anew.

    Args:
        page: Its text.
        table: Prints a table; takes what stands after ``table`` on the command line.

    Returns:
        The text with its tables; the same where nothing has changed.

    Raises:
        UsageError: If it has no table, half of one, or one whose words are no command.

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
        if match["fence"]:
            return match[0]
        if match["stray"]:
            raise UsageError(f"{match['stray']} is half of a table; wanted {FORM}")
        try:
            words = shlex.split(match["words"])
        except ValueError as error:
            raise UsageError(f"{match['words']} is no command: {error}") from error
        with redirect_stdout(StringIO()) as printed:
            table(words)
        lines = printed.getvalue().replace("\n", match["end_of_line"])
        return f"{match['start']}{lines.join([match['end_of_line']] * 2)}{match['end']}"

    if not any(match["start"] or match["stray"] for match in PART.finditer(page)):
        raise UsageError(f"there is no table; wanted {FORM}")
    return PART.sub(fill, page)
