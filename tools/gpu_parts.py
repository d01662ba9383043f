"""Parts of ``check_gpu.py``, each a process of its own: promises of devices on NVIDIA GPUs.

    python tools/gpu_parts.py machine
    python tools/gpu_parts.py PART DEVICE FOLDER

Models are kept in ``FOLDER/models``, for the parts after it. The last line is a JSON object with
``figures`` by name and ``wrong``, the broken promises; the exit code is 1 if there is one.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import torch

import hwsearch
from hwsearch.devices import Device, Latency, MeasureSettings, load_device
from hwsearch.devices.fingerprint import cpu_fingerprint
from hwsearch.devices.nvidia import gpu_fingerprint, missing_gpu
from hwsearch.evaluation.attempt import raised
from hwsearch.models.agreement import TOLERANCES, disagreement, labels_agree, probe_inputs
from hwsearch.models.module_outputs import torch_outputs
from hwsearch.models.quantize import to_fp16
from hwsearch.run.device_check import check_agreement

Found = tuple[dict[str, object], list[str]]
"""Figures by name, and what is wrong."""
SUPERNET = "cifar10-resnet"
PRECISIONS = ("fp32", "fp16")
N_MODELS = 3
PAIRS = 6
TARGET = 0.95
BUDGET = 12
SAMPLES = 64
SETTINGS = MeasureSettings(half_width=0.007, seconds_per_model=2.5)
PACKAGES = (
    *("torch", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt", "cuda-bindings"),
    *("nvidia-ml-py", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
)


def machine() -> Found:
    """Describe the machine; it is wrong if no GPU can be used."""
    figures: dict[str, object] = {**gpu_fingerprint(0), "cpu": cpu_fingerprint()["cpu"]}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            figures[name] = metadata.version(name)
    figures["CUDA of torch"] = torch.version.cuda or "none"
    reason = missing_gpu()
    return figures, [reason] if reason else []


def models(folder: Path, precision: str) -> dict[str, Path]:
    """Return files of subnets spread over size, smallest and largest among them; written once."""
    net, found = hwsearch.load_supernet(SUPERNET), {}
    for arch in net.space.sample_spread(N_MODELS, seed=0):
        path = folder / "models" / f"{arch.key}-{precision}.onnx"
        found[arch.key] = path
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            model = hwsearch.to_onnx(net, arch)
            onnx.save(to_fp16(model) if precision == "fp16" else model, path)
    return found


def files(name: str, folder: Path) -> Found:
    """Compare the outputs of exported files on the device with PyTorch's."""
    figures: dict[str, object] = {}
    wrong = []
    net = hwsearch.load_supernet(SUPERNET)
    for precision in PRECISIONS:
        worst = 0.0
        with closing(load_device(f"{name}:precision={precision}")) as device:
            for arch in net.space.sample_spread(N_MODELS, seed=0):
                spec = net.input_spec(arch)
                inputs = probe_inputs(spec.inputs)
                (outputs,) = device.run(models(folder, precision)[arch.key], [inputs])
                expected = torch_outputs(net.subnet(arch), inputs, spec.outputs)
                worst = max(worst, disagreement(outputs, expected))
        figures[f"{precision} deviation"] = worst
        if worst > TOLERANCES[precision]:
            wrong.append(f"{precision} deviates by {worst:.3g} from PyTorch")
    return figures, wrong


def precisions(name: str, folder: Path) -> Found:
    """Compare times and outputs of fp32 and fp16 files of one subnet, the largest."""
    times, outputs = {}, {}
    net = hwsearch.load_supernet(SUPERNET)
    (largest,) = net.space.largest()
    inputs = probe_inputs(net.input_spec(largest).inputs, samples=SAMPLES)
    for precision in PRECISIONS:
        key, path = list(models(folder, precision).items())[-1]
        with closing(load_device(f"{name}:precision={precision}")) as device:
            times[precision] = timed(device, {key: path})[key]
            (outputs[precision],) = device.run(path, [inputs])
    figures: dict[str, object] = {f"{each} ms": times[each].latency_ms for each in PRECISIONS}
    figures["fp16 is faster by a factor of"] = times["fp32"].latency_ms / times["fp16"].latency_ms
    deviation = disagreement(outputs["fp16"], outputs["fp32"])
    same = float(labels_agree(outputs["fp16"][0], outputs["fp32"][0], TOLERANCES["fp16"]).mean())
    figures |= {"deviation": deviation, "same label": same}
    wrong = [f"fp16 deviates by {deviation:.3g}"] if deviation > TOLERANCES["fp16"] else []
    if same < 1:
        wrong.append(f"fp16 has another label for {1 - same:.0%} of {SAMPLES} samples")
    return figures, wrong


