"""The browser that looks at pages; run as a program, says where none is installed."""

from __future__ import annotations

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser():
    """Path of an installed browser; None where there is none. Nothing is fetched."""
    return next(filter(None, map(shutil.which, NAMES)), None)


if __name__ == "__main__" and find_browser() is None:
    print(f"the report's page was not checked: no browser, wanted {' or '.join(NAMES)}")
