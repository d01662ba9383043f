"""Measurement of a latency table: subnets that contain every block spec are timed and profiled.

`hwsearch.prediction.block_times` derives latencies of blocks from those of whole subnets. The
table is validated on other subnets. The models have the device's precision, or the chosen ones of
their blocks, and repeated weights, on which latency does not depend.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from math import ceil
from pathlib import Path

import numpy as np

from hwsearch.blocks import BlockSpec
from hwsearch.chains import ChainIndex
from hwsearch.devices import Device, MeasureSettings
from hwsearch.devices.fingerprint import differences
from hwsearch.devices.spec import file_precision
from hwsearch.errors import HwsearchError, InputError
from hwsearch.evaluation.build import check_chosen
from hwsearch.kit.manifest import PROFILE, Plan, SubnetEntry
from hwsearch.kit.results import Results, measure_missing
from hwsearch.models.quantize import check_converter
from hwsearch.models.repeated_weights import timing_model
from hwsearch.precision import has_boundaries, options_of
from hwsearch.prediction.subnet_design import choose_subnets, covering_subnets
from hwsearch.quantization import quantization_for
from hwsearch.run.progress import Progress, Silent
from hwsearch.space import Architectures
from hwsearch.supernets.supernet import Supernet
from hwsearch.tables import LatencyTable

REPEATS = 3
_PER_SPEC = 1.5  # measured subnets for each block spec where whole subnets alone tell latencies
VALIDATING = 20
GROUP_SIZE = 8
SETTINGS = MeasureSettings(seconds_per_model=2.0)
_GRADED = 4
_SECONDS_EACH = SETTINGS.seconds_per_model + 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """Errors of ``n`` predicted latencies, relative to the measured ones.

    ``mape`` is the mean absolute error, ``worst`` the largest one, ``within_5`` and ``within_10``
    are the shares of errors of at most 5% and 10%.
    """

    n: int
    mape: float
    within_5: float
    within_10: float
    worst: float

    @classmethod
    def of(cls, predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> "Deviation":
        """Return the deviation of n >= 1 predictions."""
        errors = np.abs(np.asarray(predicted_ms) / np.asarray(measured_ms) - 1.0)
        shares = {f"within_{limit}": float((errors <= limit / 100).mean()) for limit in (5, 10)}
        return cls(n=len(errors), mape=float(errors.mean()), worst=float(errors.max()), **shares)

    def __str__(self) -> str:
        return (
            f"off by {self.mape:.1%} on average, within 5% for {self.within_5:.0%} and within 10% "
            f"for {self.within_10:.0%} of {self.n} subnets"
        )


def deviation(table: LatencyTable, net: Supernet) -> Deviation | None:
    """Return the deviation of a table on its validation subnets; None if it has none."""
    pairs = []
    for subnet in table.subnets:
        if subnet.purpose == "validate":
            try:
                (arch,) = net.full_space.architectures([subnet.architecture])
            except InputError:  # of other choices of precision
                continue
            chain = [block.spec for block in net.timed_blocks(arch) or ()]
            if not table.missing(chain):
                pairs.append((table.latency_ms(chain), subnet.latency_ms))
    return Deviation.of(*zip(*pairs, strict=True)) if pairs else None


def make_table(
    net: Supernet,
    device: Device,
    path: Path,
    *,
    subnets: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure the block specs that a table lacks, and write the table.

    Results are saved beside the table; a stopped measurement continues from there, and loses at
    most the group of subnets that was being measured. An existing table of the same device is
    completed.

    ``net`` is restricted to the part that the table is to cover. Blocks are measured in
    ``subnets`` subnets, by default enough to have each spec in three, and more of them where
    blocks differ in precision: profiles do not tell what a boundary between them costs, so that
    latencies of whole subnets decide. ``seed`` decides the subnets and the order of turns.

    Raises:
        InputError: The subnets are no chains of blocks or cannot contain all specs, the converter
            to a precision is missing, the device does not take the chosen precisions, or an
            existing file has other content.
        HwsearchError: Some block specs could not be measured; the table has the others.
    """
    check_chosen(net, device)
    for each in options_of(net.precision, device.precision):
        check_converter(device.spec, each)
    progress = progress or Silent()
    unfinished = path.with_name(f"{path.name}.partial")
    before = _existing_table(net, device, path)
    index = ChainIndex(net.space, net.timed_blocks, seed)
    lacking = index.specs if before is None else before.missing(index.specs)
    if before is not None and not lacking:
        progress.note(f"{path} has all {len(index.specs)} block specs already")
        unfinished.unlink(missing_ok=True)  # left by a process killed after it wrote the table
        return before
    cover = covering(net, index, lacking, subnets, seed)
    macs = partial(net.exact, "macs")
    validating = choose_subnets(net.space, VALIDATING, macs, seed=seed + 1, exclude=cover)
    archs = Architectures.concatenate([cover, shuffled(validating, seed)])
    results = open_results(net, index.specs, archs, device, unfinished)
    progress.note(
        f"{len(lacking)} block specs in {len(cover)} subnets, and {len(validating)} to compare "
        f"with; at most about {max(1, round(len(results.missing()) * _SECONDS_EACH / 60))} min"
    )
    measure_missing(
        results,
        partial(exported, net, results, progress),
        SETTINGS,
        progress,
        group_size=GROUP_SIZE,
        profiled=() if has_boundaries(index.specs) else set(cover.ids),
        seed=seed,
    )
    costs = dict(zip(index.specs, index.macs.tolist(), strict=True))
    table = results.table(set(validating.ids), costs)
    if not table.blocks:
        raise HwsearchError("no subnet could be measured, as the notes above say")
    table = _completed(table, before, net)
    table.save(path)
    if unmeasured := table.missing(index.specs):
        raise HwsearchError(
            f"{len(unmeasured)} of {len(index.specs)} block specs could not be measured, as the "
            f"notes above say; {path} has the others, and the same command tries again"
        )
    unfinished.unlink(missing_ok=True)
    return table