def transfers(name: str, folder: Path) -> Found:
    """Compare the time on the device with the time that includes copies, for two batches."""
    figures: dict[str, object] = {}
    wrong = []
    for batch in (1, 32):
        spec = f"{name}:precision=fp32,batch={batch},transfers=included"
        with closing(load_device(spec)) as device:
            key, path = next(iter(models(folder, "fp32").items()))
            latency = timed(device, {key: path})[key]
        on_device, end_to_end = latency.device_ms or 0.0, latency.end_to_end_ms or 0.0
        figures[f"device ms, batch {batch}"] = on_device
        figures[f"end to end ms, batch {batch}"] = end_to_end
        if not 0 < on_device < end_to_end:
            wrong.append(
                f"batch {batch}: {on_device:.4g} ms on the device, {end_to_end:.4g} ms with copies"
            )
        if latency.transfers != "included" or not np.isclose(latency.latency_ms, end_to_end):
            wrong.append(f"batch {batch}: the latency is not the time that includes copies")
    return figures, wrong


def agreement(name: str, folder: Path) -> Found:
    """Time each model under two names; it is wrong if fewer agree than the target can explain."""
    paths = list(models(folder, "fp32").values())
    with closing(load_device(f"{name}:precision=fp32")) as device:
        found = check_agreement(device, paths, PAIRS, settings=SETTINGS)
    off, (_, high) = np.abs(found.differences), found.interval
    figures = {
        "within 1%": f"{found.agreed} of {found.pairs}",
        "median difference": float(np.median(off)),
        "largest": float(off.max()),
        "reached 0.7%": found.reached,
    }
    return figures, [] if high >= TARGET else [f"{found.agreed} of {found.pairs} agree"]


def search(name: str, folder: Path) -> Found:
    """Search with ``hwsearch search`` and check the result with ``hwsearch verify``."""
    out = folder / f"run-{name}"
    command = [sys.executable, "-m", "hwsearch"]
    given = ["--supernet", SUPERNET, "--device", f"{name}:precision=fp16"]
    given += ["--budget", str(BUDGET), "--out", str(out)]
    for step in (["search", *given], ["verify", str(out)]):
        if code := subprocess.run([*command, *step], check=False).returncode:
            return {}, [f"hwsearch {step[0]} ended with exit code {code}"]
    front = hwsearch.Run(out).members
    figures = {"members of the front": len(front)}
    for column in ("latency", "top1"):
        low, high = front[column].min(), front[column].max()
        figures[column] = f"{low:.4g} to {high:.4g}"
    return figures, []


def timed(device: Device, paths: dict[str, Path]) -> dict[str, Latency]:
    """Return the latencies; raise DeviceError where a model fails."""
    measured = device.measure(paths, seed=0, settings=SETTINGS)
    return {key: raised(result) for key, result in measured.items()}


PARTS: dict[str, Callable[[str, Path], Found]] = {
    each.__name__: each for each in (files, precisions, transfers, agreement, search)
}


def main(arguments: list[str]) -> int:
    """Run one part and print what it found."""
    try:
        if arguments == ["machine"]:
            figures, wrong = machine()
        else:
            part, name, folder = arguments
            figures, wrong = PARTS[part](name, Path(folder))
    except hwsearch.HwsearchError as error:
        figures, wrong = {}, [str(error)]
    print(json.dumps({"figures": figures, "wrong": wrong}, default=float), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
