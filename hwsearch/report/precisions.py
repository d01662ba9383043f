"""Precision in a report: which choices are about it, and the front of files of one precision."""

from collections.abc import Sequence

from hwsearch.architectures import PRECISION
from hwsearch.choices import Choice
from hwsearch.objectives import FloatArray
from hwsearch.quantization import OPTIONS
from hwsearch.report.run_data import RunData
from hwsearch.run.front import front_rows


def block_of(choice: Choice) -> str | None:
    """Return the block whose precision a choice decides, "" for the network's; None if none."""
    kind, _, block = choice.name.partition(".")
    return block if kind == PRECISION and OPTIONS.keys() >= set(choice.options) else None


def precision_columns(choices: Sequence[Choice]) -> list[int]:
    """Return the positions of the choices of blocks' precision; none for one of the network."""
    return [at for at, choice in enumerate(choices) if block_of(choice)]


def whole_front(data: RunData) -> tuple[list[int], dict[str, FloatArray]]:
    """Return the non-dominated trials among those of one precision throughout, and their values.

    Those of members are confirmed, others are as the search measured them. Both are empty where
    blocks have no precision of their own.
    """
    columns = precision_columns(data.space.choices)
    indices, active = data.archs.indices[:, columns], data.archs.active[:, columns]
    whole = [
        number
        for number in (data.finished if columns else ())
        if len(set(indices[number][active[number]].tolist())) <= 1
    ]
    if not whole:
        return [], {}
    known = {o.name: data.values[o.name][whole] for o in data.objectives}
    for row, number in enumerate(whole):
        member = data.members_by_key.get(data.trials[number].key, {})
        for name, values in known.items():
            values[row] = member.get(name, values[row])
    best = front_rows(known, data.objectives, data.constraints)
    return [whole[int(row)] for row in best], {name: known[name][best] for name in known}
