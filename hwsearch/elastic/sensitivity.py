"""What a model loses as units, branches and layers go: from the repair, and runs for each."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwsearch.elastic import wire
from hwsearch.elastic.analysis.liveness import removables
from hwsearch.elastic.build import Slicer
from hwsearch.elastic.choices import ElasticSpace
from hwsearch.elastic.graph import Structure
from hwsearch.elastic.network import kept_units
from hwsearch.elastic.repair.repairs import Repair
from hwsearch.elastic.repair.sampling import Samples
from hwsearch.errors import EvaluationError
from hwsearch.models.execution import Session

_PROBED: Final = (3 / 4, 1 / 4)  # shares of a group's units that runs keep, about
_PASSES: Final = 4  # over all samples, that the runs take together
_FEWEST, _MOST = 8, 64  # samples of a run
_BATCH: Final = 16
_NOTHING: Final = 1e-12  # share of the variance that counts as no loss

Outputs = list[dict[str, NDArray[Any]]]
Losses = dict[str, NDArray[np.float64]]


def losses_of(
    structure: Structure,
    elastic: ElasticSpace,
    orders: Mapping[str, NDArray[np.int64]],
    repair: Repair,
    batches: Iterable[Mapping[str, NDArray[Any]]],
    progress: Callable[[int, int], None],
) -> Losses:
    """Return group, branch or layer -> share of the outputs' variance that is lost.

    A group's has the shape (units + 1,), by number of kept units; a branch's or layer's (2,),
    without it and with it. What layers that read a group lose (`Repair.residuals`) follows
    without a run for every number of units. How much of it reaches the outputs differs by up to
    two orders of magnitude between groups, and much less with the number: it is measured by two
    subnets for each group, that keep about three quarters and a quarter of its units, and its
    logarithm interpolated. Groups that no layer with statistics reads lose with the square of
    what is removed. What cannot be measured is absent.

    Args:
        structure: The model.
        elastic: Its choices, of which the groups and parts are measured.
        orders: Group -> its units, most important first.
        repair: Of its layers.
        batches: Calibration samples, of which some are taken.
        progress: Called with the runs done and the runs in all.
    """
    probes = list(_probes(structure, elastic, orders))
    samples = Samples(structure.graph, batches)
    most = min(max(_PASSES * samples.count // max(len(probes), 1), _FEWEST), _MOST)
    pieces = samples.spread(most).unpadded(structure.graph, _BATCH)
    whole = Session(structure.graph.proto, weights=structure.graph.weights)
    given = [whole(piece) for piece in pieces]
    slicer, measured = Slicer(structure), dict[str, dict[int, float]]()
    for done, (name, count, kept) in enumerate(probes):
        progress(done, len(probes))
        dropped = () if kept else (name,)
        try:
            run = Session(wire.parsed(slicer.serialised(kept, dropped, repair.weights(kept))))
            lost = _share_lost(given, [run(piece) for piece in pieces])
        except EvaluationError:
            continue
        if lost is not None:
            measured.setdefault(name, {})[count] = lost
    found: Losses = {}
    for name, lost_at in measured.items():
        if name in orders:
            residuals = repair.residuals(name).values()
            found[name] = _scaled(sum(residuals, np.zeros(len(orders[name]) + 1)), lost_at)
        else:
            found[name] = np.array([lost_at[0], 0.0])
    return found


def _scaled(curve: NDArray[np.float64], lost: Mapping[int, float]) -> NDArray[np.float64]:
    """Return a curve by number of kept units, scaled to what was lost at some of the numbers."""
    counts = sorted(lost)
    if min(curve[counts]) <= 0:
        curve = np.linspace(1.0, 0.0, len(curve)) ** 2
    logs = [np.log(max(lost[n], _NOTHING) / curve[n]) for n in counts]
    return np.asarray(curve * np.exp(np.interp(np.arange(len(curve)), counts, logs)))


def _probes(
    structure: Structure, elastic: ElasticSpace, orders: Mapping[str, NDArray[np.int64]]
) -> Iterator[tuple[str, int, dict[str, NDArray[np.bool_]]]]:
    """Yield name, number of kept units and mask of each group; no units and masks of parts."""
    groups = {group.name: group for group in structure.groups}
    parts = {part.name for part in removables(structure)}
    for meaning in elastic.meanings:
        (name, *others) = meaning.targets or ("",)
        if meaning.decides == "keep" and name in parts:
            yield name, 0, {}
        elif meaning.decides == "units" and not others:
            group = groups[name]
            counts = [n for n in meaning.choice.options if isinstance(n, int) and n < group.size]
            near = [min(counts, key=lambda n: abs(n / group.size - f)) for f in _PROBED if counts]
            for count in sorted(set(near)):
                yield name, count, {name: kept_units(group, orders[name], count)}


def _share_lost(given: Outputs, found: Outputs) -> float | None:
    """Return the mean over outputs of the variance lost, or None if no output tells."""
    shares = []
    for name in given[0]:
        old, new = ([piece[name] for piece in each] for each in (given, found))
        if old[0].dtype.kind != "f" or [a.shape for a in old] != [b.shape for b in new]:
            continue
        means = [a.mean(axis=0, dtype=np.float64) for a in old]
        if len({mean.shape for mean in means}) == 1:  # else numbers of tokens differ
            means = [np.average(means, axis=0, weights=list(map(len, old)))] * len(old)
        variance = sum(float(np.square(a - m).sum()) for a, m in zip(old, means, strict=True))
        error = sum(
            float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(old, new, strict=True)
        )
        if variance > 0 and np.isfinite(error):
            shares.append(error / variance)
    return float(np.mean(shares)) if shares else None
