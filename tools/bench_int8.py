"""Print how far static int8 files are from their float32 ones, by how they are calibrated.

    python tools/bench_int8.py                         subnets of the bundled supernet
    python tools/bench_int8.py --model effl0.onnx --samples effl0.npz

``--samples`` has arrays ``INPUT`` or ``calibration.INPUT`` to calibrate with, and
``report.INPUT`` to score with where they are others; else the last half is scored. The first
output is taken for scores of classes. Weights of 7 bits are run by integer kernels; those of
8 bits, which saturate on x86 without VNNI, by float32 arithmetic on rounded numbers.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from elastic_bundled import SOURCE, log_softmax
from numpy.typing import NDArray

import hwsearch
from hwsearch.evaluation.build import RANGE_BATCH, Builder
from hwsearch.models.activation_ranges import activation_ranges
from hwsearch.models.bias_correction import bias_shifts, corrected_biases
from hwsearch.models.clipping import clipped_ranges
from hwsearch.models.execution import Session
from hwsearch.models.qdq import Int8Writer, activations
from hwsearch.quantization import Quantization

CALIBRATED, CORRECTED, SUBNETS = 500, 100, 2  # samples, samples, random subnets
TYPES: Final = (("uint8", True), ("uint8", False), ("int8", False))

Array = NDArray[Any]
Arrays = Mapping[str, Array]


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="float32 ONNX file; default: bundled subnets")
    parser.add_argument("--samples", type=Path, help=".npz")
    args = parser.parse_args()
    if args.model is None:
        for title, model, calibration, scored, labels in bundled():
            table(title, model, calibration, scored, labels)
        return
    model = onnx.load(args.model)
    names = [value.name for value in model.graph.input]
    with np.load(args.samples) as found:
        keys = {n: f"calibration.{n}" if f"calibration.{n}" in found else n for n in names}
        calibration = {name: found[key] for name, key in keys.items()}
        if all(f"report.{name}" in found for name in names):
            scored = {name: found[f"report.{name}"] for name in names}
        else:
            half = len(calibration[names[0]]) // 2
            scored = {name: array[half:] for name, array in calibration.items()}
            calibration = {name: array[:half] for name, array in calibration.items()}
    table(args.model.name, model, calibration, scored, None)


def bundled() -> Iterator[tuple[str, onnx.ModelProto, Arrays, Arrays, Array]]:
    """Yield the largest and random subnets of the bundled supernet, with images and labels."""
    net = hwsearch.load_supernet(SOURCE)
    archs = [*net.space.largest(), *net.space.sample(SUBNETS, seed=1)]
    task = hwsearch.load_task("bundled", net.input_spec(archs[0]), SOURCE)
    assert task.calibration is not None
    calibration = next(task.calibration.batches(CALIBRATED))[0]
    scored, labels = next(task.report.batches(2500))
    builder = Builder(net, hwsearch.load_device("ort-cpu:threads=1"), task)
    for arch, built in zip(archs, builder.build(archs), strict=True):
        assert not isinstance(built, Exception)
        yield arch.key, built[0], calibration, scored, labels


def table(
    title: str, model: onnx.ModelProto, calibration: Arrays, scored: Arrays, labels: Array | None
) -> None:
    """Print KL, share of equal classes, accuracy and CPU time of calibrating, by method."""
    given = outputs(model, scored)
    text = "" if labels is None else f", accuracy {(given.argmax(1) == labels).mean() * 100:.2f}%"
    print(f"{title}: {len(given)} samples{text}", flush=True)
    names = activations(model)
    for kind, reduced in TYPES:
        how = Quantization(activations=kind, reduce_range=reduced)
        print(f"  {how}", flush=True)
        largest, at_largest = timed(
            lambda: activation_ranges(model, names, batches(calibration))[0]
        )
        clipped, at_clipped = timed(
            lambda how=how: clipped_ranges(model, names, batches(calibration), how)[0]
        )
        few = {name: array[:CORRECTED] for name, array in calibration.items()}
        corrected, corrected_s = timed(
            lambda how=how, few=few: corrected_biases(model, bias_shifts(model, batches(few), how))
        )
        for method, ranges, biases, cost_s in (
            ("MinMax", largest, {}, at_largest),
            ("MinMax, biases corrected", largest, corrected, at_largest + corrected_s),
            ("by error", clipped, {}, at_clipped),
            ("by error, biases corrected", clipped, corrected, at_clipped + corrected_s),
        ):
            own = outputs(
                Int8Writer(model, ranges, how, biases).write(), scored, optimised=reduced
            )
            divergence = (np.exp(given) * (given - own)).sum(axis=1).mean()
            equal = (own.argmax(axis=1) == given.argmax(axis=1)).mean() * 100
            text = (
                "" if labels is None else f"  top-1 {(own.argmax(1) == labels).mean() * 100:.2f}"
            )
            print(
                f"    {method:28}KL {divergence:.5f}  equal {equal:6.2f}%{text}  {cost_s:.2f} s",
                flush=True,
            )


def batches(arrays: Arrays) -> Iterator[dict[str, Array]]:
    """Yield batches of samples."""
    for start in range(0, len(next(iter(arrays.values()))), RANGE_BATCH):
        yield {name: array[start : start + RANGE_BATCH] for name, array in arrays.items()}


def outputs(model: onnx.ModelProto, scored: Arrays, *, optimised: bool = True) -> Array:
    """Return log probabilities of classes: (n, classes)."""
    session = Session(model, optimised=optimised)
    found = [session(batch)[session.outputs[0]] for batch in batches(scored)]
    return log_softmax(np.concatenate(found))


def timed(compute: Callable[[], Any]) -> tuple[Any, float]:
    """Return a result and its CPU time in seconds."""
    begin = time.process_time()
    return compute(), time.process_time() - begin


if __name__ == "__main__":
    main()
