"""Numbers of units that a group may keep."""

from collections.abc import Sequence

import numpy as np

from hwsearch.elastic.graph import Group

FRACTIONS = (1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 1.0)
STEP = 16  # channels: a vector of AVX-512, and the channel block of ONNX Runtime's convolutions
_STEPS_AT_LEAST = 4  # a group narrower than this many steps takes a finer one


def width_options(
    group: Group, step: int = STEP, fractions: Sequence[float] = FRACTIONS
) -> tuple[int, ...]:
    """Return numbers of kept units, ascending; the last is all of them.

    Args:
        group: Its parts keep equal shares in each option.
        step: Channels that the options of widths are multiples of. Heads go one by one, and in a
            narrow group the step is halved until it has four.
        fractions: Shares of the units, rounded up to a step.
    """
    sizes = np.bincount(group.parts) if len(group.parts) else np.array([group.size])
    sizes = sizes[sizes > 0]
    shares = int(np.gcd.reduce(sizes))  # every part keeps the same number of these shares
    quantum = group.size // shares
    own = 1 if group.kind == "heads" else max(1, step // _channels_of_unit(group))
    while own > 1 and own * _STEPS_AT_LEAST > shares:
        own //= 2
    steps = {min(shares, own * max(1, -int(-fraction * shares // own))) for fraction in fractions}
    return tuple(quantum * share for share in sorted({*steps, shares}))


def _channels_of_unit(group: Group) -> int:
    """Return the positions of a unit in the weights that produce it, at least."""
    produced = [slot for slot in group.slots if slot.role == "out"] or list(group.slots)
    return min((slot.positions.shape[1] for slot in produced), default=1)
