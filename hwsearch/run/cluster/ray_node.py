"""What runs on the nodes of a Ray cluster; it does not import Ray itself."""

import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices import Device, MeasureSettings, load_device
from hwsearch.devices.base import Fingerprint
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.frames import Arrays, Header
from hwsearch.errors import HwsearchError
from hwsearch.run.cluster.remote_device import Latencies
from hwsearch.run.cluster.worker_context import Workplace, device_like, settings_of, stopped
from hwsearch.run.setup import Setup
from hwsearch.supernets.base import is_random
from hwsearch.supernets.imported import imported_names, load_imported

_PLACES: dict[str, Workplace] = {}  # one at most: that of the search at hand
_DEVICES: dict[str, Device] = {}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parcel:
    """What a search is made of, as it travels once to every node.

    Attributes:
        name: Of the search; another one has another.
        settings: See `hwsearch.run.cluster.worker_context.settings_of`.
        weights: The bytes of a checkpoint file; None where the nodes have the weights.
        suffix: Of that file.
    """

    name: str
    settings: Header
    weights: NDArray[Any] | None = None
    suffix: str = ""


def parcel_of(setup: Setup) -> Parcel:
    """Return what nodes need to know of a search, with weights that they cannot have."""
    settings, config = settings_of(setup), setup.config
    file: Path | None = None
    if config.checkpoint is not None and not is_random(config.checkpoint):
        file = Path(config.checkpoint)
    elif config.supernet in imported_names():
        family, file, _ = load_imported(config.supernet)
        settings["config"]["supernet"] = family
    weights = None if file is None or not file.is_file() else np.fromfile(file, np.uint8)
    return Parcel(
        name=uuid.uuid4().hex,
        settings=settings,
        weights=weights,
        suffix="" if file is None else file.suffix,
    )


def do(parcel: Parcel, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
    """Do a piece of work; see `Workplace.do`."""
    try:
        place = _place(parcel)
    except HwsearchError as error:
        return stopped(error), []
    return place.do(header, arrays)


def describe(spec: str) -> Header:
    """Return how a device of this node is written down, and its fingerprint."""
    try:
        device = load_device(spec)
        fingerprint = device.fingerprint()
    except HwsearchError as error:
        return stopped(error)
    names = {"spec": device.spec, "slug": device.slug, "precision": device.precision}
    return {**names, "fingerprint": fingerprint}


def measure(
    spec: str,
    fingerprint: Fingerprint,
    models: Mapping[str, NDArray[Any]],
    seed: int,
    settings: MeasureSettings,
) -> tuple[Header, Latencies]:
    """Time models, given as the bytes of their files, by name; see `Device.measure`."""
    try:
        known = f"{spec} {digest(fingerprint)}"
        if known not in _DEVICES:
            _DEVICES[known] = device_like(spec, fingerprint)
        with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
            files = {name: Path(scratch) / f"{i}.onnx" for i, name in enumerate(models)}
            for name, path in files.items():
                path.write_bytes(models[name].tobytes())
            return {}, _DEVICES[known].measure(files, seed=seed, settings=settings)
    except HwsearchError as error:
        return stopped(error), {}


def _place(parcel: Parcel) -> Workplace:
    """Return where this process works on a search, made when it is first asked for."""
    if parcel.name not in _PLACES:
        for name in list(_PLACES):
            _PLACES.pop(name).close()
        with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
            weights = None
            if parcel.weights is not None:
                weights = Path(scratch) / f"weights{parcel.suffix}"
                weights.write_bytes(parcel.weights.tobytes())
            _PLACES[parcel.name] = Workplace(parcel.settings, weights)
    return _PLACES[parcel.name]
