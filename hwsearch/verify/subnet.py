"""Verification of exported subnets: against their origin at export, from files alone later.

The origin is the PyTorch network, or the trained model that a subnet was sliced from.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from hwsearch.accuracy.answer_metrics import mean_divergence
from hwsearch.devices.base import Device
from hwsearch.errors import HwsearchError, VerificationError
from hwsearch.files import sha256_of
from hwsearch.models.agreement import (
    TOLERANCE,
    TOLERANCES,
    count_macs,
    count_params,
    disagreement,
    labels_agree,
    probe_inputs,
)
from hwsearch.models.artifact import CARD, INFER, MODEL, WEIGHTS, Probe, read_card, spaced
from hwsearch.models.export import SLICED
from hwsearch.models.exported import BUFFERS, Exported, ExportedSlice
from hwsearch.models.onnx_file import external_tensors, precision_of, read_metadata, read_model
from hwsearch.supernets.interface import TensorSpec
from hwsearch.verify.recipe import check_blocks, check_recipe
from hwsearch.verify.running import on_cpu, run_file, run_original
from hwsearch.verify.slicing import verify_slicing

INFER_TIMEOUT_S = 120
PROBES = 10  # tried, until one has finite answers


def verify_export(
    folder: Path,
    exported: Exported,
    promised: Mapping[str, int],
    samples: dict[str, NDArray[Any]],
    device: Device,
) -> dict[str, Any]:
    """Verify new files against what they were exported from.

    On ``samples``, real inputs by name, preprocessed, a float32 model has to agree with its
    PyTorch network; of a subnet that is sliced from a given model, the slice before repair has to
    agree with the given model with zeros in the weights that read what was removed. A model of
    another precision was converted from a float32 model that has to agree; the difference of the
    two is recorded. So is that of a float32 model to itself, run by a device that computes in
    another precision. ``promised`` are the architecture's ``macs`` and ``params``. Return the
    checks and their results, JSON-serialisable; raise VerificationError for the first one that
    fails.
    """
    _check_samples(samples)
    _check_costs(folder, _checked_model(folder / MODEL), promised)
    if _is_float32(exported):
        ours = run_file(device, folder / MODEL, samples)
    else:
        ours = run_original(device, exported.float32, samples)
    stated_input = json.loads(read_metadata(exported.model)["input"])
    scores = _class_scores(ours, stated_input)
    stated = {"samples": len(next(iter(samples.values()))), "onnx": onnx.__version__}
    reference = exported.module_outputs(samples, stated_input["outputs"])
    if reference is not None:
        stated |= _agreeing(ours, reference, scores)
    elif isinstance(exported, ExportedSlice):
        if not all(np.isfinite(output).all() for output in ours):
            raise VerificationError(f"{MODEL} answers NaN or infinite numbers on real samples")
        stated |= verify_slicing(exported, samples, device)
    if _is_float32(exported):
        return stated
    shipped = run_file(device, folder / MODEL, samples)
    return stated | _compared(shipped, ours, scores)


def _agreeing(
    ours: Sequence[NDArray[Any]], reference: Sequence[NDArray[Any]], scores: Sequence[int]
) -> dict[str, float]:
    """Return how far outputs are from PyTorch's; refuse other labels, and a large difference."""
    difference = disagreement(ours, reference)
    _check_tolerance(difference, "real samples")
    for at in scores:
        agreeing = int(labels_agree(ours[at], reference[at]).sum())
        if agreeing < len(reference[at]):
            raise VerificationError(
                f"ONNX and PyTorch pick another label for {len(reference[at]) - agreeing} of "
                f"{len(reference[at])} samples"
            )
    return {"disagreement": difference, "tolerance": TOLERANCE}


def probe_answers(folder: Path, exported: Exported, device: Device) -> Probe:
    """Return the probe of a card.

    For float32 the outputs are PyTorch's where the subnet is a module, else those of ``ort-cpu``;
    for another precision they are the device's. A model without limits on its inputs may answer
    NaN for random ones, and then another seed is tried.
    """
    stated = json.loads(read_metadata(exported.model)["input"])
    for seed in range(PROBES):
        inputs = _probe(stated, seed)
        answers = _answers(folder, exported, device, inputs, stated["outputs"])
        if all(np.isfinite(answer).all() for answer in answers):
            return Probe(seed, answers)
    raise VerificationError(f"{MODEL} answers NaN or infinite numbers for {PROBES} random inputs")


