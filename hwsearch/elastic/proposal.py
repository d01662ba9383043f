"""The default search space of a structure: options, ties, conditions, what is searched."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hwsearch.choices import Choice, Option
from hwsearch.elastic.choices import TIED, ElasticSpace, Meaning
from hwsearch.elastic.graph import Branch, Group, Structure
from hwsearch.elastic.input_sizes import InputSize
from hwsearch.elastic.ties import run_name, tied
from hwsearch.elastic.width_options import FRACTIONS, STEP, width_options
from hwsearch.errors import InputError

RESOLUTION = "resolution"
_WORTH = 0.002  # share of the MACs below which a group or branch keeps all by default
_BRANCHES = 1 / 4  # share of the choices that are branches by default, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSettings:
    """How the choices of an elastic model are made.

    Attributes:
        step: Channels that widths are multiples of; what the device turns into time.
        fractions: Shares of units that the options of a width are near.
        most: Choices to be searched by default, at most: beyond it equal layers are tied.
    """

    step: int = STEP
    fractions: tuple[float, ...] = FRACTIONS
    most: int = 60

    def __post_init__(self) -> None:
        if self.step < 1 or self.most < 1:
            raise InputError(f"step is {self.step} and most is {self.most}; both are at least 1")
        if not self.fractions or not all(0 < fraction <= 1 for fraction in self.fractions):
            raise InputError(f"fractions are {self.fractions}; give some above 0, up to 1")


def propose(
    structure: Structure,
    settings: SpaceSettings | None = None,
    sizes: Sequence[InputSize] = (),
) -> ElasticSpace:
    """Return the search space of a structure.

    By default these keep all: groups that are not exact, groups and branches of almost no MACs,
    and the smaller branches beyond a quarter of the choices; the input keeps its size. Above
    ``settings.most`` choices equal layers are tied.

    Args:
        structure: Its groups and branches become choices.
        settings: None takes the defaults.
        sizes: Input sizes that the graph takes, ascending; less than two make no choice.

    Raises:
        InputError: There is nothing to choose.
    """
    settings = settings or SpaceSettings()
    options = {
        group.name: width_options(group, settings.step, settings.fractions)
        for group in structure.groups
    }
    groups = [group for group in structure.groups if len(options[group.name]) > 1]
    macs, places = _Macs(structure), _Places(structure)
    branches = _searched_branches(structure.branches, macs, settings.most)
    searched = [group for group in groups if group.exact and macs.of_group(group) >= _WORTH]
    names = {branch.name for branch in branches} | {group.name for group in searched}
    defaults: dict[str, Option] = {
        **{branch.name: True for branch in structure.branches if branch.name not in names},
        **{group.name: group.size for group in groups if group.name not in names},
    }
    entries = [
        (places.of_branch(branch), _meaning("keep", places.choice(branch), branch))
        for branch in structure.branches
    ]
    for run in tied(searched, options, max(1, settings.most - len(branches))):
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
    return ElasticSpace(structure, meanings, defaults, sizes if len(sizes) > 1 else ())


class _Macs:
    """Shares of the model's MACs that groups and branches take part in."""

    def __init__(self, structure: Structure) -> None:
        self._of_nodes = {work.node: work.macs for work in structure.work}
        self._total = max(1, sum(self._of_nodes.values()))
        self._of_groups: dict[str, int] = {}
        for work in structure.work:
            for name in {name for _, widths in work.factors for name in widths}:
                self._of_groups[name] = self._of_groups.get(name, 0) + work.macs

    def of_group(self, group: Group) -> float:
        return self._of_groups.get(group.name, 0) / self._total

    def of_branch(self, branch: Branch) -> float:
        return sum(self._of_nodes.get(node, 0) for node in branch.nodes) / self._total


class _Places:
    """Where groups and branches lie in the graph, and which branches they lie in."""

    def __init__(self, structure: Structure) -> None:
        nodes = structure.graph.proto.graph.node
        self._rows = {node.name: row for row, node in enumerate(nodes)}
        self._inside = {each.name: frozenset(each.nodes) for each in structure.branches}
        self._branches = sorted(structure.branches, key=lambda each: len(each.nodes))

    def of_branch(self, branch: Branch) -> tuple[int, int, int]:
        """Return a sorting key: outer branches before inner ones, and before their groups."""
        first = min((self._rows[node] for node in branch.nodes), default=self._rows[branch.node])
        return first, 0, -len(branch.nodes)

    def of_groups(self, groups: Sequence[Group]) -> tuple[int, int, int]:
        """Return a sorting key: several groups that are tied before each of them."""
        return min(self._rows[node] for node in _nodes_of(groups)), 1, -len(groups)

    def home(self, groups: Sequence[Group]) -> Branch | None:
        """Return the innermost branch that all weights of groups lie in."""
        nodes = _nodes_of(groups)
        return next((b for b in self._branches if nodes <= self._inside[b.name]), None)

    def choice(self, branch: Branch) -> Choice:
        """Return a branch's choice.

        It is active while the branch around it is kept, and where both sides of an addition are
        branches the second is active while the first is kept.
        """
        around = [
            other
            for other in self._branches
            if other is not branch
            and branch.node in self._inside[other.name]
            and self._inside[branch.name] <= self._inside[other.name]
        ]
        same = [
            other
            for other in self._branches
            if other.node == branch.node and self.of_branch(other) < self.of_branch(branch)
        ]
        return Choice(branch.name, (False, True), _kept(next(iter([*same, *around]), None)))


def _meaning(
    decides: Literal["units", "keep"], choice: Choice, *targets: Group | Branch
) -> Meaning:
    names = tuple(target.name for target in targets)
    return Meaning(choice=choice, decides=decides, targets=names)


def _nodes_of(groups: Iterable[Group]) -> set[str]:
    return {slot.node for group in groups for slot in group.slots}


def _kept(branch: Branch | None) -> tuple[str, tuple[Option, ...]] | None:
    return None if branch is None else (branch.name, (True,))


def _searched_branches(branches: Sequence[Branch], macs: _Macs, most: int) -> list[Branch]:
    """Return the branches of the most MACs."""
    worthy = [branch for branch in branches if macs.of_branch(branch) >= _WORTH]
    worthy.sort(key=lambda branch: -macs.of_branch(branch))
    return worthy[: int(most * _BRANCHES)]


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
