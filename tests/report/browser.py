"""The system's browser, driven without a display; nothing is downloaded."""

import shutil

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def found_browser():
    """Path of a Chromium of this system, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def launched(playwright):
    """Start it."""
    return playwright.chromium.launch(
        executable_path=found_browser(), args=["--no-sandbox", "--disable-gpu"]
    )
