import numpy as np
import pytest

from hwsearch.elastic import width_options as module
from hwsearch.elastic.graph import Group, Slot
from hwsearch.elastic.width_options import FRACTIONS, processor_step, width_options


def group(size, kind="inner", width=1, parts=()):
    positions = np.arange(size * width).reshape(size, width)
    slot = Slot(weight="w", axis=0, positions=positions, node="n", role="out")
    return Group(
        name="g.width", kind=kind, size=size, slots=(slot,), parts=np.array(parts, np.int64)
    )


@pytest.mark.parametrize(
    ("given", "step", "expected"),
    [
        (group(64), 16, (16, 32, 48, 64)),
        (group(256), 16, (64, 96, 128, 160, 192, 224, 256)),
        (group(256), 64, (64, 128, 192, 256)),
        (group(256), 8, (64, 96, 128, 160, 192, 224, 256)),
        (group(64), 8, (16, 24, 32, 40, 48, 56, 64)),
        (group(32), 8, (8, 16, 24, 32)),
        (group(16), 16, (4, 8, 12, 16)),
        (group(24), 16, (8, 12, 16, 20, 24)),  # quarters of 24 are no power of two
        (group(12, "heads", width=32), 16, (3, 5, 6, 8, 9, 11, 12)),
        (group(1536, "ffn"), 16, (384, 576, 768, 960, 1152, 1344, 1536)),
        (group(16, width=8), 16, (4, 6, 8, 10, 12, 14, 16)),  # units of 8 channels, two by two
        (group(2), 16, (1, 2)),
        (group(1), 16, (1,)),
        # The halves of a channel shuffle: every option is twice a number.
        (group(64, parts=[0] * 32 + [1] * 32), 16, (16, 32, 48, 64)),
        (group(12, parts=[0] * 4 + [1] * 8), 16, (3, 6, 9, 12)),
        (group(7, parts=[0] * 3 + [1] * 4), 16, (7,)),  # equal shares leave nothing
    ],
)
def test_options(given, step, expected):
    assert width_options(given, step) == expected


def test_fractions_are_chosen():
    assert width_options(group(64), 16, (0.5, 1.0)) == (32, 64)
    assert width_options(group(64), 16, (0.01,)) == (16, 64)


def test_a_finer_step_makes_no_more_options_of_wide_groups():
    for size in range(1, 1025):
        assert len(width_options(group(size), 8)) <= len(FRACTIONS)
    for size in range(128, 1025, 64):
        assert len(width_options(group(size), 8)) == len(width_options(group(size), 16))


@pytest.mark.parametrize(
    ("instructions", "step"),
    [("sse2 avx avx2", 8), ("avx avx2 avx512f avx512bw", 16), ("asimd sve", 16), ("", 16)],
)
def test_the_step_is_that_of_the_processor(monkeypatch, instructions, step):
    monkeypatch.setattr(module, "cpu_instructions", lambda: frozenset(instructions.split()))
    assert processor_step() == step
