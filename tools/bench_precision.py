"""Print what precision as a choice gains: files, their times, and fronts; with their targets.

    python tools/bench_precision.py [--only equality writer masks fronts] [--seeds 0 1 2 3 4]
                                    [--budget 100] [--work DIR]

*Equality*: int8 files of random masks against those of ONNX Runtime's quantiser. *Writer*: the
processor's time for an int8 file. *Masks*: 40 random precisions of the blocks of the bundled
network's largest subnet, predicted from 40 others and measured in the same job. *Fronts*: searches
of the bundled supernet in fp32, in int8, and with a precision for every block; all files of the
fronts are timed again in one job. Searches are kept in the work folder and go on after an
interruption.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import hwsearch
from hwsearch.devices import MeasureSettings, load_device
from hwsearch.evaluation.build import Builder
from hwsearch.models.activation_ranges import activation_ranges
from hwsearch.models.agreement import probe_inputs
from hwsearch.models.qdq import Int8Writer, activations, quantizable_nodes
from hwsearch.objectives import hypervolume
from hwsearch.quantization import quantization_for
from hwsearch.space import Architectures
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import supernet_names

DEVICE = "ort-cpu:threads=1,precision=mixed"
OPTIONS = ("fp32", "int8")
PER_BLOCK, PER_NETWORK = "fp32,int8:per-block", "fp32,int8"
# Searches on one device, so that their baseline is the same.
SEARCHES = {
    "fp32": {"precision": PER_NETWORK, "freeze": ["precision=fp32"]},
    "int8": {"precision": PER_NETWORK, "freeze": ["precision=int8"]},
    "joint": {"precision": PER_BLOCK},
}
REFERENCE_TOP1 = 83.0
MASKS = 40
SAME_POINTS = 0.3
TIMES = 5


def equality() -> None:
    """Print how many files equal those of ONNX Runtime's quantiser."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.models.test_qdq import check_equal

    how, equal, tried = quantization_for(load_device(DEVICE).fingerprint()), 0, 0
    for name in supernet_names():
        draw = np.random.default_rng(0)
        for _, model, samples in _subnets(name, 2):
            nodes = quantizable_nodes(model)
            for chosen in (nodes, *([n for n in nodes if draw.random() < 0.5] for _ in range(2))):
                tried += 1
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        check_equal(model, samples, how, Path(folder), chosen)
                        equal += 1
                    except AssertionError as error:
                        print(f"  {name}: {str(error).splitlines()[0]}")
    print(f"equality: {equal} of {tried} files (5 families, 2 subnets, 3 masks) (target: all)")


def _subnets(name: str, n: int) -> Iterator[tuple[object, object, list[dict[str, NDArray]]]]:
    net = hwsearch.load_supernet(name, None if name == "cifar10-resnet" else "random:0")
    for arch in net.space.sample(n, seed=1):
        yield arch, hwsearch.to_onnx(net, arch), [probe_inputs(net.input_spec(arch).inputs)]


def writer() -> None:
    """Print the processor's time for int8 files, from ranges to bytes."""
    how = quantization_for(load_device(DEVICE).fingerprint())
    for name in ("cifar10-resnet", "ofa-mbv3-w1.0"):
        first, again = [], []
        for _, model, samples in _subnets(name, TIMES):
            ranges, _ = activation_ranges(model, activations(model), samples)
            for kept in (first, again):
                if kept is first:
                    begin, made = time.process_time(), Int8Writer(model, ranges, how)
                else:
                    begin = time.process_time()
                made.write(quantizable_nodes(model)[::2]).SerializeToString()
                kept.append(1e3 * (time.process_time() - begin))
        print(
            f"writer, {name}: {statistics.median(first):.1f} ms a file, "
            f"{statistics.median(again):.1f} ms for another mask of the same subnet "
            f"(median of {TIMES}; target 30)",
            flush=True,
        )


