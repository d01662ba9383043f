"""Whether measured latencies can be trusted, and what they cost; figures with their targets.

    python tools/bench_latency.py [--supernet ofa-mbv3-w1.0 ...] [--device ort-cpu:threads=1]
                                  [--only agreement ranking cost replay] [--pairs 100]

*Agreement*: one model under two names, measured to 0.7%; how many pairs differ by 1% or less, as
the machine is, and again beside a process that burns a core; how many differences the intervals
hold. *Ranking*: the same 20 subnets measured twice, with a pause between; Kendall's tau, and how
many ratios of two of them are the same within 1.5%. *Cost*: how long ten subnets take to be
measured to 1.5%. *Replay*: the agreement on the traces in `tests/data`, 6 s a model; the
statistics were chosen on the first half of them.
"""

import argparse
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path

import numpy as np

import hwsearch
from hwsearch.devices import Device, Latency, MeasureSettings
from hwsearch.run.device_check import Agreement, busy_core, check_agreement
from hwsearch.supernets.supernet import Supernet

PARTS = ("agreement", "ranking", "cost", "replay")
DEFAULTS = ("cifar10-resnet", "ofa-mbv3-w1.0")
DIFFERENT, SAME = 0.02, 0.015


def models(net: Supernet, n: int, folder: Path, seed: int) -> dict[str, Path]:
    """Write the models of n subnets spread evenly over size."""
    found = {}
    for arch in net.space.sample_spread(n, seed=seed):
        found[arch.key] = folder / f"{arch.key}.onnx"
        found[arch.key].write_bytes(hwsearch.to_onnx(net, arch).SerializeToString())
    return found


def agreement(device: Device, net: Supernet, folder: Path, pairs: int) -> None:
    """Print how many pairs agree."""
    paths = list(models(net, 5, folder, seed=0).values())
    begin = time.perf_counter()
    calm = check_agreement(device, paths, pairs, seed=0)
    _agreement_line("as it is", calm, time.perf_counter() - begin)
    with busy_core():
        begin = time.perf_counter()
        busy = check_agreement(device, paths, pairs, seed=1)
    _agreement_line("beside a busy core", busy, time.perf_counter() - begin)


def _agreement_line(condition: str, found: Agreement, seconds: float) -> None:
    low, high = found.interval
    off = np.abs(found.differences)
    print(
        f"  agreement, {condition}: {found.agreed} of {found.pairs} pairs within 1% "
        f"({found.agreed / found.pairs:.1%}, Wilson {low:.1%} to {high:.1%}); "
        f"median {np.median(off):.2%}, largest {off.max():.2%}; "
        f"intervals hold {found.held / found.pairs:.0%}; "
        f"{found.reached} pairs reached 0.7%; {seconds:.0f} s",
        flush=True,
    )


def ranking(device: Device, net: Supernet, folder: Path, pause_s: float) -> None:
    """Print how well two measurements of twenty subnets rank them alike."""
    paths = models(net, 20, folder, seed=1)
    times = []
    for seed in (1, 2):
        measured = device.measure(paths, seed=seed)
        times.append([_latency(measured[key]).latency_ms for key in paths])
        if seed == 1:
            time.sleep(pause_s)
    first, second = np.array(times)
    tau, different = kendall_tau(first, second), kendall_tau(first, second, DIFFERENT)
    i, j = np.triu_indices(len(first), 1)
    off = np.abs(second[i] / second[j] * first[j] / first[i] - 1)
    print(
        f"  ranking, {pause_s:.0f} s apart: tau {tau:.4f}, {different:.4f} over pairs that differ "
        f"by more than {DIFFERENT:.0%} (target 0.99); {np.mean(off <= SAME):.1%} of {len(off)} "
        f"ratios of two subnets within {SAME:.1%} (target 90%), median {np.median(off):.2%}, "
        f"largest {off.max():.2%}; all subnets together by "
        f"{np.exp(np.median(np.log(second / first))) - 1:+.2%}; "
        f"{first.min():.3g} to {first.max():.3g} ms",
        flush=True,
    )


def kendall_tau(first: np.ndarray, second: np.ndarray, different: float = 0.0) -> float:
    """Return Kendall's tau over the pairs whose mean figures differ by more than a share."""
    mean = (first + second) / 2
    agree = [
        np.sign(first[i] - first[j]) * np.sign(second[i] - second[j])
        for i, j in combinations(range(len(mean)), 2)
        if max(mean[i] / mean[j], mean[j] / mean[i]) - 1 > different
    ]
    return float(np.mean(agree))


def replay() -> None:
    """Print how many pairs agree on recorded noise."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.devices.replayed_machine import CHOSEN, JUDGED
    from tests.devices.test_replayed_machine import differences

    for half, traces in (("chosen on", CHOSEN), ("judged", JUDGED)):
        found = [differences(trace) for trace in traces]
        for trace, pairs in [*zip(traces, found, strict=True), (half, np.concatenate(found))]:
            off, widths = np.abs(pairs[:, 0]), pairs[:, 1]
            print(
                f"  replay, {trace}: {np.mean(off <= 0.01):.0%} of {len(off)} pairs within 1%, "
                f"95th percentile {np.quantile(off, 0.95):.2%}; intervals hold "
                f"{np.mean(off <= widths):.0%}, median half-width {np.median(widths):.2%}",
                flush=True,
            )


def cost(device: Device, net: Supernet, folder: Path) -> None:
    """Print how long ten subnets take."""
    paths = models(net, 10, folder, seed=2)
    settings = MeasureSettings()
    begin = time.perf_counter()
    measured = device.measure(paths, seed=0, settings=settings)
    spent = time.perf_counter() - begin
    found = [_latency(result) for result in measured.values()]
    widths = [(got.ratio_high - got.ratio_low) / 2 / got.ratio for got in found]
    reached = sum(width <= settings.half_width for width in widths)
    print(
        f"  cost: ten subnets in {spent:.1f} s (target 30 s); {reached} of 10 reached "
        f"{settings.half_width:.1%}, widest {max(widths):.2%}, {found[0].rounds} rounds",
        flush=True,
    )


def _latency(result: Latency | hwsearch.HwsearchError) -> Latency:
    if not isinstance(result, Latency):
        raise result
    return result


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--supernet", action="append", help="repeat it")
    parser.add_argument("--device", default="ort-cpu:threads=1")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--pause", type=float, default=20.0, help="seconds between two rankings")
    args = parser.parse_args()
    if "replay" in args.only:
        replay()
    for name in args.supernet or DEFAULTS:
        net = hwsearch.load_supernet(name, None if name == "cifar10-resnet" else "random:0")
        device = hwsearch.load_device(args.device)
        print(f"{name} on {device.spec}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            if "agreement" in args.only:
                agreement(device, net, Path(folder), args.pairs)
            if "ranking" in args.only:
                ranking(device, net, Path(folder), args.pause)
            if "cost" in args.only:
                cost(device, net, Path(folder))
        device.close()


if __name__ == "__main__":
    main()
