"""Time of `hwsearch.to_onnx`, and of building and tracing the same subnets, side by side.

    python tools/bench_export.py [--supernet ofa-mbv3-w1.0 ...] [--n 20]

One thread. Every architecture is exported as users do it, `hwsearch.to_onnx(net, arch)`, with its
blocks known; in between, a few of them are built and go through `torch.onnx.export` (the tracing
exporter) and through our own reference, traced as a whole and folded. Medians in milliseconds,
targets beside them, and how many times `to_onnx` the slow ways take.
"""

import argparse
import hashlib
import io
import statistics
import time
import warnings

import onnx_ir as ir
import torch

import hwsearch
from hwsearch.models.batch_norm_folding import drop_identities, fold_batch_norms
from hwsearch.models.trace import OPSET, trace
from hwsearch.space import Architecture
from hwsearch.supernets.supernet import Supernet

TARGETS = {
    "ofa-mbv3-w1.0": {"to_onnx": 25, "bytes and hash": 40, "ratio": 25},
    "cifar10-resnet": {"to_onnx": 5},
}


def one(net: Supernet, arch: Architecture) -> dict[str, float]:
    """Return the milliseconds of each step for one architecture, blocks known."""
    start = time.perf_counter()
    model = hwsearch.to_onnx(net, arch)
    made = time.perf_counter()
    hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    hashed = time.perf_counter()
    subnet = net.subnet(arch)
    built = time.perf_counter()
    hwsearch.to_onnx(net, arch, subnet)
    given = time.perf_counter()
    steps = {
        "to_onnx": made - start,
        "bytes and hash": hashed - made,
        "subnet": built - hashed,
        "to_onnx of a given subnet": given - built,
    }
    return {name: 1e3 * seconds for name, seconds in steps.items()}


def traced(net: Supernet, arch: Architecture) -> float:
    """Return the milliseconds of building a subnet and tracing it, to the same folded model."""
    start = time.perf_counter()
    subnet = net.subnet(arch)
    model = ir.from_proto(trace(subnet, net.input_spec(arch)))
    drop_identities(model.graph)
    fold_batch_norms(model.graph)
    ir.to_proto(model)
    return 1e3 * (time.perf_counter() - start)


def exported(net: Supernet, arch: Architecture) -> float:
    """Return the milliseconds of building a subnet and a plain call of `torch.onnx.export`."""
    start = time.perf_counter()
    subnet, spec = net.subnet(arch), net.input_spec(arch)
    sample = tuple(torch.zeros((1, *tensor.shape)) for tensor in spec.inputs)
    names = [tensor.name for tensor in spec.inputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            subnet,
            sample,
            io.BytesIO(),
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            dynamic_axes={name: {0: "batch"} for name in names},
        )
        return 1e3 * (time.perf_counter() - start)


def bench(name: str, n: int, n_traced: int) -> None:
    """Print the figures of one supernet."""
    checkpoint = None if name == "cifar10-resnet" else "random:0"
    net = hwsearch.load_supernet(name, checkpoint)
    archs = list(net.space.sample(n, seed=0))
    begin = time.perf_counter()
    for arch in archs:
        one(net, arch)
    cold = time.perf_counter() - begin
    rows, slow, plain = [], [], []
    for number, arch in enumerate(archs):
        rows.append(one(net, arch))
        if number % max(1, n // n_traced) == 0:
            slow.append(traced(net, arch))
            plain.append(exported(net, arch))
    print(f"{name}: {n} architectures; the first pass, which traces blocks, took {cold:.1f} s")
    targets = TARGETS.get(name, {})
    for step in rows[0]:
        values = [row[step] for row in rows]
        beside = f" (target {targets[step]})" if step in targets else ""
        print(f"  {step:25} {statistics.median(values):8.1f} ms{beside}")
    ours = statistics.median([row["to_onnx"] for row in rows])
    beside = f" (target {targets['ratio']})" if "ratio" in targets else ""
    for what, values in (
        ("subnet, torch.onnx.export", plain),
        ("subnet, traced and folded", slow),
    ):
        middle = statistics.median(values)
        print(f"  {what:25} {middle:8.1f} ms, {middle / ours:.0f} x to_onnx{beside}")


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--supernet", action="append", help="repeat it; default: all built-in ones"
    )
    parser.add_argument("--n", type=int, default=20, help="architectures")
    parser.add_argument("--traced", type=int, default=5, help="of them traced as a whole too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.supernet or hwsearch.supernet_names():
        bench(name, args.n, args.traced)


if __name__ == "__main__":
    main()