def masks() -> None:
    """Print how well latencies of random masks are predicted."""
    whole = hwsearch.load_supernet("cifar10-resnet").with_precision(*OPTIONS, per="block")
    largest = whole.network.space.largest()[0].mapping
    net = whole.restrict(freeze=[f"{name}={option}" for name, option in largest.items()])
    archs = Architectures.concatenate(
        [net.space.smallest(), net.space.largest(), net.space.sample_distinct(2 * MASKS, 0)]
    ).unique()[: 2 * MASKS]
    device = load_device(DEVICE)
    task = hwsearch.load_task("bundled", net.input_spec(archs[0]), net.family)
    built = list(Builder(net, device, task).build(list(archs)))
    models = [found[0] for found in built if not isinstance(found, Exception)]
    found = hwsearch.measure(models, device, settings=MeasureSettings(seconds_per_model=1.5))
    measured = found["latency_ms"].to_numpy()
    print(f"masks: {measured[0]:.3f} ms in int8, {measured[1]:.3f} in fp32")
    rows, unlike = _encoded(net, archs)
    for title, features in (
        ("a term for each block", rows),
        ("and one for all boundaries", np.column_stack([rows, unlike.sum(axis=1)])),
        ("and one for each boundary", np.column_stack([rows, unlike])),
    ):
        predicted = _ridge(features[:MASKS], measured[:MASKS], features[MASKS:])
        off = np.abs(predicted / measured[MASKS:] - 1)
        print(
            f"masks: {title}: off by {off.mean():.1%} on average, {off.max():.1%} at most, "
            f"of {len(off)} random masks (target 5%)",
            flush=True,
        )


def _encoded(net: Supernet, archs: Architectures) -> tuple[NDArray, NDArray]:
    """Return which blocks are int8, (n, blocks), and where neighbours differ, (n, blocks - 1)."""
    chosen = np.array([[p == "int8" for p in net.precisions(arch).values()] for arch in archs])
    return chosen.astype(float), (chosen[:, 1:] != chosen[:, :-1]).astype(float)


def _ridge(known: NDArray, values: NDArray, new: NDArray, weight: float = 0.1) -> NDArray:
    centre, level = known.mean(axis=0), values.mean()
    gram = (known - centre).T @ (known - centre) + weight * np.eye(known.shape[1])
    return level + (new - centre) @ np.linalg.solve(gram, (known - centre).T @ (values - level))


def fronts(seeds: Sequence[int], budget: int, work: Path) -> None:
    """Print the hypervolume of the fronts, and what int8 gains at equal accuracy."""
    ratios = []
    for seed in seeds:
        runs = {}
        for name, settings in SEARCHES.items():
            folder = work / f"{name}-{budget}-{seed}"
            if (folder / "config.toml").exists():
                runs[name] = hwsearch.resume(folder)
            else:
                runs[name] = hwsearch.search(
                    "cifar10-resnet", device=DEVICE, seed=seed, budget=budget, out=folder,
                    **settings,
                )  # fmt: skip
        files = {
            (name, row["key"]): (run.folder / row["subnet"] / "model.onnx", row["top1_report"])
            for name, run in runs.items()
            for row in run.front.to_dict("records")
        }
        times = hwsearch.measure([path for path, _ in files.values()], DEVICE)["latency_ms"]
        points = {
            name: np.array(
                [
                    (-top1, ms)
                    for ((of, _), (_, top1)), ms in zip(files.items(), times, strict=True)
                    if of == name
                ]
            )
            for name in SEARCHES
        }
        slowest = max(part[:, 1].max() for part in points.values())
        volumes = {
            name: hypervolume(part, (-REFERENCE_TOP1, slowest)) for name, part in points.items()
        }
        ratios.append((volumes["joint"] / volumes["fp32"], volumes["joint"] / volumes["int8"]))
        print(
            f"fronts, seed {seed}, {budget} evaluations: "
            + ", ".join(
                f"{name} {len(points[name])} files, hypervolume {volume:.3f}"
                for name, volume in volumes.items()
            )
            + f"; joint / fp32 {ratios[-1][0]:.2f} (target 1.35), joint / int8 "
            f"{ratios[-1][1]:.3f} (target 1.02); {_speedup(points)}",
            flush=True,
        )
    middle = np.median(ratios, axis=0)
    print(f"fronts, median of {len(seeds)} seeds: {middle[0]:.2f} and {middle[1]:.3f}")


def _speedup(points: dict[str, NDArray]) -> str:
    """Return how much faster the joint front is than the best fp32 file, within some points."""
    best = points["fp32"][points["fp32"][:, 0].argmin()]
    near = points["joint"][points["joint"][:, 0] <= best[0] + SAME_POINTS]
    if not len(near):
        return f"no joint file within {SAME_POINTS} points of the best fp32 one"
    return (
        f"{best[1] / near[:, 1].min():.2f} times faster than the best fp32 file within "
        f"{SAME_POINTS} points (target 2.5)"
    )


def main() -> None:
    """Parse and go."""
    parts = ("equality", "writer", "masks", "fronts")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--budget", type=int, default=100)
    parser.add_argument("--work", type=Path, default=Path("bench_precision"), help="folder")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    run = {
        "equality": equality,
        "writer": writer,
        "masks": masks,
        "fronts": partial(fronts, args.seeds, args.budget, args.work),
    }
    for name in args.only:
        run[name]()


if __name__ == "__main__":
    main()
