"""Imported checkpoints: in safetensors with a card, loaded by name."""

import re
from dataclasses import dataclass
from pathlib import Path

from hwsearch.data import user_data
from hwsearch.errors import InputError, unknown
from hwsearch.files import MAX_BYTES, parsed_json, read_bounded, sha256_of
from hwsearch.supernets.interface import Card

SCHEMA = 1
WEIGHTS, CARD = "weights.safetensors", "card.json"
USABLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")  # as a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """An imported checkpoint as its ``card.json`` describes it.

    ``source`` is the name of the imported file, ``parameters`` the number of parameters without
    batch statistics; ``licence`` is ``"unknown"`` unless the family knows; ``date`` is in UTC.
    """

    name: str
    family: str
    description: str
    source: str
    source_sha256: str
    weights_sha256: str
    tensors: int
    parameters: int
    licence: str
    date: str

    @property
    def folder(self) -> Path:
        """Return the folder of its weights and card."""
        return shelf() / self.name

    def card(self) -> Card:
        """Return the card of a supernet with these weights."""
        return Card(
            name=self.name,
            description=self.description,
            licence=self.licence,
            source=f"file {self.source}, SHA-256 {self.source_sha256}, imported {self.date}",
            facts={"family": self.family, "tensors": self.tensors, "parameters": self.parameters},
        )


def imported_names() -> list[str]:
    """Return the sorted names of all imported checkpoints, including damaged ones."""
    if not shelf().is_dir():
        return []
    return sorted(each.name for each in shelf().iterdir() if USABLE.fullmatch(each.name))


def read_imported(name: str) -> Imported:
    """Read an imported checkpoint's card; raise InputError if it is absent or damaged."""
    if name not in imported_names():
        raise unknown("imported supernet", name, imported_names())
    try:
        content = parsed_json(read_bounded(shelf() / name / CARD, MAX_BYTES))
        schema = content.pop("schema")
        found = Imported(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(name, f"{CARD} cannot be read ({type(error).__name__}: {error})") from error
    if schema != SCHEMA:
        raise _damaged(name, f"{CARD} has schema {schema!r}, this version reads {SCHEMA}")
    if found.name != name:
        raise _damaged(name, f"{CARD} is that of {found.name!r}")
    return found


def imported_rows() -> list[dict[str, str | None]]:
    """Return name, summary, family and source of imports; the summary of a damaged one says so."""
    rows: list[dict[str, str | None]] = []
    for name in imported_names():
        try:
            found = read_imported(name)
        except InputError as error:
            rows.append({"name": name, "summary": str(error), "family": None, "source": None})
            continue
        known = {"family": found.family, "source": found.source}
        rows.append({"name": name, "summary": found.description, **known})
    return rows


def load_imported(name: str) -> tuple[str, Path, Card]:
    """Return family, weights and card; raise InputError for an absent or damaged checkpoint."""
    found = read_imported(name)
    weights = found.folder / WEIGHTS
    if not weights.is_file():
        raise _damaged(name, f"{WEIGHTS} is missing")
    if sha256_of(weights) != found.weights_sha256:
        raise _damaged(name, f"{WEIGHTS} is not the file that its card describes")
    return found.family, weights, found.card()


def shelf() -> Path:
    """Return the folder of imported checkpoints, which has a folder of each."""
    return user_data() / "supernets"


def _damaged(name: str, reason: str) -> InputError:
    return InputError(
        f"imported supernet {name!r} is damaged: {reason}. Remove {str(shelf() / name)!r} and "
        f"import it again: hwsearch import CHECKPOINT --as {name}"
    )
