"""The folder of one exported subnet: model, weights, ``infer.py`` and card."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from safetensors.torch import save_file
from torch import nn

from hwsearch.errors import InputError
from hwsearch.export.infer import infer_script
from hwsearch.export.probe import TOLERANCE, probe_inputs, torch_outputs
from hwsearch.export.trace import OPSET
from hwsearch.files import sha256_of, write_atomic
from hwsearch.space import Architecture
from hwsearch.supernets.base import Supernet

SCHEMA = 1
MODEL, WEIGHTS, INFER, CARD = "model.onnx", "weights.safetensors", "infer.py", "card.json"
BUFFERS = "hwsearch.buffers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One architecture's recalibrated network and its ONNX model, before they are written."""

    arch: Architecture
    subnet: nn.Module
    model: onnx.ModelProto


def write_files(folder: Path, net: Supernet, exported: Exported) -> None:
    """Write everything but the card."""
    write_atomic(folder / MODEL, exported.model.SerializeToString(deterministic=True))
    # Tied weights are stored under each of their names, but were learned once.
    state = {name: tensor.clone() for name, tensor in exported.subnet.state_dict().items()}
    learned = {name for name, _ in exported.subnet.named_parameters()}
    buffers = {name for name, _ in exported.subnet.named_buffers()} | (set(state) - learned)
    contiguous = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(contiguous, folder / WEIGHTS, metadata={BUFFERS: json.dumps(sorted(buffers))})
    (folder / WEIGHTS).chmod(0o644)
    (folder / INFER).write_text(infer_script(net.input_spec(exported.arch)), encoding="utf-8")


def write_card(
    folder: Path,
    net: Supernet,
    exported: Exported,
    measurements: Sequence[Mapping[str, Any]],
    verification: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Write ``card.json``: what the subnet is, its exact costs, and every measured number.

    Args:
        folder: Where the other three files lie.
        net: The supernet.
        exported: What was written.
        measurements: JSON-ready measurements of this architecture.
        verification: JSON-ready results of the checks.
        predictions: JSON-ready numbers that stand in for what was not measured; kept apart.
    """
    arch = exported.arch
    spec = net.input_spec(arch)
    one = arch.space.architectures([arch])
    probe = probe_inputs(spec.inputs)
    card = {
        "schema": SCHEMA,
        "key": arch.key,
        "architecture": arch.mapping,
        "supernet": {
            "name": net.name,
            "checkpoint": net.checkpoint,
            "digest": net.digest,
            "untrained": net.untrained,
            "licence": net.card.licence,
            "source": net.card.source,
        },
        "input": spec.to_dict(),
        "opset": OPSET,
        "exact": {name: int(net.exact(name, one)[0]) for name in ("macs", "params", "bytes")},
        "files": {name: sha256_of(folder / name) for name in (MODEL, WEIGHTS, INFER)},
        "probe": {
            "seed": 0,
            "tolerance": TOLERANCE,
            "outputs": [o.tolist() for o in torch_outputs(exported.subnet, probe)],
        },
        "verification": dict(verification),
        "measurements": {sha256_of(folder / MODEL): list(measurements)},
    }
    if predictions:
        card["predictions"] = {sha256_of(folder / MODEL): list(predictions)}
    write_atomic(folder / CARD, json.dumps(card, indent=1) + "\n")
    return card


def read_card(folder: Path) -> dict[str, Any]:
    """Read the card of an exported subnet.

    Raises:
        InputError: There is none, or it is no card of this schema.
    """
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{str(folder)!r} is no exported subnet: it has no {CARD}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error
    if not isinstance(card, dict) or card.get("schema") != SCHEMA:
        found = card.get("schema") if isinstance(card, dict) else type(card).__name__
        raise InputError(f"{str(path)!r} has schema {found!r}; this version reads {SCHEMA}")
    return card
