"""Export random architectures of every built-in family, and compare each with PyTorch.

    python tools/check_agreement.py --n 1000 [--supernet ofa-resnet50 ...] [--keep agreement.jsonl]

A subnet passes where its ONNX model is well-formed, counts the MACs and parameters that its
architecture promises, and answers a seeded probe as PyTorch does, within the tolerance of every
export. Weights are those that ship, else random ones. What is kept in a file is not done again:
start it again with a larger N, or after it was stopped. Prints a line for each family, with the
largest deviation, ``max|a - b| / max|b|``.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import onnx

import hwsearch
from hwsearch.devices import Device, load_device
from hwsearch.models.agreement import (
    TOLERANCE,
    count_macs,
    count_params,
    disagreement,
    probe_inputs,
)
from hwsearch.models.module_outputs import torch_outputs
from hwsearch.models.onnx_file import read_metadata
from hwsearch.space import Architecture
from hwsearch.supernets.supernet import Supernet

FAMILIES = tuple(name for name in hwsearch.supernet_names() if "test" not in name)

MOST = 1000


def deviation(
    net: Supernet, arch: Architecture, device: Device, folder: Path
) -> tuple[float, str]:
    """Return how far a subnet's ONNX model is from PyTorch, and what else is wrong with it."""
    subnet, spec = net.subnet(arch), net.input_spec(arch)
    inputs = probe_inputs(spec.inputs)
    model = hwsearch.to_onnx(net, arch, subnet)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(model, full_check=True)
    (outputs,) = device.run(path, [inputs])
    one = net.space.architectures([arch])
    learned = {name for name, _ in subnet.named_parameters()}
    buffers = {name for name in subnet.state_dict() if name not in learned}
    folded = int(read_metadata(model).get("params_folded", 0))
    counted = {"macs": count_macs(model), "params": count_params(model, buffers) + folded}
    wrong = [
        f"{name}: {value:,} counted, {promised:,} promised"
        for name, value in counted.items()
        if value != (promised := int(net.exact(name, one)[0]))
    ]
    return disagreement(list(outputs), torch_outputs(subnet, inputs, spec.outputs)), "; ".join(
        wrong
    )


def agreements(
    net: Supernet, archs: Iterable[Architecture], device: Device
) -> Iterator[dict[str, str | float]]:
    """Yield key, deviation and error of each architecture; of an error it is infinite."""
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as folder:
        for arch in archs:
            try:
                far, wrong = deviation(net, arch, device, Path(folder))
            except Exception as error:  # noqa: BLE001 - whatever it is, it did not pass
                far, wrong = float("inf"), f"{type(error).__name__}: {error}"
            yield {"key": arch.key, "deviation": far, "error": wrong}


def passed(line: dict[str, str | float]) -> bool:
    """Whether a line of `agreements` is of a subnet that is as it should be."""
    return not line["error"] and float(line["deviation"]) <= TOLERANCE


def _kept(path: Path | None) -> list[dict[str, str | float]]:
    if path is None or not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    """Print the table; return how many subnets did not pass."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1000, help="architectures of each family")
    parser.add_argument("--supernet", action="append", choices=FAMILIES)
    parser.add_argument("--keep", type=Path, help="a file that is gone on with")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    device, failed = load_device("ort-cpu:threads=1"), 0
    print(f"{'supernet':20} {'passed':>14} {'largest':>9} {'median':>9} {'s each':>7}")
    for name in given.supernet or FAMILIES:
        shipped = name == "cifar10-resnet"
        net = hwsearch.load_supernet(name, checkpoint=None if shipped else "random:0")
        # The first ones of a large sample, so that more of them are the same ones and others.
        archs = net.space.sample(max(MOST, given.n), seed=given.seed)[: given.n]
        wanted = set(archs.ids)
        lines = [line for line in _kept(given.keep) if line["supernet"] == name]
        lines = [line for line in lines if line["key"] in wanted]
        done = {line["key"] for line in lines}
        todo, began = [arch for arch in archs if arch.key not in done], time.monotonic()
        for line in agreements(net, todo, device):
            lines.append({"supernet": name, **line})
            if given.keep is not None:
                with given.keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
            if not passed(line):
                print(f"    {line['key']}: {line['deviation']:.2g} {line['error']}", flush=True)
        each = (time.monotonic() - began) / max(1, len(todo))
        far = sorted(float(line["deviation"]) for line in lines)
        good = sum(map(passed, lines))
        failed += len(lines) - good
        print(
            f"{name:20} {good:6,} of {len(lines):5,} {far[-1]:9.1e} {far[len(far) // 2]:9.1e} "
            f"{each:7.2f}",
            flush=True,
        )
    device.close()
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
