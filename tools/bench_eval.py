"""Print what scoring and recalibrating subnets takes, beside eager PyTorch, in one run.

    python tools/bench_eval.py          ofa-mbv3-w1.0 with random weights, images of noise
    python tools/bench_eval.py --supernet cifar10-resnet --images 1000 --calibrate 250 125

Three cases: subnets one by one; the candidates of one round of a search by the predictor that
ships; the front of that search. A figure counts every image once for every subnet. Ours is the
whole call: loading models, preprocessing 8-bit images, scoring. Eager is PyTorch as it comes
(NCHW, batches of 32, a process of its own with as many threads as CPUs) on images that are
preprocessed already. The two take turns; ratios are of neighbours.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from hwsearch.accuracy.decoding import image_preprocess
from hwsearch.accuracy.imagefolder import SIZES
from hwsearch.accuracy.metric import TOP1
from hwsearch.accuracy.recalibrate import freed_memory_kept, recalibrate_together
from hwsearch.accuracy.scoring import Scorer, prefix_groups
from hwsearch.accuracy.sources import IMAGES_CALIBRATION_BATCH
from hwsearch.accuracy.task import Batch
from hwsearch.devices import load_device
from hwsearch.machine import thread_limit
from hwsearch.models.export import to_onnx
from hwsearch.objectives import Objective
from hwsearch.optimizer import Optimizer
from hwsearch.prediction.predictor import find_predictor, load_predictor
from hwsearch.space import Architecture
from hwsearch.supernets.interface import InputSpec
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import load_supernet

EAGER_BATCH = 32
EVALUATED = 60
LABEL = replace(TOP1, per_sample=lambda outputs, _: outputs[0].argmax(axis=1))


class Noise:
    """Crops of noise in every resolution that is asked for; the same ones each time."""

    def __init__(self, n: int) -> None:
        self.targets = np.zeros(n, np.int64)
        self.digest = "noise"
        self._crops: dict[tuple[int, ...], NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int, spec: InputSpec | None = None) -> Iterator[Batch]:
        """Yield preprocessed batches."""
        assert spec is not None
        assert spec.preprocessing is not None
        (tensor,) = spec.inputs
        channels, *sides = tensor.shape
        if tensor.shape not in self._crops:
            rng = np.random.default_rng(0)
            shape = (len(self), *sides, channels)
            self._crops[tensor.shape] = rng.integers(0, 256, shape, np.uint8)
        normalise = image_preprocess(spec.preprocessing)
        for at in range(0, len(self), size):
            part = self._crops[tensor.shape][at : at + size]
            yield {tensor.name: normalise(part)}, self.targets[at : at + size]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Recalibrated subnets of one case.

    Attributes:
        models: Their ONNX files.
        weights: Their weights and statistics.
        calibrating_s: Seconds that recalibrating took, for each subnet and image.
        left: Share of the work of one by one that it took.
    """

    models: dict[Architecture, Path]
    weights: dict[Architecture, Path]
    calibrating_s: float
    left: float


