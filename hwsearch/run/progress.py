"""Progress of a run: phases, steps, figures and notes, shown or logged."""

import logging
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)


class Progress(Protocol):
    """Receives phases, steps, figures and notes of a run."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin a phase of ``total`` steps, ``done`` of which were finished earlier."""

    def advance(self, steps: int = 1) -> None:
        """Count finished steps of the phase."""

    def state(self, **figures: float | int | str) -> None:
        """Receive new figures of the search, such as the front's hypervolume."""

    def note(self, text: str) -> None:
        """Receive one line of text."""


class Silent:
    """A `Progress` that only writes to the logger ``hwsearch.run.progress``."""

    _name, _done, _total = "", 0, 0

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Log the phase."""
        self._name, self._done, self._total = name, done, total
        logger.info("%s: %d of %d", name, done, total)

    def advance(self, steps: int = 1) -> None:
        """Count steps."""
        self._done += steps

    def state(self, **figures: float | int | str) -> None:
        """Log the figures."""
        text = "  ".join(f"{name} {value}" for name, value in figures.items())
        logger.info("%s: %d of %d  %s", self._name, self._done, self._total, text)

    def note(self, text: str) -> None:
        """Log the text."""
        logger.info("%s", text)


def steps_of(progress: Progress) -> Callable[[str, int, int], None]:
    """Return a function that shows the steps of a work: what is done, how many of how many.

    A phase begins with every new name of what is done.
    """
    now: dict[str, int] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in now:
            now.clear()
            progress.phase(what, total, done)
        elif done > now[what]:
            progress.advance(done - now[what])
        now[what] = done

    return show
