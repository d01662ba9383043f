"""The folder of one exported subnet: model, weights, ``infer.py`` and card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from hwsearch.errors import EvaluationError, InputError
from hwsearch.files import MAX_BYTES, parsed_json, read_bounded, sha256_of, write_atomic
from hwsearch.models.agreement import TOLERANCES
from hwsearch.models.exported import Exported
from hwsearch.models.infer import infer_script
from hwsearch.models.onnx_file import opset_of, precision_of, read_metadata
from hwsearch.models.quantize import RANGES
from hwsearch.quantities import MACS, PARAMS, exact_quantities
from hwsearch.quantization import FP32
from hwsearch.space import Architecture, Architectures
from hwsearch.supernets.supernet import Supernet

# Schema 2 added precision, conversion and graph; schema 1 is float32 only.
SCHEMA, READABLE = 2, (1, 2)
MODEL, WEIGHTS, INFER, CARD = "model.onnx", "weights.safetensors", "infer.py", "card.json"
NO_FILE = "no file"  # in place of the digest of the model that numbers are of
MOST_VALUES = 10_000  # of one output and sample that a card holds
CONVERSION = ("converter", "quantization", "quantization_samples")


class Probe(NamedTuple):
    """The outputs of a model for the random inputs of a seed; a file is checked by them alone."""

    seed: int
    outputs: Sequence[NDArray[Any]]


def spaced(output: NDArray[Any]) -> NDArray[Any]:
    """Return a small output as it is, of a large one (n, ...) evenly spaced values (n, m)."""
    flat = output.reshape(len(output), -1)
    step = -(-flat.shape[1] // MOST_VALUES)
    return output if step <= 1 else flat[:, ::step]


def write_files(folder: Path, net: Supernet, exported: Exported) -> None:
    """Write all files but the card."""
    write_atomic(folder / MODEL, exported.model.SerializeToString(deterministic=True))
    write_atomic(folder / WEIGHTS, exported.safetensors())
    script = infer_script(net.input_spec(exported.arch), exported.run_in)
    (folder / INFER).write_text(script, encoding="utf-8")


def write_card(
    folder: Path,
    net: Supernet,
    exported: Exported,
    measurements: Sequence[Mapping[str, Any]],
    verification: Mapping[str, Any],
    probe: Probe,
    predictions: Sequence[Mapping[str, Any]] = (),
    probability: float | None = None,
) -> dict[str, Any]:
    """Write ``card.json``: the subnet, its exact costs, measurements and predictions.

    ``folder`` has the other three files. ``probe`` is that of
    `hwsearch.verify.subnet.probe_answers`. ``predictions`` stand in for missing measurements;
    these and ``verification`` are JSON-ready. ``probability`` is that of belonging on the front.
    """
    model = exported.model
    precision, stated = precision_of(model), read_metadata(model)
    digests = {name: sha256_of(folder / name) for name in (MODEL, WEIGHTS, INFER)}
    card = {
        **_card(net, exported.arch),
        "opset": opset_of(model),
        "precision": precision,
        **_blocks(net, exported.arch, precision),
        **_calibration(stated),
        **({"run_in": exported.run_in} if exported.run_in else {}),
        "conversion": {name: stated[name] for name in CONVERSION if name in stated},
        "graph": stated["graph"],
        "unfolded_norms": int(stated["unfolded_norms"]),
        "files": digests,
        "probe": {
            "seed": probe.seed,
            "tolerance": TOLERANCES[exported.run_in or precision],
            "outputs": [spaced(output).tolist() for output in probe.outputs],
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


def _blocks(net: Supernet, arch: Architecture, precision: str) -> dict[str, Any]:
    """Return what a card says of the precision of blocks, where it is chosen or converted."""
    if net.precision is None and precision == FP32:
        return {}
    blocks = net.block_precisions(arch, precision)
    return {"blocks": blocks} if blocks else {}


def _calibration(stated: Mapping[str, str]) -> dict[str, Any]:
    """Return how the activations of a file in int8 got their ranges."""
    if RANGES not in stated:
        return {}
    samples, _, digest = stated["quantization_samples"].partition("@")
    ranges = f"{len(json.loads(stated[RANGES]))} activations, in the metadata of {MODEL}"
    return {"calibration": {"samples": int(samples), "digest": digest, "ranges": ranges}}


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
        "exact": _exact(net, one),
    }


def _exact(net: Supernet, one: Architectures) -> dict[str, Any]:
    """Return the computed quantities of an architecture, except those that its graph hides.

    ONNX does not infer the shapes of every operator, on which the memory depends.
    """
    found = {}
    for name in exact_quantities():
        try:
            found[name] = net.exact(name, one)[0].item()
        except EvaluationError:
            if name in (MACS.name, PARAMS.name):
                raise
    return found


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
