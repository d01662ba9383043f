"""How well latency is predicted: from a table and few subnets, and on a new device from ten.

    python tools/bench_predictor.py --work /tmp/predictor [--supernet cifar10-resnet ...]

Latency tables that ship, or that `hwsearch profile` made here, are used as they are; those that
are missing are made first, in the work folder. Everything measured is kept there: the same command
goes on where it was stopped, and prints the figures again once all is measured. The subnets that
predictions are compared with are in no table and are measured in jobs of their own.

With the tables at hand it takes about 6 minutes for each supernet: 100 subnets on the first
device, 20 of them twice, and 50 and 10 on each device in turn as the new one. Making a table
takes 2 minutes more.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from scipy.optimize import nnls

import hwsearch
from hwsearch.chains import ChainIndex
from hwsearch.devices import Device
from hwsearch.kit.build import load_for_latency
from hwsearch.kit.results import measure_missing
from hwsearch.prediction.latency import LatencyPredictor
from hwsearch.prediction.subnet_design import choose_subnets
from hwsearch.run.profile import (
    GROUP_SIZE,
    SETTINGS,
    Deviation,
    exported,
    make_table,
    open_results,
    shuffled,
)
from hwsearch.space import Architectures
from hwsearch.supernets.supernet import Supernet
from hwsearch.tables import LatencyTable, file_name, find_table
from hwsearch.terminal import TerminalProgress

SUPERNETS = ("cifar10-resnet", "ofa-mbv3-w1.0")
DEVICES = ("ort-cpu:threads=1", "ort-cpu:threads=2", "openvino:threads=1")
UNSEEN, AGAIN, FEW, MOST = 100, 20, 10, 50
SIZES, ENOUGH = (3, 5, 10, 15, 20, 30, 40, 50), 0.95
SPEED_BATCH = 1_000_000
SPEED_TARGET = 1_000_000


@dataclass(frozen=True)
class Measured:
    """Subnets and their latencies in ms."""

    archs: Architectures
    latencies_ms: np.ndarray

    def without(self, others: Architectures) -> "Measured":
        """Leave some out."""
        left = np.array([key not in set(others.ids) for key in self.archs.ids])
        return Measured(self.archs[left], self.latencies_ms[left])


@dataclass(frozen=True)
class Bench:
    """What all figures of one supernet share."""

    net: Supernet
    index: ChainIndex
    work: Path
    progress: TerminalProgress

    def table(self, device: Device) -> LatencyTable:
        """The table of a device: the one that is found, or a new one."""
        found = find_table(self.net.family, device.slug)
        if found is not None:
            table = LatencyTable.load(found)
            if dict(table.fingerprint) == device.fingerprint():
                return table
            self.progress.note(f"{found} is of another machine; making one here")
        path = self.work / file_name(self.net.family, device.slug)
        return make_table(self.net, device, path, progress=self.progress)

    def measured(self, device: Device, archs: Architectures, what: str) -> Measured:
        """Measure subnets in jobs of their own, or read what was measured before."""
        path = self.work / f"{self.net.family}@{device.slug}.{what}"
        results = open_results(self.net, self.index.specs, archs, device, path)
        measure_missing(
            results,
            partial(exported, self.net, results, self.progress),
            SETTINGS,
            self.progress,
            group_size=GROUP_SIZE,
            profiled=(),
            seed=100,
        )
        latencies = results.facts.latencies
        known = np.array([key in latencies for key in archs.ids])
        found = [latencies[key]["latency_ms"] for key in archs[known].ids]
        return Measured(archs[known], np.array(found))

    def macs(self, archs: Architectures) -> np.ndarray:
        """(n,) multiply-accumulates."""
        return np.asarray(self.index.counts(archs) @ self.index.macs)


def subnets_of(table: LatencyTable, net: Supernet) -> Measured:
    """The whole subnets that a table holds, as many as the target allows."""
    known = table.subnets[-MOST:]
    archs = net.space.architectures([subnet.architecture for subnet in known])
    return Measured(archs, np.array([subnet.latency_ms for subnet in known]))


def by_macs(bench: Bench, seen: Measured, archs: Architectures) -> np.ndarray:
    """Latency as a constant and a multiple of multiply-accumulates."""
    rows = np.column_stack([bench.macs(seen.archs), np.ones(len(seen.archs))])
    scale = rows.max(axis=0)
    shares = rows / scale / seen.latencies_ms[:, None]
    weights, _ = nnls(shares, np.ones(len(rows)))
    return np.column_stack([bench.macs(archs), np.ones(len(archs))]) / scale @ weights


def line(what: str, predicted: np.ndarray, unseen: Measured, covered: float | None = None) -> None:
    """Print how far predictions are off."""
    found = Deviation.of(predicted.tolist(), unseen.latencies_ms.tolist())
    sure = "" if covered is None else f"   95% intervals hold {covered:.0%}"
    print(
        f"  {what:34s} {found.mape:6.2%}  {found.within_5:6.1%}  {found.within_10:6.1%}"
        f"  {found.worst:6.1%}{sure}"
    )


def predicted_line(what: str, predictor: LatencyPredictor, unseen: Measured) -> None:
    """Print how far a fitted predictor is off, and how often its intervals hold."""
    low, high = predictor.interval(unseen.archs)
    inside = (low <= unseen.latencies_ms) & (unseen.latencies_ms <= high)
    line(what, predictor.predict_mean(unseen.archs), unseen, float(inside.mean()))


def known_device(
    bench: Bench, table: LatencyTable, unseen: Measured, again: Measured
) -> LatencyPredictor:
    """Print the figures on a device that has a table.

    Some of the unseen subnets were measured ``again`` at another time: what they differ by is what
    no prediction can do without.
    """
    seen = subnets_of(table, bench.net).without(unseen.archs)
    span = f"{unseen.latencies_ms.min():.3g} to {unseen.latencies_ms.max():.3g} ms"
    print(f"\n{bench.net.family} on {table.device}: {len(unseen.archs)} unseen subnets, {span}")
    print(f"  {'':34s} {'MAPE':>6s}  {'in 5%':>6s}  {'in 10%':>6s}  {'worst':>6s}")
    print(f"  {'target':34s} {'2%':>6s}  {'95%':>6s}  {'99%':>6s}")
    predictor = LatencyPredictor(bench.net.space, bench.index, table)
    alone = predictor.predict_mean(unseen.archs)
    predictor.fit(seen.archs, seen.latencies_ms)
    predicted_line(f"table and {len(seen.archs)} subnets", predictor, unseen)
    line("table alone", alone, unseen)
    regression = LatencyPredictor(bench.net.space, bench.index)
    regression.fit(seen.archs, seen.latencies_ms)
    predicted_line(f"regression alone, {len(seen.archs)} subnets", regression, unseen)
    line(f"MACs alone, {len(seen.archs)} subnets", by_macs(bench, seen, unseen.archs), unseen)
    subnets_needed(bench, table, seen, unseen)
    before = dict(zip(unseen.archs.ids, unseen.latencies_ms.tolist(), strict=True))
    both = np.array([key in before for key in again.archs.ids])
    first = Measured(again.archs[both], np.array([before[k] for k in again.archs[both].ids]))
    line(f"{len(first.archs)} of them measured again", again.latencies_ms[both], first)
    return predictor


def subnets_needed(bench: Bench, table: LatencyTable, seen: Measured, unseen: Measured) -> None:
    """Print how many measured subnets put 95% of the predictions within 5%."""
    for what, tables in (("table and subnets", [table]), ("regression alone", [])):
        shares = {}
        for n in SIZES:
            if n > len(seen.archs):
                break
            predictor = LatencyPredictor(bench.net.space, bench.index, *tables)
            predictor.fit(seen.archs[:n], seen.latencies_ms[:n])
            predicted = predictor.predict_mean(unseen.archs)
            found = Deviation.of(predicted.tolist(), unseen.latencies_ms.tolist())
            shares[n] = found.within_5
        enough = next(
            (str(n) for n, share in shares.items() if share >= ENOUGH), "more than there are"
        )
        text = ", ".join(f"{n}: {share:.0%}" for n, share in shares.items())
        print(f"  {what}: subnets for 95% within 5%: {enough} ({text})")


def new_device(bench: Bench, tables: Sequence[LatencyTable], few: Measured, unseen: Measured,
               device: Device) -> None:  # fmt: skip
    """Print the figures on a device that has no table, from tables of others."""
    others = ", ".join(table.device for table in tables)
    print(f"\n{bench.net.family} on {device.spec} as a new device, tables of {others}")
    print(f"  {'target: try for':34s} {'5%':>6s}")
    unseen = unseen.without(few.archs)
    predictor = LatencyPredictor(bench.net.space, bench.index, tables)
    predictor.fit(few.archs, few.latencies_ms)
    predicted_line(f"tables and {len(few.archs)} subnets", predictor, unseen)
    regression = LatencyPredictor(bench.net.space, bench.index)
    regression.fit(few.archs, few.latencies_ms)
    predicted_line(f"regression alone, {len(few.archs)} subnets", regression, unseen)
    line(f"MACs alone, {len(few.archs)} subnets", by_macs(bench, few, unseen.archs), unseen)


def speed(bench: Bench, predictor: LatencyPredictor) -> None:
    """Print how many latencies are predicted in a second."""
    archs = bench.net.space.sample(SPEED_BATCH, 0)
    predictor.predict_mean(archs[:10])
    begin = time.perf_counter()
    predictor.predict_mean(archs)
    rate = SPEED_BATCH / (time.perf_counter() - begin)
    few = archs[: SPEED_BATCH // 20]
    begin = time.perf_counter()
    predictor.predict(few)
    both = len(few) / (time.perf_counter() - begin)
    print(f"\n{bench.net.family}: {rate:,.0f} predicted latencies a second "
          f"(target {SPEED_TARGET:,}); with their deviations {both:,.0f}")  # fmt: skip


def run(name: str, specs: Sequence[str], work: Path, progress: TerminalProgress) -> None:
    """Measure what is missing for one supernet, and print its figures."""
    net = load_for_latency(name, None)
    bench = Bench(net=net, index=ChainIndex(net.space, net.blocks), work=work, progress=progress)
    devices = [hwsearch.load_device(spec) for spec in specs]
    try:
        tables = [bench.table(device) for device in devices]
        sums = [LatencyPredictor(net.space, bench.index, table).predict_mean for table in tables]
        seen = Architectures.concatenate([subnets_of(table, net).archs for table in tables])
        chosen = choose_subnets(net.space, UNSEEN, sums[0], seed=7, exclude=seen.unique())
        archs = shuffled(chosen, 9)
        unseen = [
            bench.measured(
                device, archs if device is devices[0] else shuffled(chosen[::2], 10), "unseen"
            )
            for device in devices
        ]
        again = bench.measured(devices[0], archs[:AGAIN], "again")
        few = []
        for place, device in enumerate(devices):
            size = sums[place - 1]  # of another device: this one is new
            ten = choose_subnets(net.space, FEW, size, seed=8, exclude=archs)
            few.append(bench.measured(device, shuffled(ten, 11), "few"))
    finally:
        for device in devices:
            device.close()
    predictor = known_device(bench, tables[0], unseen[0], again)
    for place, device in enumerate(devices):
        others = [table for table in tables if table is not tables[place]]
        new_device(bench, others, few[place], unseen[place], device)
    speed(bench, predictor)


def main() -> None:
    """Print the figures of every supernet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--supernet", nargs="+", default=SUPERNETS)
    parser.add_argument("--device", nargs="+", default=DEVICES)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    for name in given.supernet:
        with TerminalProgress(Console(stderr=True)) as progress:
            run(name, given.device, given.work, progress)


if __name__ == "__main__":
    main()
