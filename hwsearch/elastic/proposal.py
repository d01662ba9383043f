"""The default search space of a structure: options, ties, conditions, what is searched."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hwsearch.choices import Choice, Option
from hwsearch.elastic.analysis.liveness import Removable, removables
from hwsearch.elastic.choices import TIED, ElasticSpace, Meaning
from hwsearch.elastic.graph import Group, Structure
from hwsearch.elastic.input_sizes import InputSize
from hwsearch.elastic.ties import run_name, tied
from hwsearch.elastic.width_options import FRACTIONS, processor_step, width_options
from hwsearch.errors import InputError

RESOLUTION = "resolution"
_WORTH = 0.002  # share of the MACs below which a group or branch is kept whole by default
_PARTS = 1 / 4  # share of the choices that are about branches and layers by default, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSettings:
    """How the choices of an elastic model are made.

    Attributes:
        step: Channels that widths are multiples of: what a device turns into time. None takes the
            step of the folder that is opened, or else that of this machine's processor.
        fractions: Shares of units that the options of a width are near.
        most: Choices to be searched by default, at most: beyond it equal layers are tied.
    """

    step: int | None = None
    fractions: tuple[float, ...] = FRACTIONS
    most: int = 60

    def __post_init__(self) -> None:
        if self.most < 1 or (self.step is not None and self.step < 1):
            raise InputError(f"step is {self.step} and most is {self.most}; both are at least 1")
        if not self.fractions or not all(0 < fraction <= 1 for fraction in self.fractions):
            raise InputError(f"fractions are {self.fractions}; give some above 0, up to 1")


def propose(
    structure: Structure,
    settings: SpaceSettings | None = None,
    sizes: Sequence[InputSize] = (),
) -> ElasticSpace:
    """Return the search space of a structure.

    By default these are kept whole: groups that are not exact, what takes almost no MACs, branches
    of a layer that can be left out itself, and the smaller branches and layers beyond a quarter of
    the choices; the input keeps its size. Above ``settings.most`` choices equal layers are tied.

    Args:
        structure: Its groups, branches and layers become choices.
        settings: None takes the defaults.
        sizes: Input sizes that the graph takes, ascending; less than two make no choice.

    Raises:
        InputError: There is nothing to choose.
    """
    settings = settings or SpaceSettings()
    step = settings.step or processor_step()
    options = {
        group.name: width_options(group, step, settings.fractions) for group in structure.groups
    }
    groups = [group for group in structure.groups if len(options[group.name]) > 1]
    macs, places = _Macs(structure), _Places(structure)
    parts = removables(structure)
    kept_or_not = _searched_parts(parts, macs, places, settings.most)
    searched = [group for group in groups if group.exact and macs.of_group(group) >= _WORTH]
    names = {part.name for part in kept_or_not} | {group.name for group in searched}
    defaults: dict[str, Option] = {
        **{part.name: True for part in parts if part.name not in names},
        **{group.name: group.size for group in groups if group.name not in names},
    }
    entries = [
        (places.of_part(part), _meaning("keep", places.choice(part), part)) for part in parts
    ]
    for run in tied(searched, options, max(1, settings.most - len(kept_or_not))):
        if len(run) > 1:
            name = _unused(run_name([group.name for group in run]), names)
            tie = Choice(name, options[run[0].name], _kept(places.home(run)))
            entries.append((places.of_groups(run), _meaning("units", tie, *run)))
            defaults |= {group.name: TIED for group in run}
    for group in groups:
        own: tuple[Option, ...] = options[group.name]
        if defaults.get(group.name) == TIED:
            own = (*own, TIED)
        choice = Choice(group.name, own, _kept(places.home([group])))
        entries.append((places.of_groups([group]), _meaning("units", choice, group)))
    meanings = [meaning for _, meaning in sorted(entries, key=lambda entry: entry[0])]
    if len(sizes) > 1:
        resolution = Choice(RESOLUTION, tuple(size.option for size in sizes))
        defaults[RESOLUTION] = sizes[-1].option
        meanings.insert(0, Meaning(choice=resolution, decides="size"))
    if not meanings:
        raise InputError(_nothing_to_choose(structure))
    return ElasticSpace(structure, meanings, defaults, sizes if len(sizes) > 1 else (), step)


class _Macs:
    """Shares of the model's MACs that groups, branches and layers take part in."""

    def __init__(self, structure: Structure) -> None:
        self._of_nodes = {work.node: work.macs for work in structure.work}
        self._total = max(1, sum(self._of_nodes.values()))
        self._of_groups: dict[str, int] = {}
        for work in structure.work:
            for name in {name for _, widths in work.factors for name in widths}:
                self._of_groups[name] = self._of_groups.get(name, 0) + work.macs

    def of_group(self, group: Group) -> float:
        return self._of_groups.get(group.name, 0) / self._total

    def nodes_of(self, part: Removable) -> frozenset[str]:
        return frozenset(node for node in part.nodes if node in self._of_nodes)

    def of_part(self, part: Removable) -> float:
        return sum(self._of_nodes[node] for node in self.nodes_of(part)) / self._total


