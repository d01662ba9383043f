"""Progress in one line of a terminal, or one line per group where there is none."""

import sys
import time

_BAR = 24


class Line:
    """Tells how far a kit has come.

    Args:
        total: How many models it has.
        done: How many are measured already.
        size: How many are being measured together.
    """

    def __init__(self, total: int, done: int, size: int) -> None:
        self._total, self._done, self._size = total, done, size
        self._began = time.monotonic()
        self._live = sys.stdout.isatty()

    def rounds(self, n_rounds: int, half_width: float) -> None:
        """Show how many rounds a group has had, and how precise it is by now."""
        precise = "" if half_width != half_width else f", ±{half_width:.1%}"
        self._show(f"{n_rounds} rounds{precise}")

    def profiling(self) -> None:
        """Show that a group is being profiled."""
        self._show("profiling")

    def done(self, failed: int) -> None:
        """Show that a group is measured, and how long the others will take."""
        done = self._done + self._size
        left = (self._total - done) / self._size * (time.monotonic() - self._began)
        text = f"{failed} failed, " if failed else ""
        text += f"about {max(1, round(left / 60))} min left" if done < self._total else "complete"
        self._done = done
        self._show(text, whole=True)

    def _show(self, text: str, *, whole: bool = False) -> None:
        filled = round(_BAR * self._done / self._total)
        line = f"{self._done} of {self._total}  {text}"
        if self._live:
            bar = "#" * filled + "." * (_BAR - filled)
            print(f"\r[{bar}] {line:<48}", end="\n" if whole else "", flush=True)
        elif whole:
            print(line, flush=True)
