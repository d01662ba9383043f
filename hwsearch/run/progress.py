"""What a run tells whoever watches it."""

from typing import Protocol


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
    """A `Progress` that shows nothing."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Show nothing."""

    def advance(self, steps: int = 1) -> None:
        """Show nothing."""

    def state(self, **figures: float | int | str) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""
