"""Progress as one line of a terminal, or one line per group without a terminal."""

import sys
import time

_BAR = 24


class ProgressLine:
    """Prints the progress of a kit; see `hwsearch.run.progress.Progress`."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin with ``done`` of ``total`` models measured."""
        del name
        self._total, self._done, self._before = total, done, done
        self._began = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Print the number of measured models and the estimated remaining time."""
        self._done += steps
        elapsed = time.monotonic() - self._began
        left_s = (self._total - self._done) * elapsed / (self._done - self._before)
        minutes = max(1, round(left_s / 60))
        text = f"about {minutes} min left" if self._done < self._total else "complete"
        self._show(text, end="\n")

    def state(self, **figures: float | int | str) -> None:
        """Print the figures of the group that is being measured."""
        self._show(", ".join(f"{name} {value}" for name, value in figures.items()), end="")

    def note(self, text: str) -> None:
        """Print nothing: the kit lists failures at the end."""

    def _show(self, text: str, end: str) -> None:
        filled = round(_BAR * self._done / self._total)
        line = f"{self._done} of {self._total}  {text}"
        if sys.stdout.isatty():
            bar = "#" * filled + "." * (_BAR - filled)
            print(f"\r[{bar}] {line:<48}", end=end, flush=True)
        elif end:
            print(line, flush=True)
