"""Settings of int8 by processor, and what is said of one without instructions for it."""

import re

import pytest

from hwsearch.quantization import Quantization, quantization_for, slow_int8


@pytest.mark.parametrize(
    ("architecture", "instructions", "text"),
    [
        ("x86_64", "avx2 avx512f", "none of amx_int8, avx512_vnni, avx_vnni: .* 7 bits"),
        ("AMD64", "sse4_2", "may be slower than fp32"),
        ("aarch64", "asimd", "none of asimddp, i8mm"),
    ],
)
def test_a_processor_without_instructions_for_int8_is_told(architecture, instructions, text):
    given = {"architecture": architecture, "instructions": instructions}
    assert re.search(text, slow_int8(given))


@pytest.mark.parametrize(
    "given",
    [
        {"architecture": "x86_64", "instructions": "avx2 avx_vnni"},
        {"architecture": "aarch64", "instructions": "asimd asimddp"},
        {"architecture": "riscv64", "instructions": "v"},
        {"architecture": "x86_64", "instructions": "unknown"},
        {"architecture": "x86_64", "instructions": "avx2", "gpu": "some"},
        {"gpu": "some"},
        {},
    ],
)
def test_others_are_not(given):
    assert slow_int8(given) is None


def test_settings_are_read_from_their_text():
    for activations in ("uint8", "int8"):
        for reduce_range in (False, True):
            how = Quantization(activations=activations, reduce_range=reduce_range)
            assert Quantization.stated(f"static QDQ, {how}, ranges by MinMax") == how
    assert quantization_for({}).activations == "int8"
