"""Evidence: accuracies from a CSV, of which nothing says under which circumstances they hold.

They shape what a search predicts, for as long as its own measurements agree, and are no number of
its front.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwsearch.choices import Choice, Option
from hwsearch.errors import InputError
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.files import digest_of_text, write_atomic
from hwsearch.objectives import FloatArray
from hwsearch.run.setup import FORMER_COLUMN, FRONT_COLUMNS, TRIAL_COLUMNS, Setup
from hwsearch.space import Architectures, SearchSpace
from hwsearch.supernets.base import EXACT

FILE = "evidence.csv"  # the copy that a run's folder keeps
_HOW = "it needs a column for every choice and one for the metric, as 'Run.trials' writes them"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """Accuracies of distinct architectures.

    Attributes:
        path: The CSV, as it was given.
        metric: What was measured.
        archs: n of the space that is searched.
        values: (n,) means of what the CSV says of each.
        left_out: How many architectures of the CSV lie outside of what is searched.
    """

    path: str
    metric: str
    archs: Architectures
    values: FloatArray
    left_out: int = 0

    @property
    def recorded(self) -> dict[str, str | int]:
        """What ``config.toml`` says of it."""
        return {
            "path": self.path,
            "digest": digest_of_text(self._text()),
            "evidence": len(self.archs),
        }

    @property
    def note(self) -> str:
        """What whoever watches should know, in one sentence."""
        outside = f" ({self.left_out} more lie outside of what is searched)"
        return (
            f"{self.metric} of {len(self.archs)} architectures from {self.path} is evidence: it "
            f"is predicted from to choose, and then measured{outside if self.left_out else ''}"
        )

    def keep(self, folder: Path) -> None:
        """Write the copy that a resumed run reads."""
        write_atomic(folder / FILE, self._text())

    def _text(self) -> str:
        text = io.StringIO()
        names = self.archs.space.names
        writer = csv.DictWriter(text, [*names, self.metric], restval="", lineterminator="\n")
        writer.writeheader()
        for arch, value in zip(self.archs, self.values.tolist(), strict=True):
            writer.writerow({**arch.mapping, self.metric: repr(value)})
        return text.getvalue()


def read_evidence(path: Path, setup: Setup) -> Evidence:
    """Read a CSV with a column per choice and one of the metric.

    Rows without a value are left out, and those of one architecture averaged. Columns of a run's
    tables may be there too, and make no difference.

    Raises:
        InputError: It cannot be read, is of another space (the text names the first difference),
            lacks the metric, holds what is no finite number, or has no architecture in the space
            that is searched.
    """
    metric = setup.task.metric.name
    rows = _rows(path)
    _check_columns(path, rows, setup.net.full_space, metric)
    found: dict[str, tuple[Mapping[str, Option], list[float]]] = {}
    for number, row in rows:
        if not row[metric]:
            continue
        where = f"warm start {str(path)!r}, row {number}"
        mapping = _mapping(where, row, setup.net.full_space)
        (arch,) = architectures_of(setup.net.full_space, [mapping], where)
        found.setdefault(arch.key, (arch.mapping, []))[1].append(_number(where, metric, row))
    space = setup.net.space
    inside = [(mapping, values) for mapping, values in found.values() if lies_in(space, mapping)]
    if not inside:
        raise InputError(
            f"warm start {str(path)!r} has {metric} of {len(found)} architectures, none of them "
            "in the part of the space that is searched; change --freeze and --only, or leave it "
            "out"
        )
    return Evidence(
        path=str(path),
        metric=metric,
        archs=space.architectures([mapping for mapping, _ in inside]),
        values=np.array([np.mean(values) for _, values in inside]),
        left_out=len(found) - len(inside),
    )


def architectures_of(
    space: SearchSpace, mappings: Iterable[Mapping[str, object]], where: str
) -> Architectures:
    """Build architectures that something else describes.

    Raises:
        InputError: They are of another space; the text names the first difference.
    """
    try:
        return space.architectures(mappings)
    except InputError as error:
        raise InputError(f"{where} is of another search space: {error}") from error


def lies_in(space: SearchSpace, mapping: Mapping[str, Option]) -> bool:
    """Whether an architecture of the full space is one of a part of it."""
    choices = {choice.name: choice.options for choice in space.choices}
    return all(name in choices and option in choices[name] for name, option in mapping.items())


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True, restval=""))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"warm start {str(path)!r} cannot be read: {error}") from error
    if not rows:
        raise InputError(f"warm start {str(path)!r} holds no rows; {_HOW}")
    return list(enumerate(rows, start=1))


def _check_columns(
    path: Path, rows: list[tuple[int, dict[str, str]]], space: SearchSpace, metric: str
) -> None:
    columns = list(rows[0][1])
    if metric not in columns:
        raise InputError(
            f"warm start {str(path)!r} has no column {metric!r}, which this search measures; it "
            f"has {', '.join(map(str, columns))}; {_HOW}"
        )
    ours = {*space.names, *TRIAL_COLUMNS, *FRONT_COLUMNS, *EXACT, FORMER_COLUMN}
    quantities = (metric, LATENCY)
    for column in columns:
        of_quantity = str(column).startswith(tuple(f"{q}_" for q in quantities))
        nameless = column == ""  # the row numbers that pandas writes
        if not (column in ours or column in quantities or of_quantity or nameless):
            raise InputError(
                f"warm start {str(path)!r} is of another search space: {column!r} is no choice "
                f"of this one ({', '.join(space.names)}) and no column of a run's tables; remove "
                "that column if it says nothing of the architecture"
            )


def _mapping(where: str, row: Mapping[str, str], space: SearchSpace) -> dict[str, Option]:
    return {
        choice.name: _option(where, choice, row[choice.name])
        for choice in space.choices
        if row.get(choice.name)
    }


def _option(where: str, choice: Choice, text: str) -> Option:
    """Return the option that a cell means; tables with gaps write 2 as 2.0."""
    for option in choice.options:
        if text in (str(option), repr(option)):
            return option
    for option in choice.options:
        if isinstance(option, int | float) and not isinstance(option, bool):
            try:
                if float(text) == option:
                    return option
            except ValueError:
                break
    raise InputError(
        f"{where} is of another search space: choice {choice.name!r} is {text!r} there, and has "
        f"the options {', '.join(map(repr, choice.options))} here"
    )


def _number(where: str, metric: str, row: Mapping[str, str]) -> float:
    try:
        number = float(row[metric])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"{where}: {metric} is {row[metric]!r}; give a finite number, or leave it empty"
        )
    return number
