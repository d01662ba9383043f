"""Import of a checkpoint: it is converted once to safetensors with a card, under a name."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import safetensors.torch

from hwsearch.errors import InputError
from hwsearch.files import sha256_of, staged_folder, write_atomic
from hwsearch.supernets import zoo
from hwsearch.supernets.checkpoint_files import read_weights, split_checkpoint
from hwsearch.supernets.imported import (
    CARD,
    SCHEMA,
    USABLE,
    WEIGHTS,
    Imported,
    imported_names,
    shelf,
)

STATISTICS = ("running_mean", "running_var")


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
    with staged_folder(shelf() / name) as folder:
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
    if not USABLE.fullmatch(name):
        raise InputError(
            f"name {name!r} is not usable; give up to 64 letters, digits and any of . _ + -, "
            "with a letter or digit first"
        )
    if name in zoo.supernet_names():
        raise InputError(f"name {name!r} is that of a registered supernet; give another one")
    if name in imported_names():
        raise InputError(
            f"name {name!r} is taken: a checkpoint was imported into {str(shelf() / name)!r}. "
            "Give another name, or remove that folder"
        )
