"""Print what scoring and recalibrating subnets takes, beside eager PyTorch, in one run.

    python tools/bench_eval.py                           ofa-mbv3-w1.0: random weights and images
    python tools/bench_eval.py --supernet cifar10-resnet

Images a second are those of the whole call, loading the model included. Sharing is exact, so that
the share of multiply-accumulates that is left says what recalibrating a batch together costs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hwsearch.devices import load_device
from hwsearch.evaluate.recalibrate import recalibrate
from hwsearch.evaluate.sharing import Chained, chain_of, recalibrate_together
from hwsearch.export.model import to_onnx
from hwsearch.space import Architecture, Architectures
from hwsearch.supernets.base import Supernet
from hwsearch.supernets.zoo import load_supernet

EAGER_BATCH, SCORE_BATCH, CALIBRATION_BATCH = 32, 125, 125


def main() -> None:
    """Compare both ways for a few subnets, then sharing for batches of several kinds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--supernet", default="ofa-mbv3-w1.0")
    parser.add_argument("--subnets", type=int, default=4)
    parser.add_argument("--images", type=int, default=250)
    args = parser.parse_args()
    random = args.supernet != "cifar10-resnet"
    net = load_supernet(args.supernet, "random:0" if random else None)
    (spec,) = net.input_spec(net.space.largest()[0]).inputs
    images = np.random.default_rng(0).standard_normal((args.images, *spec.shape), np.float32)
    _compare(net, net.space.sample_spread(args.subnets, 0), images, spec.name)
    _share(net, images[:CALIBRATION_BATCH], spec.name)


def _compare(net: Supernet, archs: Architectures, images: NDArray[np.float32], name: str) -> None:
    print(
        f"images a second, {len(archs)} subnets of {net.name}, {torch.get_num_threads()} threads"
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for arch in archs:
            rates, equal = _rates(net, arch, images, name, Path(folder))
            rows.append(rates)
            figures = "   ".join(f"{title} {rate:.0f}" for title, rate in rates.items())
            print(f"  {arch.key}   {figures}   labels equal {equal:.1%}", flush=True)
    eager = "eager"
    for title in list(rows[0])[1:]:
        ratios = [row[title] / row[eager] for row in rows]
        print(
            f"  {title}: x {np.median(ratios):.2f} of eager, "
            f"{min(ratios):.2f} to {max(ratios):.2f}"
        )


def _rates(
    net: Supernet, arch: Architecture, images: NDArray[np.float32], name: str, folder: Path
) -> tuple[dict[str, float], float]:
    subnet = net.subnet(arch)
    calibrated = _rate(
        lambda: recalibrate(subnet, net.recalibrate, _batches(images, CALIBRATION_BATCH, name)),
        len(images),
    )
    path = folder / f"{arch.key}.onnx"
    path.write_bytes(to_onnx(net, arch, subnet).SerializeToString())
    answers: dict[str, NDArray[np.int64]] = {}

    def eager() -> None:
        with torch.no_grad():
            parts = [
                subnet(torch.from_numpy(batch[name])).argmax(1).numpy()
                for batch in _batches(images, EAGER_BATCH, name)
            ]
        answers["eager"] = np.concatenate(parts)

    rates = {"eager": _rate(eager, len(images))}
    for threads in (1, 2):
        device = load_device(f"ort-cpu:threads={threads}")

        def scored(device: object = device) -> None:
            outputs = device.run(path, _batches(images, SCORE_BATCH, name))  # type: ignore[attr-defined]
            answers["onnx"] = np.concatenate([out[0].argmax(axis=1) for out in outputs])

        scored()  # starts the worker
        rates[f"ort-cpu:threads={threads}"] = _rate(scored, len(images))
        device.close()
    rates["recalibration"] = calibrated
    return rates, float((answers["eager"] == answers["onnx"]).mean())


def _share(net: Supernet, images: NDArray[np.float32], name: str) -> None:
    print("recalibrating together: seconds against one by one, share of the work that is left")
    rng = np.random.default_rng(0)
    for n in (4, 16):
        parents = net.space.sample(max(n // 4, 1), rng)
        near = [arch for _ in range(4) for arch in net.space.mutate(parents, rng)][:n]
        for title, archs in (("neighbours", near), ("random", list(net.space.sample(n, rng)))):
            alone_s = _seconds(lambda archs=archs: _one_by_one(net, archs, images, name))
            chains = _chains(net, archs)
            begin = time.perf_counter()
            results = recalibrate_together(
                chains, net.recalibrate, _batches(images, CALIBRATION_BATCH, name)
            )
            together_s = time.perf_counter() - begin
            left = np.mean([getattr(result, "share", np.nan) for result in results])
            print(f"  {n:3d} {title:10s} {together_s:.2f} s / {alone_s:.2f} s   {left:.0%} left")


def _one_by_one(
    net: Supernet, archs: Sequence[Architecture], images: NDArray[np.float32], name: str
) -> None:
    for arch in archs:
        recalibrate(net.subnet(arch), net.recalibrate, _batches(images, CALIBRATION_BATCH, name))


def _chains(net: Supernet, archs: Sequence[Architecture]) -> list[Chained]:
    chains = []
    for arch in archs:
        subnet = net.subnet(arch)
        blocks = chain_of(subnet, net.blocks(arch), net.recalibrate)
        assert blocks is not None
        chains.append(Chained(subnet=subnet, blocks=blocks))
    return chains


def _batches(images: NDArray[np.float32], size: int, name: str):
    return ({name: images[at : at + size]} for at in range(0, len(images), size))


def _rate(work: Callable[[], object], n: int) -> float:
    return n / _seconds(work)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