class _Places:
    """Where groups, branches and layers lie in the graph, and what they lie in."""

    def __init__(self, structure: Structure) -> None:
        nodes = structure.graph.proto.graph.node
        self._rows = {node.name: row for row, node in enumerate(nodes)}
        self._makers = {name: self._rows[node.name] for node in nodes for name in node.output}
        parts = removables(structure)
        self._inside = {each.name: frozenset(each.nodes) for each in parts}
        self._parts = sorted(parts, key=lambda each: len(each.nodes))

    def of_part(self, part: Removable) -> tuple[int, int, int]:
        """Return a sorting key: outer parts before inner ones, and before their groups."""
        first = min((self._rows[node] for node in part.nodes), default=self._makers[part.output])
        return first, 0, -len(part.nodes)

    def of_groups(self, groups: Sequence[Group]) -> tuple[int, int, int]:
        """Return a sorting key: several groups that are tied before each of them."""
        return min(self._rows[node] for node in _nodes_of(groups)), 1, -len(groups)

    def home(self, groups: Sequence[Group]) -> Removable | None:
        """Return the innermost part that all weights of groups lie in."""
        nodes = _nodes_of(groups)
        return next((each for each in self._parts if nodes <= self._inside[each.name]), None)

    def around(self, part: Removable) -> list[Removable]:
        """Return the parts that a part lies in, the innermost first."""
        nodes = self._inside[part.name] | ({part.addition} if part.addition else set())
        return [
            other
            for other in self._parts
            if nodes <= self._inside[other.name] and len(nodes) < len(self._inside[other.name])
        ]

    def choice(self, part: Removable) -> Choice:
        """Return the choice of a branch or layer.

        It is active while the part around it is kept, and where both sides of an addition are
        branches the second is active while the first is kept.
        """
        same = [
            other
            for other in self._parts
            if part.addition
            and other.addition == part.addition
            and self.of_part(other) < self.of_part(part)
        ]
        parent = next(iter([*same, *self.around(part)]), None)
        return Choice(part.name, (False, True), _kept(parent))


def _meaning(
    decides: Literal["units", "keep"], choice: Choice, *targets: Group | Removable
) -> Meaning:
    names = tuple(target.name for target in targets)
    return Meaning(choice=choice, decides=decides, targets=names)


def _nodes_of(groups: Iterable[Group]) -> set[str]:
    return {slot.node for group in groups for slot in group.slots}


def _kept(part: Removable | None) -> tuple[str, tuple[Option, ...]] | None:
    return None if part is None else (part.name, (True,))


def _searched_parts(
    parts: Sequence[Removable], macs: _Macs, places: _Places, most: int
) -> list[Removable]:
    """Return the branches and layers of the most MACs, none within another one."""
    worthy = [part for part in parts if macs.of_part(part) >= _WORTH]
    branches = {macs.nodes_of(part) for part in worthy if part.addition}
    # A layer that is no more than a branch and its activation: the branch says it as well.
    worthy = [part for part in worthy if part.addition or macs.nodes_of(part) not in branches]
    layers = {part.name for part in worthy if not part.addition}
    worthy = [each for each in worthy if not layers & {p.name for p in places.around(each)}]
    worthy.sort(key=lambda part: -macs.of_part(part))
    return worthy[: int(most * _PARTS)]


def _unused(name: str, used: set[str]) -> str:
    while name in used:
        name = f"{name}.tied"
    return name


def _nothing_to_choose(structure: Structure) -> str:
    reasons = "; ".join(f"{rest.what}: {rest.reason}" for rest in structure.rest[:5])
    return (
        "nothing in this model can be made smaller without changing what it computes"
        + (f" ({reasons})" if reasons else "")
        + "; give a model of several layers with weights"
    )
