"""Numbers of units that a group may keep."""

from collections.abc import Sequence

import numpy as np

from hwsearch.elastic.graph import Group
from hwsearch.machine import cpu_instructions

FRACTIONS = (1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 1.0)
_STEPS_AT_LEAST = 4  # a group narrower than this many steps takes a finer one


def processor_step() -> int:
    """Return the channels that widths are best multiples of on this machine's processor.

    It is the channel block of ONNX Runtime's convolutions, one vector: 16 numbers with AVX-512, 8
    with AVX alone, as `tools/bench_width_steps.py` measures. Elsewhere it is 16, a multiple of
    NEON's 4 numbers and of the 8 and 16 channels that tensor cores take in fp16 and int8.
    """
    instructions = cpu_instructions()
    return 8 if "avx" in instructions and "avx512f" not in instructions else 16


def width_options(
    group: Group, step: int, fractions: Sequence[float] = FRACTIONS
) -> tuple[int, ...]:
    """Return numbers of kept units, ascending; the last is all of them.

    Args:
        group: Its parts keep equal shares in each option.
        step: Channels that the options of widths are multiples of. Heads go one by one, and in a
            narrow group the step is halved until it has four.
        fractions: Shares of the units, rounded up to a step: a fine step makes no more options.
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
