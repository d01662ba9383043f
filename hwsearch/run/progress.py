"""Progress of a run: phases, steps, figures and notes, shown or logged."""

import logging
from typing import Protocol

logger = logging.getLogger(__name__)


class Progress(Protocol):
    """Hears of phases, steps and notes; a terminal shows them, a script may ignore them."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """A phase of ``total`` steps begins, ``done`` of them earlier."""

    def advance(self, steps: int = 1) -> None:
        """So many steps of the phase are finished."""

    def state(self, **figures: float | int | str) -> None:
        """Figures of the search changed, such as the front's hypervolume."""

    def note(self, text: str) -> None:
        """Something worth a line."""


class Silent:
    """A `Progress` that shows nothing; the logger ``hwsearch.run.progress`` hears of it all."""

    def __init__(self) -> None:
        self._name, self._done, self._total = "", 0, 0

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Log it."""
        self._name, self._done, self._total = name, done, total
        logger.info("%s: %d of %d", name, done, total)

    def advance(self, steps: int = 1) -> None:
        """Count."""
        self._done += steps

    def state(self, **figures: float | int | str) -> None:
        """Log them."""
        text = "  ".join(f"{name} {value}" for name, value in figures.items())
        logger.info("%s: %d of %d  %s", self._name, self._done, self._total, text)

    def note(self, text: str) -> None:
        """Log it."""
        logger.info("%s", text)
