"""Record how long models take, run by run, on a machine that is busy with other work.

    python tools/record_trace.py --out tests/data/restless_machine.npz [--seconds 120]

Models take turns, one run each, for as long as asked. Kept are the microseconds of every run, the
microseconds that it waited for a CPU, and when it began. `tests/devices/replayed_machine.py` plays
the trace back on a scripted clock, so that the measuring protocol is tested on real noise without
a clock. Record it while something else uses the machine: a calm trace tests nothing.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

import hwsearch
from hwsearch.devices.anchor import anchor_bytes
from hwsearch.devices.ort_runtime import declared_inputs
from hwsearch.devices.worker import schedstat_reader, synthetic_inputs, timed_run

N_MODELS = 5


def sessions() -> list[onnxruntime.InferenceSession]:
    """Load subnets of the bundled supernet, small to large, and the anchor last; one thread."""
    net = hwsearch.load_supernet("cifar10-resnet")
    models = [hwsearch.to_onnx(net, arch) for arch in net.space.sample_spread(N_MODELS, seed=0)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return [
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        for data in [*(model.SerializeToString() for model in models), anchor_bytes()]
    ]


def record(seconds: float) -> dict[str, np.ndarray]:
    """Return ``began_us``, ``run_us`` and ``waited_us``: (turns, models + 1) whole numbers."""
    loaded = [(session, synthetic_inputs(declared_inputs(session), 1)) for session in sessions()]
    waiting_ns = schedstat_reader()
    rows: list[list[tuple[int, int, int]]] = []
    start = time.perf_counter_ns()
    while (time.perf_counter_ns() - start) / 1e9 < seconds:
        row = []
        for session, feeds in loaded:
            session.run(None, feeds)  # the caches are the previous model's
            began = time.perf_counter_ns() - start

            def run(session: onnxruntime.InferenceSession = session, feeds: dict = feeds) -> None:
                session.run(None, feeds)

            row.append((began, *timed_run(run, time.perf_counter_ns, waiting_ns)))
        rows.append(row)
    table = np.array(rows, dtype=np.float64) / 1e3
    names = ("began_us", "run_us", "waited_us")
    return {name: np.round(table[..., i]).astype(np.uint32) for i, name in enumerate(names)}


def main() -> None:
    """Parse, record, write, and say how restless it was."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    args = parser.parse_args()
    trace = record(args.seconds)
    with tempfile.NamedTemporaryFile(dir=args.out.parent, suffix=".npz", delete=False) as file:
        np.savez_compressed(file, **trace)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(args.out)
    runs = trace["run_us"].astype(float)
    minutes = np.array_split(runs[:, -1], 12)
    medians = [float(np.median(part)) for part in minutes]
    print(f"{len(runs)} turns of {runs.shape[1]} models, {args.out.stat().st_size / 1e3:.0f} kB")
    print(f"median ms {np.round(np.median(runs, axis=0) / 1e3, 3).tolist()}")
    print(f"the anchor's median went from {min(medians):.0f} to {max(medians):.0f} us")
    waited = trace["waited_us"].sum() / (trace["waited_us"].sum() + runs.sum())
    print(f"{waited:.0%} of the time was waiting for a CPU")


if __name__ == "__main__":
    main()
