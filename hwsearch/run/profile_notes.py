"""What an unfinished latency table has measured so far, in a file beside it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hwsearch.errors import InputError
from hwsearch.files import write_atomic
from hwsearch.tables import SubnetLatency

FORMAT = "hwsearch unfinished latency table 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One measured subnet.

    Attributes:
        subnet: Its latency.
        blocks_ms: Profiled time of its blocks by name; None where it was not profiled.
        nodes: Number of nodes of each block.
    """

    subnet: SubnetLatency
    blocks_ms: Mapping[str, float] | None = None
    nodes: Mapping[str, int] | None = None


class Notes:
    """Measured subnets by the key of their architecture; every `add` is on disk at once.

    Args:
        path: Of the file; it need not exist.
        identity: What must be the same for measurements to be of one table, by name.

    Raises:
        InputError: The file is of something else, or cannot be read.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path, self._identity = path, dict(identity)
        self._notes: dict[str, Note] = {}
        if path.is_file():
            self._read()

    def __contains__(self, key: object) -> bool:
        return key in self._notes

    def __getitem__(self, key: str) -> Note:
        return self._notes[key]

    def add(self, notes: Mapping[str, Note]) -> None:
        """Keep more of them."""
        self._notes.update(notes)
        lines = [json.dumps({"key": key, **asdict(note)}) for key, note in self._notes.items()]
        head = json.dumps({"format": FORMAT, **self._identity}, sort_keys=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, "\n".join([head, *lines]) + "\n")

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            head, *lines = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
            self._notes = dict(map(_note, lines))
            found = {name: head[name] for name in ("format", *self._identity)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{str(self.path)!r} does not hold what 'hwsearch profile' measured so far "
                f"({error}); delete it to begin anew"
            ) from error
        for name, value in {"format": FORMAT, **self._identity}.items():
            if found[name] != value:
                raise InputError(
                    f"{str(self.path)!r} holds measurements of another {name}: {found[name]!r}, "
                    f"not {value!r}; delete it to begin anew, or give another --out"
                )


def _note(line: Mapping[str, Any]) -> tuple[str, Note]:
    subnet = SubnetLatency(**line["subnet"])
    return line["key"], Note(subnet=subnet, blocks_ms=line["blocks_ms"], nodes=line["nodes"])


def chosen_notes(notes: Notes, keys: Iterable[str]) -> list[tuple[str, Note]]:
    """Return the notes of some keys, as far as there are any, in the order of the keys."""
    return [(key, notes[key]) for key in keys if key in notes]
