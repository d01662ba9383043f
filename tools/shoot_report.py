"""Take pictures of a report, to be looked at: two widths, light and dark, every tab.

Run: python tools/shoot_report.py runs/first/report.html --to pictures
Needs the extra `browser`.
"""

import argparse
from pathlib import Path

import clone  # noqa: F401  # before `tests`
from playwright.sync_api import sync_playwright

from tests.report.browser import launched

WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
_DRAWN = "html[data-drawn=all]"


def main() -> None:
    """Write one PNG for each width, scheme and tab, and print its path."""
    parser = argparse.ArgumentParser()
    parser.add_argument("page", type=Path)
    parser.add_argument("--to", type=Path, default=Path("pictures"))
    parser.add_argument("--height", type=int, help="of what is shown; default: the whole page")
    given = parser.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = launched(playwright)
        for width in WIDTHS:
            for scheme in SCHEMES:
                size = {"width": width, "height": given.height or 900}
                page = browser.new_page(viewport=size, color_scheme=scheme)
                page.goto(given.page.resolve().as_uri())
                page.wait_for_selector(_DRAWN, state="attached", timeout=120_000)
                for tab in range(page.locator("[role=tab]").count() or 1):
                    if page.locator("[role=tab]").count():
                        page.locator("[role=tab]").nth(tab).click()
                        page.wait_for_selector(_DRAWN, state="attached", timeout=120_000)
                    path = given.to / f"{given.page.stem}-{width}-{scheme}-{tab}.png"
                    page.screenshot(path=path, full_page=given.height is None)
                    print(path)
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
