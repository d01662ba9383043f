"""Time a report: writing it, its size, and how long a browser takes to open it.

Run: python tools/bench_report.py (a run of 5,000 made-up trials; the targets are
8 MB, and 2 s until the front is drawn), or with folders of runs. Needs the extra `browser`.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import clone  # noqa: F401  # before `tests`
from playwright.sync_api import sync_playwright

from hwsearch import Run
from tests.report.browser import launched
from tests.report.made_run import made_run, space_of

N_TRIALS = 5000
REPEATS = 5
TARGET_S, TARGET_MB = 2.0, 8.0
_ALL = "html[data-drawn=all]"


def opened(browser, path: Path) -> dict[str, float]:
    """Seconds from navigation to the page's script, load, first plot and last plot."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.as_uri())
    page.wait_for_selector(_ALL, state="attached", timeout=120_000)
    timing = page.evaluate(
        """() => {
            const load = performance.getEntriesByType("navigation")[0];
            const at = (name) => performance.getEntriesByName(name)[0].startTime;
            return { load: load.loadEventEnd, front: at("front drawn"), all: at("all drawn") };
        }"""
    )
    page.close()
    return {name: value / 1e3 for name, value in timing.items()}


def main() -> None:
    """Print one line for each run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="*", type=Path)
    given = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        runs = [Run(path) for path in given] or [
            made_run(Path(scratch) / "run", N_TRIALS, space=space_of(5))
        ]
        browser = launched(playwright)
        for number, run in enumerate(runs):
            path = Path(scratch) / f"{number}.html"
            start = time.perf_counter()
            run.report(path)
            written = time.perf_counter() - start
            times = [opened(browser, path) for _ in range(REPEATS)]
            median = {name: statistics.median(t[name] for t in times) for name in times[0]}
            told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in median.items())
            size = path.stat().st_size / 1e6
            print(
                f"{len(run.trials)} trials: written in {written:.1f} s, {size:.2f} MB "
                f"(target {TARGET_MB:g}); median of {REPEATS}: {told} (target {TARGET_S:g} s)"
            )
        browser.close()


if __name__ == "__main__":
    main()
