"""Sources of weights besides files of users: what ships with a supernet, ``random:SEED``."""

import json
from importlib.resources import files
from pathlib import Path

from hwsearch.errors import InputError
from hwsearch.supernets.interface import Card

RANDOM = "random:"


def bundled_file(supernet: str, name: str) -> Path:
    """Return the path of a file that ships with a supernet."""
    return Path(str(files("hwsearch.supernets"))) / "bundled" / supernet / name


def bundled_card(supernet: str) -> Card:
    """Read the card that ships with a supernet."""
    facts = json.loads(bundled_file(supernet, "card.json").read_text(encoding="utf-8"))
    named = {
        field: facts.pop(field) for field in ("name", "description", "licence", "source", "data")
    }
    return Card(**named, facts=facts)


def is_random(checkpoint: str | None) -> bool:
    """Return whether a checkpoint means seeded random weights."""
    return checkpoint is not None and checkpoint.startswith(RANDOM)


def seed_of(checkpoint: str | None) -> int | None:
    """Return the seed in ``"random:SEED"``, or None for a checkpoint."""
    if checkpoint is None or not is_random(checkpoint):
        return None
    seed = checkpoint.removeprefix(RANDOM)
    if not seed.isdecimal():
        raise InputError(f"checkpoint {checkpoint!r}: write random:SEED with an integer, random:0")
    return int(seed)
