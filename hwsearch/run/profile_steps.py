"""Measuring and profiling whole subnets a few at a time, with notes of all that is done."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwsearch.devices import Device, Latency, MeasureSettings
from hwsearch.devices.base import Profile
from hwsearch.errors import DeviceError
from hwsearch.models.model import to_onnx
from hwsearch.prediction.block_times import split_nodes
from hwsearch.run.profile_notes import Note, Notes
from hwsearch.run.progress import Progress
from hwsearch.space import Architecture, Architectures
from hwsearch.supernets.base import Supernet
from hwsearch.tables import Purpose, SubnetLatency

SETTINGS = MeasureSettings(seconds_per_model=2.0)
_TOGETHER = 8
_RUNS = 20


def measure_subnets(
    net: Supernet,
    device: Device,
    archs: Architectures,
    notes: Notes,
    *,
    purpose: Purpose,
    seed: int,
    progress: Progress,
) -> None:
    """Measure those subnets of which there is no note yet, a few at a time.

    Args:
        net: The supernet.
        device: Where they are measured, and profiled where they are to cover block specs.
        archs: The subnets.
        notes: Receives each that could be measured.
        purpose: What they are measured for.
        seed: Draws the order of turns.
        progress: Told of every few, and why one could not be measured.
    """
    todo = [arch for arch in archs if arch.key not in notes]
    for start in range(0, len(todo), _TOGETHER):
        part = todo[start : start + _TOGETHER]
        with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
            models = _models(net, part, Path(scratch), progress)
            latencies = (
                device.measure(models, seed=seed + start, settings=SETTINGS) if models else {}
            )
            profiles = _profiled(device, models, progress) if purpose == "cover" else {}
        found: dict[str, Note] = {}
        for arch in part:
            latency = latencies.get(arch.key)
            if isinstance(latency, Latency):
                found[arch.key] = _note(net, arch, latency, profiles.get(arch.key), purpose)
            elif latency is not None:
                progress.note(f"{arch.key} cannot be measured: {latency}")
        notes.add(found)
        progress.advance(len(part))
        progress.state()


def _models(
    net: Supernet, archs: Sequence[Architecture], scratch: Path, progress: Progress
) -> dict[str, Path]:
    models = {}
    for arch in archs:
        try:
            model = to_onnx(net, arch, net.subnet(arch))
        except Exception as error:  # noqa: BLE001 - a family is a stranger's code
            progress.note(f"{arch.key} cannot be built: {error}")
            continue
        models[arch.key] = scratch / f"{arch.key}.onnx"
        models[arch.key].write_bytes(model.SerializeToString(deterministic=True))
    return models


def _profiled(
    device: Device, models: Mapping[str, Path], progress: Progress
) -> dict[str, Profile]:
    if not models or not hasattr(device, "profile"):
        return {}
    found: Mapping[str, Profile | DeviceError] = device.profile(models, runs=_RUNS)
    for key, profile in found.items():
        if not isinstance(profile, Profile):
            progress.note(f"{key} cannot be profiled: {profile}")
    return {key: each for key, each in found.items() if isinstance(each, Profile)}


def _note(
    net: Supernet, arch: Architecture, latency: Latency, profile: Profile | None, purpose: Purpose
) -> Note:
    names = ("latency_ms", "low_ms", "high_ms", "ratio", "ratio_low", "ratio_high")
    subnet = SubnetLatency(
        architecture=arch.mapping,
        purpose=purpose,
        **{name: getattr(latency, name) for name in names},
    )
    if profile is None:
        return Note(subnet=subnet)
    blocks = [block.name for block in net.blocks(arch) or ()]
    blocks_ms, nodes = split_nodes(profile.nodes_ms, blocks)
    return Note(subnet=subnet, blocks_ms=blocks_ms, nodes=nodes)