def _answers(
    folder: Path,
    exported: Exported,
    device: Device,
    inputs: dict[str, NDArray[Any]],
    names: Sequence[str],
) -> list[NDArray[Any]]:
    if not _is_float32(exported):
        return list(run_file(device, folder / MODEL, inputs))
    answers = exported.module_outputs(inputs, names)
    if answers is not None:
        return answers
    with on_cpu(device) as runner:
        return list(run_file(runner, folder / MODEL, inputs))


def verify_artifact(folder: Path, device: Device) -> dict[str, Any]:
    """Verify an exported subnet from its files alone, and return its card.

    The files must have the checksums of the card. The model must pass the ONNX checker with full
    shape inference, have the card's architecture, precision, MACs and parameters, and reproduce
    the card's probe outputs. Where it is quantised has to follow from the blocks that the card
    calls int8, and the scales of activations from the ranges that the model states. ``infer.py``
    must run. Raise VerificationError for a failing check, InputError where the folder is no
    exported subnet.
    """
    card = read_card(folder)
    try:
        _check_artifact(folder, card, device)
    except HwsearchError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise VerificationError(f"{CARD} is incomplete: {type(error).__name__} {error}") from error
    return card


def _check_artifact(folder: Path, card: Mapping[str, Any], device: Device) -> None:
    for name in (MODEL, WEIGHTS, INFER):
        if not (folder / name).is_file():
            raise VerificationError(f"{name} is missing")
        if sha256_of(folder / name) != card["files"].get(name):
            raise VerificationError(f"{name} is not the file that the card describes")
    model = _checked_model(folder / MODEL)
    stated, precision = read_metadata(model), precision_of(model)
    if stated.get("key") != card["key"]:
        raise VerificationError(f"{MODEL} says key {stated.get('key')}, the card {card['key']}")
    architecture, inputs = (json.loads(stated.get(n, "null")) for n in ("architecture", "input"))
    for found, expected, what in (
        (architecture, card["architecture"], "architectures"),
        (inputs, card["input"], "inputs or preprocessing"),
        (stated.get("checkpoint"), card["supernet"]["digest"], "weights of the supernet"),
    ):
        if found != expected:
            raise VerificationError(f"{MODEL} and the card say different {what}")
    if precision != _precision(card):
        raise VerificationError(f"{MODEL} is {precision}, and the card says {_precision(card)}")
    check_blocks(card)
    check_recipe(model, card.get("blocks") or {})
    if card["files"][MODEL] not in card["measurements"]:
        raise VerificationError(f"the card's measurements are not of this {MODEL}")
    _check_costs(folder, model, card["exact"])
    check_probe(folder, card, device)
    run_infer(folder)


def check_probe(folder: Path, card: Mapping[str, Any], device: Device) -> float:
    """Return the difference of probe outputs from the card's; refuse one beyond the tolerance."""
    inputs = _probe(card["input"], card["probe"]["seed"])
    expected = [np.asarray(output, np.float32) for output in card["probe"]["outputs"]]
    answers = [spaced(output) for output in run_file(device, folder / MODEL, inputs)]
    difference = disagreement(answers, expected)
    precision = _precision(card)
    answered = "PyTorch" if precision == "fp32" else f"the same {precision} file before"
    if precision == "fp32" and card.get("graph") == SLICED:
        answered = "the same file in ONNX Runtime before"
    if run_in := card.get("run_in"):
        answered = f"the same file in {run_in} before"
    _check_tolerance(difference, "the card's probe", answered, TOLERANCES[run_in or precision])
    return difference


