"""Filling a latency table: few subnets that hold every block spec, measured and profiled.

Blocks are measured in context, inside whole subnets; `hwsearch.prediction.block_times` says how
their latencies come out of that, and what was seen of it. Then the table is compared with subnets
that it was not made from. Weights decide no latency, so they may be random.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hwsearch.blocks import BlockSpec
from hwsearch.chains import ChainIndex
from hwsearch.devices import Device
from hwsearch.errors import HwsearchError, InputError
from hwsearch.prediction.block_times import (
    BlockTimes,
    Observed,
    from_profiles,
    from_subnets,
)
from hwsearch.prediction.subnet_design import choose_subnets, covering_subnets
from hwsearch.run.profile_notes import Note, Notes, chosen_notes
from hwsearch.run.profile_steps import SETTINGS, measure_subnets
from hwsearch.run.progress import Progress, Silent
from hwsearch.space import Architecture, Architectures
from hwsearch.supernets.base import Supernet
from hwsearch.supernets.zoo import load_supernet, supernet_names
from hwsearch.tables import LatencyTable, Purpose, SubnetLatency

REPEATS = 3
VALIDATING = 20
_GRADED = 4
_SECONDS_EACH = SETTINGS.seconds_per_model + 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How far a table is off on subnets that it was not made from.

    Attributes:
        n: Number of subnets.
        mape: Mean absolute error relative to the latency.
        within_5: Share of them that it is off by at most 5%.
        within_10: The same for 10%.
        worst: Largest relative error.
    """

    n: int
    mape: float
    within_5: float
    within_10: float
    worst: float

    @classmethod
    def of(cls, predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> "Accuracy":
        """Compare predictions with what was measured, at least one."""
        errors = np.abs(np.asarray(predicted_ms) / np.asarray(measured_ms) - 1.0)
        return cls(
            n=len(errors),
            mape=float(errors.mean()),
            within_5=float((errors <= 0.05).mean()),
            within_10=float((errors <= 0.10).mean()),
            worst=float(errors.max()),
        )

    def __str__(self) -> str:
        return (
            f"off by {self.mape:.1%} on average, within 5% for {self.within_5:.0%} and within 10% "
            f"for {self.within_10:.0%} of {self.n} subnets"
        )


def load_for_latency(name: str, checkpoint: str | None) -> Supernet:
    """Load a supernet whose weights do not matter: random ones where none ship with it.

    Raises:
        InputError: As for `hwsearch.load_supernet`.
    """
    try:
        return load_supernet(name, checkpoint)
    except InputError:
        if checkpoint is not None or name not in supernet_names():
            raise
        return load_supernet(name, "random:0")


def make_table(
    net: Supernet,
    device: Device,
    path: Path,
    *,
    subnets: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure what a table lacks of a supernet's block specs, and write it.

    Progress is kept in a file beside the table, and measuring goes on from there; at most the
    subnets that were being measured are lost.

    Args:
        net: The supernet, restricted to the part that the table should cover.
        device: Where latency counts.
        path: Of the table. A table of the same device that is there already is completed.
        subnets: How many subnets the blocks are measured in; by default so many that each spec
            is in three.
        seed: Draws the subnets and the order of turns.
        progress: Told of every measured subnet.

    Returns:
        The table, with every block spec of the space.

    Raises:
        InputError: The subnets are no chains of blocks or cannot hold all specs, the device
            takes files of another precision, or the file there is of something else.
        HwsearchError: Some block specs could not be measured; the others are in the table.
    """
    if device.precision != "fp32":
        raise InputError(
            f"device {device.spec} takes {device.precision} files, and latency tables are made "
            "of fp32 ones; a search on it measures every subnet"
        )
    progress = progress or Silent()
    before = _table_there(net, device, path)
    index = ChainIndex(net.space, net.blocks, seed)
    lacking = index.specs if before is None else before.missing(index.specs)
    if before is not None and not lacking:
        progress.note(f"{path} has all {len(index.specs)} block specs already")
        return before
    job = _Job(net=net, device=device, index=index, seed=seed)
    cover = job.cover(lacking, subnets)
    validating = job.validating(cover)
    keys = [*cover.ids, *validating.ids]
    notes = Notes(path.with_name(f"{path.name}.partial"), job.identity)
    todo = [key for key in keys if key not in notes]
    progress.note(
        f"{len(lacking)} block specs in {len(cover)} subnets, and {len(validating)} to compare "
        f"with; at most about {max(1, round(len(todo) * _SECONDS_EACH / 60))} min"
    )
    progress.phase("profile", len(keys), done=len(keys) - len(todo))
    purposes: tuple[tuple[Architectures, Purpose], ...]
    purposes = ((cover, "cover"), (validating, "validate"))
    for archs, purpose in purposes:
        measure_subnets(net, device, archs, notes, purpose=purpose, seed=seed, progress=progress)
    table = job.table(before, chosen_notes(notes, keys))
    table.save(path)
    unmeasured = table.missing(index.specs)
    if unmeasured:
        raise HwsearchError(
            f"{len(unmeasured)} of {len(index.specs)} block specs could not be measured, as the "
            f"notes above say; {path} has the others, and the same command tries again"
        )
    notes.remove()
    return table


def shuffled(archs: Architectures, seed: int) -> Architectures:
    """Return architectures in random order.

    Those of one size measured together would make the machine's mood at that time look like an
    effect of size.
    """
    return archs[np.random.default_rng(seed).permutation(len(archs))]


def accuracy(table: LatencyTable, net: Supernet) -> Accuracy | None:
    """Compare a table with the subnets that it was validated on; None where it has none."""
    checked = [subnet for subnet in table.subnets if subnet.purpose == "validate"]
    archs = net.full_space.architectures([subnet.architecture for subnet in checked])
    chains = [[block.spec for block in net.blocks(arch) or ()] for arch in archs]
    pairs = [
        (table.latency_ms(chain), subnet.latency_ms)
        for chain, subnet in zip(chains, checked, strict=True)
        if not table.missing(chain)
    ]
    return Accuracy.of(*zip(*pairs, strict=True)) if pairs else None


def _table_there(net: Supernet, device: Device, path: Path) -> LatencyTable | None:
    if not path.exists():
        return None
    table = LatencyTable.load(path)
    table.check_made_for(net.family, net.full_space.digest, device.spec, where=repr(str(path)))
    now = device.fingerprint()
    if dict(table.fingerprint) != now:
        changed = [
            n for n in {**table.fingerprint, **now} if table.fingerprint.get(n) != now.get(n)
        ]
        raise InputError(
            f"{str(path)!r} was measured on another machine or with other software: "
            f"{', '.join(f'{n} was {table.fingerprint.get(n)}, is {now.get(n)}' for n in changed)}"
            "; give another --out, or delete it to measure all of it here"
        )
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What all steps of making a table share."""

    net: Supernet
    device: Device
    index: ChainIndex
    seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """What measurements must agree in."""
        return {
            "supernet": self.net.family,
            "space": self.net.full_space.digest,
            "device": self.device.spec,
            "fingerprint": self.device.fingerprint(),
        }

    def cover(self, specs: Sequence[BlockSpec], n: int | None) -> Architectures:
        """Choose the subnets in which specs are measured.

        A few graded by size are among them: between subnets of one size, what every node adds
        cannot be told from what every run adds.
        """
        space = self.net.space
        cover = covering_subnets(self.index, specs, repeats=REPEATS, seed=self.seed)
        graded = space.sample_spread(_GRADED, self.seed)
        cover = Architectures.concatenate([graded, cover]).unique()
        if n is None:
            return shuffled(cover, self.seed)
        if n > len(cover):
            more = space.sample_distinct(n - len(cover), self.seed, exclude=cover)
            cover = Architectures.concatenate([cover, more])
        place = [self.index.specs.index(spec) for spec in specs]
        held = np.cumsum(self.index.counts(cover)[:, place], axis=0).all(axis=1)
        enough = int(np.argmax(held)) + 1
        if n < enough:
            raise InputError(
                f"{n} subnets cannot hold all {len(specs)} block specs; give --subnets {enough} "
                f"or more, {len(cover)} by default, or restrict the space"
            )
        return shuffled(cover[:n], self.seed)

    def validating(self, cover: Architectures) -> Architectures:
        """Choose other subnets that the table is compared with."""
        chosen = choose_subnets(
            self.net.space,
            VALIDATING,
            lambda archs: self.index.counts(archs) @ self.index.macs,
            seed=self.seed + 1,
            exclude=cover,
        )
        return shuffled(chosen, self.seed)

    def table(self, before: LatencyTable | None, notes: list[tuple[str, Note]]) -> LatencyTable:
        """Make the table of what was measured, with what was there before."""
        subnets = [note.subnet for _, note in notes]
        times = self._block_times([note for _, note in notes if note.subnet.purpose == "cover"])
        anchor = [subnet.latency_ms / subnet.ratio for subnet in subnets]
        table = LatencyTable(
            supernet=self.net.family,
            space=self.net.full_space.digest,
            device=self.device.spec,
            slug=self.device.slug,
            fingerprint=self.device.fingerprint(),
            created=f"{datetime.now(UTC):%Y-%m-%d}",
            baseline_ms=float(np.median(anchor)),
            overhead_ms=times.overhead_ms if before is None else before.overhead_ms,
            blocks={**times.blocks, **(before.blocks if before is not None else {})},
            subnets=(*(before.subnets if before is not None else ()), *subnets),
            facts={"method": times.method, "hwsearch": version("hwsearch")},
        )
        found = accuracy(table, self.net)
        if found is None:
            return table
        figures = {name: getattr(found, name) for name in Accuracy.__slots__}
        return replace(table, facts={**table.facts, "validated": figures})

    def _block_times(self, notes: Sequence[Note]) -> BlockTimes:
        if not notes:
            raise HwsearchError(
                "no subnet could be measured, as the notes above say; nothing was written"
            )
        macs = dict(zip(self.index.specs, self.index.macs.tolist(), strict=True))
        observed = [
            Observed(
                chain=[(b.name, b.spec) for b in self.net.blocks(self._arch(note.subnet)) or ()],
                latency_ms=note.subnet.latency_ms,
                blocks_ms=note.blocks_ms,
                nodes=note.nodes,
            )
            for note in notes
        ]
        profiled = [each for each in observed if each.blocks_ms is not None]
        held = {spec for each in profiled for _, spec in each.chain}
        if held and held.issuperset(spec for each in observed for _, spec in each.chain):
            return from_profiles(profiled)
        return from_subnets(observed, macs)

    def _arch(self, subnet: SubnetLatency) -> Architecture:
        return self.net.space.architectures(subnet.architecture)[0]
