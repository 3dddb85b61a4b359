"""Chromium without a screen, for the report's page."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MISSING = "needs Chromium and playwright: apt-get install chromium, pip install 'guidedflow[dev]'"


def is_there() -> bool:
    """Whether a browser can be started."""
    with contextlib.suppress(ImportError):
        import playwright.sync_api  # noqa: F401

        return _executable() is not None
    return False


def _executable() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser with a profile of its own, as playwright's Browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_executable(), args=list(FLAGS))
        yield browser
        browser.close()
