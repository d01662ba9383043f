"""Exported subnets of a run: verified again, copied, loaded as networks."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwsearch import devices
from hwsearch.accuracy.task import NO_DATA
from hwsearch.errors import InputError, VerificationError
from hwsearch.files import staged_folder
from hwsearch.models.artifact import read_card
from hwsearch.run.checksums import damaged_files
from hwsearch.run.config import FILE as CONFIG
from hwsearch.run.config import RunConfig
from hwsearch.run.outcome import SUBNETS
from hwsearch.run.setup import refuse_file
from hwsearch.supernets.checkpoints import is_random
from hwsearch.supernets.supernet import Supernet
from hwsearch.verify.subnet import verify_artifact

if TYPE_CHECKING:
    from torch import nn


def check_exported(folder: Path, config: RunConfig) -> None:
    """Refuse a run without data, whose candidates have no models."""
    if config.data == NO_DATA:
        raise InputError(
            f"run {str(folder)!r} was searched without data, so that its candidates have a "
            "card.json and no model.onnx: batch statistics and the check of a model need images. "
            f"With images: {with_images(folder, config)}"
        )


def with_images(folder: Path, config: RunConfig) -> str:
    """Return the command that makes a front of the candidates of a search without data."""
    checkpoint = "FILE" if is_random(config.checkpoint) else config.checkpoint
    weights = f" --checkpoint {checkpoint}" if checkpoint else ""
    wanted = "".join(f" --objective {name}" for name in config.objectives)
    return (
        f"hwsearch search --supernet {config.supernet}{weights} --device {config.device}{wanted} "
        f"--data imagefolder:PATH --warm-start {folder}"
    )


def export_subnets(folders: Sequence[Path], device_spec: str, to: Path | None) -> list[Path]:
    """Verify subnets again, copy each into a folder in ``to`` if given, and return their folders.

    Raises:
        InputError: The target has such a folder already.
        VerificationError: A file is damaged.
    """
    targets = [to / folder.name if to else folder for folder in folders]
    if to:
        refuse_file("target", to)
    taken = [str(target) for target in targets if to and target.exists()]
    if taken:
        raise InputError(f"{taken[0]!r} exists already; give another folder")
    device = devices.load_device(device_spec)
    try:
        # All before the first copy, so that a damaged one prevents a partial export.
        for folder in folders:
            verify_artifact(folder, device)
    finally:
        device.close()
    for folder, target in zip(folders, targets, strict=True) if to else ():
        with staged_folder(target) as staged:
            for path in folder.rglob("*"):  # contents alone: the original may be read-only
                copy = staged / path.relative_to(folder)
                if path.is_dir():
                    copy.mkdir(parents=True, exist_ok=True)
                else:
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, copy)
    return targets


def verify_run(
    folder: Path, device_spec: str, keys: Callable[[], Sequence[str]]
) -> dict[str, str | None]:
    """Check the subnets of a run from their files alone, and its files by their checksums.

    ``keys`` reads the subnets' keys from the run's table. Returns key -> problem or None, and name
    -> problem of other files.
    """
    damaged = damaged_files(folder)
    of_subnets = {name: name.split("/") for name in damaged if name.startswith(f"{SUBNETS}/")}
    found: dict[str, str | None] = {n: why for n, why in damaged.items() if n not in of_subnets}
    if found:
        # The table that names the subnets, or the settings, may be damaged.
        named = sorted(path.name for path in (folder / SUBNETS).glob("[!.]*"))
    else:
        named = list(keys())
    if CONFIG in found:
        return found
    found |= verify_subnets([folder / SUBNETS / key for key in named], device_spec)
    for name, (_, key, *file) in of_subnets.items():
        found[key] = found.get(key) or f"{'/'.join(file)}: {damaged[name]}"
    return found


def verify_subnets(folders: Sequence[Path], device_spec: str) -> dict[str, str | None]:
    """Check subnets from their files alone; return key -> problem or None."""
    device = devices.load_device(device_spec)
    found: dict[str, str | None] = {}
    try:
        for folder in folders:
            try:
                verify_artifact(folder, device)
                found[folder.name] = None
            except (VerificationError, InputError) as error:
                found[folder.name] = str(error)
    finally:
        device.close()
    return found


def load_subnet(folder: Path, net: Supernet) -> "nn.Module":
    """Return an exported subnet as a network, with its weights and batch statistics."""
    from safetensors.torch import load_file

    network = net.subnet(net.space.architectures([read_card(folder)["architecture"]])[0])
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    return network.eval()