def run_infer(folder: Path) -> str:
    """Return the output of ``infer.py`` without arguments; raise VerificationError if it fails."""
    with tempfile.TemporaryDirectory() as elsewhere:
        command = [sys.executable, str((folder / INFER).resolve())]
        try:
            done = subprocess.run(
                command,
                cwd=elsewhere,
                capture_output=True,
                text=True,
                timeout=INFER_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise VerificationError(f"{INFER} took over {INFER_TIMEOUT_S} s") from error
    if done.returncode or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise VerificationError(f"{INFER} failed: {last}")
    return done.stdout


def _checked_model(path: Path) -> onnx.ModelProto:
    """Return a model that passes the checker, with shape inference.

    The given model of a slice may have operators whose shapes ONNX does not infer.
    """
    try:
        model = read_model(path)
        try:
            onnx.checker.check_model(model, full_check=True)
        except onnx.shape_inference.InferenceError:
            if not _is_sliced(model):
                raise
            onnx.checker.check_model(model)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise VerificationError(f"{path.name} fails the ONNX checker: {reason}") from error
    external = next(external_tensors(model), None)
    if external is not None:
        raise VerificationError(f"{path.name} keeps {external.name!r} in another file")
    return model


def _check_costs(folder: Path, model: onnx.ModelProto, promised: Mapping[str, int]) -> None:
    try:
        with safe_open(folder / WEIGHTS, framework="np") as weights:
            buffers = set(json.loads((weights.metadata() or {}).get(BUFFERS, "[]")))
            sizes = {
                name: int(np.prod(weights.get_slice(name).get_shape(), dtype=np.int64))
                for name in weights.keys()  # noqa: SIM118 - a file handle, not a mapping
            }
    except (SafetensorError, OSError) as error:
        raise VerificationError(f"{WEIGHTS} cannot be read: {error}") from error
    learned = sum(size for name, size in sizes.items() if name not in buffers)
    folded = int(read_metadata(model).get("params_folded", 0))
    counted = {
        f"parameters in {WEIGHTS}": (learned, promised["params"]),
        f"parameters in {MODEL}": (count_params(model, buffers) + folded, promised["params"]),
    }
    try:
        counted[f"MACs of {MODEL}"] = count_macs(model), promised["macs"]
    except VerificationError:
        if not _is_sliced(model):
            raise
    for what, (found, expected) in counted.items():
        if found != expected:
            raise VerificationError(f"{what}: {found:,} counted, {expected:,} promised")


def _is_sliced(model: onnx.ModelProto) -> bool:
    return read_metadata(model).get("graph") == SLICED


def _check_samples(samples: Mapping[str, NDArray[Any]]) -> None:
    for name, array in samples.items():
        whole = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if not whole.all():
            raise VerificationError(
                f"sample {int(whole.argmin())} of input {name!r} has NaN or infinite values after "
                "preprocessing; remove or repair that sample of the data"
            )


def _class_scores(outputs: Sequence[NDArray[Any]], stated: Mapping[str, Any]) -> list[int]:
    """Return the positions of outputs with class scores: of any width if no class is declared."""
    widths = {at: each.shape[1] for at, each in enumerate(outputs) if each.ndim == 2}
    if classes := len(stated["classes"]):
        return [at for at, width in widths.items() if width == classes]
    return [*widths] if len(outputs) == 1 else []


def _compared(
    shipped: Sequence[NDArray[Any]], original: Sequence[NDArray[Any]], scores: Sequence[int]
) -> dict[str, float]:
    """Return the difference of a converted model and its original on the same samples."""
    difference = disagreement(shipped, original)
    if not np.isfinite(difference):
        raise VerificationError(
            f"{MODEL} answers NaN or infinite numbers on real samples, and its float32 original "
            "does not"
        )
    stated = {"difference_to_fp32": difference}
    if scores:
        same = [shipped[at].argmax(axis=1) == original[at].argmax(axis=1) for at in scores]
        stated["labels_as_fp32"] = float(np.all(same, axis=0).mean())
        apart = (mean_divergence(shipped[at], original[at]) for at in scores)
        stated["kl_to_fp32"] = max(apart)
    return stated


def _check_tolerance(
    difference: float, on: str, other: str = "PyTorch", tolerance: float = TOLERANCE
) -> None:
    if not difference <= tolerance:
        raise VerificationError(
            f"ONNX and {other} differ by {difference:.2g} on {on}; {tolerance:g} is allowed"
        )


def _is_float32(exported: Exported) -> bool:
    """Return whether a model is float32 and computed in it."""
    return exported.original is None and exported.run_in is None


def _precision(card: Mapping[str, Any]) -> str:
    return str(card.get("precision", "fp32"))  # a card of schema 1 says none


def _probe(stated: Mapping[str, Any], seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return the probe of the inputs that a card or a model states."""
    tensors = [TensorSpec(**each | {"shape": tuple(each["shape"])}) for each in stated["inputs"]]
    return probe_inputs(tensors, seed)
