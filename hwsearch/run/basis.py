"""What a run chooses by besides its own measurements: files that a resumed run finds again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwsearch.errors import InputError
from hwsearch.files import DIGITS, digest_of_text, sha256_of
from hwsearch.run.setup import Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """A kind of file or folder that a search predicts by.

    Attributes:
        recorded: What ``config.toml`` calls it.
        what: What people call it.
        paths: Finds those that could serve a search, the best one first.
        applied: Returns a setup that predicts by one of them, and one sentence on it; raises
            `InputError` where it cannot be used.
        without: How a search does where it cannot be used.
    """

    recorded: str
    what: str
    paths: Callable[[Setup], Sequence[Path]]
    applied: Callable[[Setup, Path], tuple[Setup, str]]
    without: str

    def offered(self, setup: Setup) -> Setup:
        """Let a new search predict by the best one, if there is one.

        One that cannot be used is left out; the notes say why.
        """
        paths = self.paths(setup)
        if not paths:
            return setup
        try:
            return self.used(setup, paths[0])
        except InputError as error:
            return replace(setup, notes=(*setup.notes, f"{self.without}: {error}"))

    def resumed(self, setup: Setup, folder: Path, recorded: Mapping[str, Any]) -> Setup:
        """Let a resumed search predict by what it began with.

        Args:
            setup: Its parts.
            folder: The run's, for messages.
            recorded: What its settings had resolved to.

        Raises:
            InputError: It began with one that is gone or was changed.
        """
        used = recorded.get(self.recorded)
        if not used:
            return setup
        for path in self.paths(setup):
            if digest_of(path) == used["digest"]:
                return self.used(setup, path)
        raise InputError(
            f"run {str(folder)!r} chooses by {self.what} {used['name']} (digest "
            f"{used['digest']}), which is gone or was changed, so that it would no longer propose "
            f"the same. Put that {self.what.split()[-1]} back, or start a new run"
        )

    def used(self, setup: Setup, path: Path) -> Setup:
        """Return a setup that predicts by one of them, and records it.

        Raises:
            InputError: It cannot be used.
        """
        changed, note = self.applied(setup, path)
        name = path.name if path.is_file() else f"{path.parent.name}/{path.name}"
        used = {"name": name, "digest": digest_of(path)}
        chosen_by = {**changed.chosen_by, self.recorded: used}
        return replace(changed, chosen_by=chosen_by, notes=(*changed.notes, note))


def digest_of(path: Path) -> str:
    """16 digits that identify a file, or a folder by the files in it."""
    if path.is_file():
        return sha256_of(path)[:DIGITS]
    files = sorted(each for each in path.rglob("*") if each.is_file())
    listed = "\n".join(f"{sha256_of(each)} {each.relative_to(path).as_posix()}" for each in files)
    return digest_of_text(listed)
