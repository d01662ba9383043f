"""The folder of one exported subnet: model, weights, ``infer.py`` and card."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import safetensors.torch
from numpy.typing import NDArray
from torch import nn

from hwsearch.errors import InputError
from hwsearch.files import MAX_BYTES, parsed_json, read_bounded, sha256_of, write_atomic
from hwsearch.models.agreement import TOLERANCES, probe_inputs, torch_outputs
from hwsearch.models.infer import infer_script
from hwsearch.models.onnx_file import precision_of, read_metadata
from hwsearch.models.trace import opset_of
from hwsearch.quantities import exact_quantities
from hwsearch.space import Architecture
from hwsearch.supernets.supernet import Supernet

# Schema 2 added precision, conversion and graph; schema 1 is float32 only.
SCHEMA, READABLE = 2, (1, 2)
MODEL, WEIGHTS, INFER, CARD = "model.onnx", "weights.safetensors", "infer.py", "card.json"
BUFFERS = "hwsearch.buffers"
NO_FILE = "no file"  # in place of the digest of the model that numbers are of
CONVERSION = ("converter", "quantization", "quantization_samples")


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True)
class Exported:
    """One architecture's recalibrated subnet and the ONNX model that is timed, scored and shipped.

    ``original`` is the float32 model that it was converted from; None for a float32 model.
    ``run_in`` is the precision in which its device computes, if that is not the model's.
    """

    arch: Architecture
    subnet: nn.Module
    model: onnx.ModelProto
    original: onnx.ModelProto | None = None
    run_in: str | None = None


def write_files(folder: Path, net: Supernet, exported: Exported) -> None:
    """Write all files but the card."""
    write_atomic(folder / MODEL, exported.model.SerializeToString(deterministic=True))
    # Tied weights are stored under each name, but count once.
    tensors = exported.subnet.state_dict().items()
    state = {name: tensor.clone().contiguous() for name, tensor in tensors}
    metadata = {BUFFERS: json.dumps(sorted(buffer_names(exported.subnet)))}
    write_atomic(folder / WEIGHTS, safetensors.torch.save(state, metadata))
    script = infer_script(net.input_spec(exported.arch), exported.run_in)
    (folder / INFER).write_text(script, encoding="utf-8")


def buffer_names(subnet: nn.Module) -> set[str]:
    """Return the names in the state that are not parameters, or are duplicates of one."""
    learned = {name for name, _ in subnet.named_parameters()}
    return {name for name, _ in subnet.named_buffers()} | (set(subnet.state_dict()) - learned)


def write_card(
    folder: Path,
    net: Supernet,
    exported: Exported,
    measurements: Sequence[Mapping[str, Any]],
    verification: Mapping[str, Any],
    answers: Sequence[NDArray[Any]] | None = None,
    predictions: Sequence[Mapping[str, Any]] = (),
    probability: float | None = None,
) -> dict[str, Any]:
    """Write ``card.json``: the subnet, its exact costs, measurements and predictions.

    ``folder`` has the other three files. ``answers`` are the model's outputs for the probe; None
    takes PyTorch's, for a float32 model. ``predictions`` stand in for missing measurements; these
    and ``verification`` are JSON-ready. ``probability`` is that of belonging on the front.
    """
    model, spec = exported.model, net.input_spec(exported.arch)
    if answers is None:
        answers = torch_outputs(exported.subnet, probe_inputs(spec.inputs), spec.outputs)
    precision, stated = precision_of(model), read_metadata(model)
    digests = {name: sha256_of(folder / name) for name in (MODEL, WEIGHTS, INFER)}
    card = {
        **_card(net, exported.arch),
        "opset": opset_of(model),
        "precision": precision,
        **({"run_in": exported.run_in} if exported.run_in else {}),
        "conversion": {name: stated[name] for name in CONVERSION if name in stated},
        "graph": stated["graph"],
        "unfolded_norms": int(stated["unfolded_norms"]),
        "files": digests,
        "probe": {
            "seed": 0,
            "tolerance": TOLERANCES[exported.run_in or precision],
            "outputs": [answer.tolist() for answer in answers],
        },
        "verification": dict(verification),
        "measurements": {digests[MODEL]: list(measurements)},
    }
    if predictions:
        card["predictions"] = {digests[MODEL]: list(predictions)}
    if probability is not None:
        card["front_probability"] = {digests[MODEL]: probability}
    write_atomic(folder / CARD, json.dumps(card, indent=1) + "\n")
    return card


def write_listed_card(
    folder: Path,
    net: Supernet,
    arch: Architecture,
    measurements: Sequence[Mapping[str, Any]],
    predictions: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Write the card of a candidate without other files, for lack of data to verify a model."""
    card = {
        **_card(net, arch),
        "files": {},
        "measurements": {NO_FILE: list(measurements)},
        "predictions": {NO_FILE: list(predictions)},
    }
    write_atomic(folder / CARD, json.dumps(card, indent=1) + "\n")
    return card


def _card(net: Supernet, arch: Architecture) -> dict[str, Any]:
    """Return what every card says: identity, input and exact costs."""
    one = arch.space.architectures([arch])
    return {
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
        "input": net.input_spec(arch).to_dict(),
        "exact": {name: net.exact(name, one)[0].item() for name in exact_quantities()},
    }


def read_card(folder: Path) -> dict[str, Any]:
    """Read the card of an exported subnet; raise InputError if there is none of this schema."""
    path = folder / CARD
    try:
        card = parsed_json(read_bounded(path, MAX_BYTES))
    except FileNotFoundError as error:
        raise InputError(f"{str(folder)!r} is no exported subnet: it has no {CARD}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error
    if not isinstance(card, dict) or card.get("schema") not in READABLE:
        found = card.get("schema") if isinstance(card, dict) else type(card).__name__
        readable = " and ".join(map(str, READABLE))
        raise InputError(f"{str(path)!r} has schema {found!r}; this version reads {readable}")
    return card