def covering(
    net: Supernet, index: ChainIndex, specs: Sequence[BlockSpec], n: int | None, seed: int
) -> Architectures:
    """Return the subnets in which block specs are measured, in random order.

    Some subnets graded by size are included: with subnets of one size, the overhead per node
    cannot be separated from that per run.
    """
    space = net.space
    cover = covering_subnets(index, specs, repeats=REPEATS, seed=seed)
    graded = space.sample_spread(_GRADED, seed)
    cover = Architectures.concatenate([graded, cover]).unique()
    if n is None:
        n = max(len(cover), ceil(_PER_SPEC * len(specs)) if has_boundaries(index.specs) else 0)
    if n > len(cover):
        more = space.sample_distinct(n - len(cover), seed, exclude=cover)
        cover = Architectures.concatenate([cover, more])
    columns = [index.specs.index(spec) for spec in specs]
    held = np.cumsum(index.counts(cover)[:, columns], axis=0).all(axis=1)
    enough = int(np.argmax(held)) + 1
    if n < enough:
        raise InputError(
            f"{n} subnets cannot hold all {len(specs)} block specs; give --subnets {enough} "
            f"or more, {len(cover)} by default, or restrict the space"
        )
    return shuffled(cover[:n], seed)


def shuffled(archs: Architectures, seed: int) -> Architectures:
    """Return architectures in random order, so that machine drift does not correlate with size."""
    return archs[np.random.default_rng(seed).permutation(len(archs))]


def open_results(
    net: Supernet, specs: Sequence[BlockSpec], archs: Architectures, device: Device, path: Path
) -> Results:
    """Open the file of results of subnets on a device; failed measurements are repeated."""
    numbers = {spec: number for number, spec in enumerate(specs)}
    entries = [
        SubnetEntry(
            key=arch.key,
            architecture=arch.mapping,
            blocks={block.name: numbers[block.spec] for block in net.timed_blocks(arch) or ()},
        )
        for arch in archs
    ]
    plan = Plan(
        purpose=PROFILE,
        supernet=net.family,
        space=net.structures_digest,
        specs=tuple(specs),
        models=tuple(entries),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        results = Results(plan, device, path, "hwsearch profile")
    except InputError as error:
        raise InputError(f"{error}; or delete {str(path)!r} to begin anew") from error
    results.facts.failed.clear()
    return results


@contextmanager
def exported(
    net: Supernet, results: Results, progress: Progress, group: Sequence[SubnetEntry]
) -> Iterator[dict[str, Path]]:
    """Yield key -> model of a group of subnets; the results record failures."""
    precision, paths = file_precision(results.device.precision), {}
    quantization = quantization_for(results.device.fingerprint())
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
        for subnet in group:
            (arch,) = net.full_space.architectures([subnet.architecture])
            try:
                model = timing_model(net, arch, precision, quantization)
            except Exception as error:  # noqa: BLE001 - a family is foreign code
                results.facts.failed[subnet.key] = f"it cannot be built: {error}"
                progress.note(f"{subnet.key} cannot be built: {error}")
                continue
            paths[subnet.key] = Path(scratch) / f"{subnet.key}.onnx"
            paths[subnet.key].write_bytes(model.SerializeToString(deterministic=True))
        yield paths


def _existing_table(net: Supernet, device: Device, path: Path) -> LatencyTable | None:
    if not path.exists():
        return None
    table = LatencyTable.load(path)
    table.check_made_for(net.family, net.structures_digest, device.spec, where=repr(str(path)))
    if changes := differences(table.fingerprint, device.fingerprint()):
        raise InputError(
            f"{str(path)!r} was measured on another machine or with other software: {changes}; "
            "give another --out, or delete it to measure all of it here"
        )
    return table


def _completed(table: LatencyTable, before: LatencyTable | None, net: Supernet) -> LatencyTable:
    """Return the table with its earlier content and its deviation."""
    if before is not None:
        table = replace(
            table,
            overhead_ms=before.overhead_ms,
            blocks={**table.blocks, **before.blocks},
            subnets=(*before.subnets, *table.subnets),
        )
    facts = {**table.facts, "hwsearch": version("hwsearch")}
    found = deviation(table, net)
    return replace(table, facts=facts if found is None else {**facts, "validated": asdict(found)})
