"""Imported checkpoints: converted once to safetensors with a card, then loaded by name."""

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import safetensors.torch

from hwsearch.data import user_data
from hwsearch.errors import InputError, unknown
from hwsearch.files import (
    MAX_BYTES,
    parsed_json,
    read_bounded,
    sha256_of,
    staged_folder,
    write_atomic,
)
from hwsearch.supernets.checkpoint_files import read_weights, split_checkpoint
from hwsearch.supernets.interface import Card

SCHEMA = 1
WEIGHTS, CARD = "weights.safetensors", "card.json"
STATISTICS = ("running_mean", "running_var")
_USABLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


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
        return _shelf() / self.name

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
    if not _shelf().is_dir():
        return []
    return sorted(each.name for each in _shelf().iterdir() if _USABLE.fullmatch(each.name))


def read_imported(name: str) -> Imported:
    """Read an imported checkpoint's card; raise InputError if it is absent or damaged."""
    if name not in imported_names():
        raise unknown("imported supernet", name, imported_names())
    try:
        content = parsed_json(read_bounded(_shelf() / name / CARD, MAX_BYTES))
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


def import_checkpoint(path: str | Path, name: str, family: str | None = None) -> Imported:
    """Convert a checkpoint to safetensors with a card, stored under a name; return the card.

    From then on ``hwsearch.load_supernet(name)`` loads it, without the original file.

    Args:
        path: A safetensors file, a torch file of tensors, or the index of shards; ``FILE#NAME``,
            ``FILE#ema`` and ``FILE#raw`` select weights, as in `read_weights`.
        name: Name of the supernet with these weights.
        family: A registered family; None recognises it by the checkpoint's keys and shapes.

    Raises:
        InputError: The name is taken or not usable, the file is no safe checkpoint, or it is of
            no family, or not of the one given; nothing has been written.
    """
    from hwsearch.supernets import zoo

    _check_name(name)
    weights = read_weights(path)
    if family is None:
        family = zoo.recognise(weights.state)
    zoo.load_family(family)  # refuses what is not registered, such as MODULE:FUNCTION
    # Absolute, because a family reads "random:0" as a seed.
    file = split_checkpoint(path)[0].absolute()
    network = zoo.load_supernet(family, str(file.with_name(weights.source))).network
    state = getattr(network, "state", None)
    if not isinstance(state, dict):
        raise InputError(
            f"supernet {family!r} shows no weights (it has no dict 'state'), so that they cannot "
            f"be imported; give --supernet {family} --checkpoint {path} instead"
        )
    with staged_folder(_shelf() / name) as folder:
        # Copies, because safetensors refuses tensors that share memory.
        copies = {key: value.clone().contiguous() for key, value in state.items()}
        write_atomic(folder / WEIGHTS, safetensors.torch.save(copies))
        imported = Imported(
            name=name,
            family=family,
            description=network.card.description,
            source=weights.source,
            source_sha256=sha256_of(file),
            weights_sha256=sha256_of(folder / WEIGHTS),
            tensors=len(state),
            parameters=sum(t.numel() for key, t in state.items() if not key.endswith(STATISTICS)),
            licence=network.card.licence,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        content = {"schema": SCHEMA, **asdict(imported)}
        write_atomic(folder / CARD, json.dumps(content, indent=1) + "\n")
    return imported


def _check_name(name: str) -> None:
    from hwsearch.supernets.zoo import supernet_names

    if not _USABLE.fullmatch(name):
        raise InputError(
            f"name {name!r} is not usable; give up to 64 letters, digits and any of . _ + -, "
            "with a letter or digit first"
        )
    if name in supernet_names():
        raise InputError(f"name {name!r} is that of a registered supernet; give another one")
    if name in imported_names():
        raise InputError(
            f"name {name!r} is taken: a checkpoint was imported into {str(_shelf() / name)!r}. "
            "Give another name, or remove that folder"
        )


def _shelf() -> Path:
    return user_data() / "supernets"


def _damaged(name: str, reason: str) -> InputError:
    return InputError(
        f"imported supernet {name!r} is damaged: {reason}. Remove {str(_shelf() / name)!r} and "
        f"import it again: hwsearch import CHECKPOINT --as {name}"
    )
