"""Summary of an analysed model: which share of its MACs is elastic, and what was left out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hwsearch.elastic.analysis.liveness import removables
from hwsearch.elastic.graph import Group, Rest, Structure

_LISTED = 8  # reasons, at most; the rest is counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The groups of one kind, or the branches.

    Attributes:
        count: How many there are.
        macs: Share of the model's MACs that they take part in, in [0, 1].
    """

    count: int
    macs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the analysis of a model found.

    Attributes:
        macs: For one sample.
        params: Numbers in floating-point weights.
        elastic: Share of the MACs that exact groups take part in, in [0, 1].
        kinds: Kind of exact groups -> their share.
        inexact: Groups whose removal also changes what others compute; kept whole by default.
        branches: Branches and layers, which can be left out.
        rest: What was left alone, and why, most MACs first.
        notes: What users should know of the graph, and what can be done.
    """

    macs: int
    params: int
    elastic: float
    kinds: dict[str, Share]
    inexact: Share
    branches: Share
    rest: tuple[Rest, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return it as text, a fact per line."""
        found = [
            f"{self.macs / 1e6:,.1f} million MACs, {self.params / 1e6:,.2f} million parameters; "
            f"{self.elastic:.1%} of the MACs are elastic"
        ]
        found += [
            f"{kind}: {_many(share.count, 'group')}, {share.macs:.1%} of the MACs"
            for kind, share in self.kinds.items()
        ]
        if self.branches.count:
            what = _many(self.branches.count, "branch or layer", "branches and layers")
            found.append(f"{what} that can be left out: {self.branches.macs:.1%} of the MACs")
        if self.inexact.count:
            found.append(
                f"{_many(self.inexact.count, 'group')} kept whole by default, since removal is "
                f"not exact: {self.inexact.macs:.1%} of the MACs"
            )
        costly = [rest for rest in self.rest if rest.macs][:_LISTED]
        for rest in costly:
            share = rest.macs / max(1, self.macs)
            found.append(
                f"left whole, {share:.1%} of the MACs: channels at {rest.what}: {rest.reason}"
            )
        if len(self.rest) > len(costly):
            more = _many(len(self.rest) - len(costly), "place", "places")
            found.append(f"left whole: channels at {more}{' more' if costly else ''}")
        return [*found, *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "macs": self.macs,
            "params": self.params,
            "elastic": self.elastic,
            "kinds": {kind: [share.count, share.macs] for kind, share in self.kinds.items()},
            "inexact": [self.inexact.count, self.inexact.macs],
            "branches": [self.branches.count, self.branches.macs],
            "notes": list(self.notes),
            "rest": [[rest.what, rest.reason, rest.macs] for rest in self.rest],
        }


def summary_of(structure: Structure) -> Summary:
    """Return the summary of a structure."""
    total = sum(work.macs for work in structure.work)

    def share(groups: Iterable[Group]) -> Share:
        names = {group.name for group in groups}
        touched = sum(
            work.macs
            for work in structure.work
            if any(name in names for _, widths in work.factors for name in widths)
        )
        return Share(count=len(names), macs=touched / max(1, total))

    exact = [group for group in structure.groups if group.exact]
    parts = removables(structure)
    inside = {node for part in parts for node in part.nodes}
    in_branches = sum(work.macs for work in structure.work if work.node in inside)
    weights = structure.graph.weights.values()
    return Summary(
        macs=total,
        params=sum(weight.size for weight in weights if weight.dtype.kind == "f"),
        elastic=share(exact).macs,
        kinds={
            kind: share(group for group in exact if group.kind == kind)
            for kind in dict.fromkeys(group.kind for group in exact)
        },
        inexact=share(group for group in structure.groups if not group.exact),
        branches=Share(count=len(parts), macs=in_branches / max(1, total)),
        rest=tuple(sorted(structure.rest, key=lambda rest: -rest.macs)),
        notes=structure.graph.notes,
    )


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
