"""Where the tests of the report's page find a browser, and what happens without one."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""What the system may call it."""


@functools.cache
def find_chromium() -> str | None:
    """The program of the system's Chromium, else of Playwright's own; None without either."""
    installed = next(filter(None, map(shutil.which, NAMES)), None)
    if installed is not None:
        return installed
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        own = driver.chromium.executable_path
    return own if Path(own).exists() else None


def skip_without_browser(items: Sequence[pytest.Item]) -> None:
    """Tests with the mark `browser` are skipped without one, or refused all at once where BASCULE_BROWSER=required.

    Raises:
        pytest.UsageError: Something else stands in BASCULE_BROWSER, or a browser is required and not there.
    """
    wanted = os.environ.get("BASCULE_BROWSER", "")
    if wanted not in ("", "required"):
        raise pytest.UsageError(f"BASCULE_BROWSER is {wanted!r}; it may be 'required', or absent")
    waiting = [item for item in items if item.get_closest_marker("browser") is not None]
    if not waiting or find_chromium() is not None:
        return
    if wanted == "required":
        raise pytest.UsageError(
            f"BASCULE_BROWSER=required, and there is no Chromium for {len(waiting)} tests: install it with the "
            "system's package manager, or run `make browser`"
        )
    for item in waiting:
        item.add_marker(pytest.mark.skip(reason="no Chromium here: `make browser` installs one"))