def main() -> None:
    """Measure the three cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--supernet", default="ofa-mbv3-w1.0")
    parser.add_argument("--images", type=int, default=128, help="scored by every subnet")
    parser.add_argument(
        "--calibrate",
        type=int,
        nargs=2,
        default=(2 * IMAGES_CALIBRATION_BATCH, IMAGES_CALIBRATION_BATCH),
        metavar=("IMAGES", "BATCH"),
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--freeze", action="append", default=[], help="such as resolution=224")
    args = parser.parse_args()
    random = args.supernet != "cifar10-resnet"
    net = load_supernet(args.supernet, "random:0" if random else None).restrict(args.freeze)
    images = Noise(args.images)
    candidates, front = searched(net)
    spread = list(net.space.sample_spread(5, 0))[1:4]
    cases = {f"alone, subnet {n}": [arch] for n, arch in enumerate(spread, 1)}
    cases |= {"a round of a search": candidates, "the front": front}
    print(
        f"{net.name}, {thread_limit()} threads, {len(images)} images, calibration on "
        f"{args.calibrate[0]} in batches of {args.calibrate[1]}; images a second, and ratios "
        "(lowest to highest)"
    )
    device = load_device("ort-cpu:threads=1")
    context = get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=context) as other,
    ):
        for title, archs in cases.items():
            ready = prepare(net, archs, Noise(args.calibrate[0]), args.calibrate[1], Path(folder))

            def eager(kept: bool, ready: Ready = ready) -> tuple[float, list[list[int]]]:
                given = [(arch.mapping, path) for arch, path in ready.weights.items()]
                return other.submit(eager_labels, net.name, given, images, kept).result()

            def ours(ready: Ready = ready) -> tuple[float, list[list[int]]]:
                scorer, begin = Scorer(net, device, LABEL), time.perf_counter()
                found = scorer.score(ready.models, images)
                took = time.perf_counter() - begin
                return took, [found[arch].outcomes.tolist() for arch in ready.models]

            compare(title, len(archs) * len(images), ready, eager, ours, args.rounds)
    device.close()


def searched(net: Supernet) -> tuple[list[Architecture], list[Architecture]]:
    """Return the last round of candidates and the front of a search by predicted accuracy."""
    found = find_predictor(net.family, TOP1.name)
    assert found is not None
    predictor = load_predictor(found, net.space)
    objectives = [
        Objective(TOP1.name, "max"),
        Objective("macs", "min", exact=lambda archs: net.exact("macs", archs)),
    ]
    search = Optimizer(net.space, objectives)
    asked = search.ask()
    while True:
        values = predictor.predict_mean(asked)
        search.tell(asked, [{TOP1.name: float(value)} for value in values])
        if len(search.history.told) >= EVALUATED:
            return list(asked), list(search.history.told[search.history.front])
        asked = search.ask()


def prepare(
    net: Supernet, archs: Sequence[Architecture], samples: Noise, batch: int, folder: Path
) -> Ready:
    """Recalibrate subnets as a search does, those of one resolution together, and write them."""
    models, weights, results, left, seconds = {}, {}, [], [], 0.0
    for group in prefix_groups(net, archs):
        chains = {net.subnet(arch): net.blocks(arch) for arch in group}
        begin = time.perf_counter()
        fed = (inputs for inputs, _ in samples.batches(batch, net.input_spec(group[0])))
        results += recalibrate_together(chains, net.recalibrate, fed)
        seconds += time.perf_counter() - begin
        left += work_left(net, group)
        for arch, subnet in zip(group, chains, strict=True):
            models[arch], weights[arch] = folder / f"{arch.key}.onnx", folder / arch.key
            models[arch].write_bytes(to_onnx(net, arch, subnet).SerializeToString())
            save_file(subnet.state_dict(), weights[arch])
    assert not any(isinstance(result, Exception) for result in results)
    per_image = seconds / (len(archs) * len(samples))
    return Ready(
        models=models, weights=weights, calibrating_s=per_image, left=float(np.mean(left))
    )


def work_left(net: Supernet, archs: Sequence[Architecture]) -> list[float]:
    """Return each subnet's share of its MACs where blocks of common prefixes are run once."""
    chains = [net.blocks(arch) or [] for arch in archs]
    prefixes = [list(accumulate(((b.name, b.spec),) for b in chain)) for chain in chains]
    n_with = Counter(prefix for each in prefixes for prefix in each)
    return [
        sum(block.macs / n_with[prefix] for block, prefix in zip(chain, begun, strict=True))
        / sum(block.macs for block in chain)
        for chain, begun in zip(chains, prefixes, strict=True)
    ]


def eager_labels(
    name: str, given: Sequence[tuple[dict[str, Any], Path]], images: Noise, kept: bool
) -> tuple[float, list[list[int]]]:
    """Return seconds and labels of each subnet, run in eager PyTorch; building is not counted.

    Args:
        name: Of the supernet.
        given: Choices, and the file of the weights.
        images: What is scored.
        kept: Whether the allocator keeps freed memory, which PyTorch by itself does not ask for.
    """
    torch.set_num_threads(thread_limit())
    net = load_supernet(name, "random:0")
    seconds, labels = 0.0, []
    for choices, weights in given:
        (arch,) = net.space.architectures([choices])
        subnet, spec = net.subnet(arch).eval(), net.input_spec(arch)
        subnet.load_state_dict(load_file(weights))
        batches = [torch.from_numpy(*fed.values()) for fed, _ in images.batches(EAGER_BATCH, spec)]
        with torch.no_grad(), freed_memory_kept() if kept else nullcontext():
            begin = time.perf_counter()
            found = [subnet(batch).argmax(1) for batch in batches]
            seconds += time.perf_counter() - begin
        labels.append(torch.cat(found).tolist())
    return seconds, labels


def compare(
    title: str,
    n: int,
    ready: Ready,
    eager: Callable[[bool], tuple[float, list[list[int]]]],
    ours: Callable[[], tuple[float, list[list[int]]]],
    rounds: int,
) -> None:
    """Let both take turns, and print a case."""
    ours()  # starts the worker
    times: list[tuple[float, float, float]] = []
    equal = []
    for _ in range(rounds):
        (plain_s, labels), (kept_s, _), (ours_s, found) = eager(False), eager(True), ours()
        times.append((plain_s, kept_s, ours_s))
        equal.append(float(np.mean(np.array(labels) == np.array(found))))
    seconds = np.array(times)
    plain, kept, scored = n / np.median(seconds, axis=0)
    ratios, kept_ratios = (seconds[:, :2] / seconds[:, 2:]).T
    calibrating = ready.calibrating_s / (np.median(seconds[:, 2]) / n)
    print(
        f"{title} ({len(ready.models)}): eager {plain:.0f}, with memory kept {kept:.0f}, "
        f"ours {scored:.0f}: x {_spread(ratios)}, of kept x {_spread(kept_ratios)}; "
        f"labels equal {min(equal):.2%}",
        flush=True,
    )
    print(
        f"    recalibration {1 / ready.calibrating_s:.0f} ({ready.left:.0%} of the work is left): "
        f"an image costs {calibrating:.2f} of a scored one, {SIZES.calibration} of them "
        f"{calibrating * SIZES.calibration / SIZES.search:.2f} of {SIZES.search} scored",
        flush=True,
    )


def _spread(ratios: NDArray[np.float64]) -> str:
    return f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


if __name__ == "__main__":
    main()
