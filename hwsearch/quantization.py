"""Precisions of files, and settings of static int8 by the processor that runs the files."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

FP32, FP16, INT8, DYNAMIC, INT4 = "fp32", "fp16", "int8", "int8-dynamic", "int4"
MIXED: Final = "mixed"  # of a file whose blocks differ, and of a device that takes all of these
# From the fewest bits to the most.
OPTIONS: Final = MappingProxyType(
    {
        INT4: "weights of matrix products in 4 bits, the rest in float32",
        INT8: "weights and activations in 8 bits, with ranges from calibration samples",
        DYNAMIC: "matrix products in 8 bits, with ranges of activations from each inference",
        FP16: "float16 throughout",
        FP32: "float32",
    }
)
# Type of activations -> a processor that multiplies it fast.
PROCESSORS = {"uint8": "x86_64", "int8": "aarch64"}
_X86 = ("x86_64", "AMD64")
_VNNI = {"avx_vnni", "avx512_vnni", "amx_int8"}
_ARM = ("aarch64", "arm64")
_DOT_PRODUCTS = {"asimddp", "i8mm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """Settings of static quantisation with int8 weights and a scale for each channel.

    ``activations`` are ``"uint8"`` with a zero point, or ``"int8"`` around 0; ``reduce_range``
    keeps weights to 7 bits.
    """

    activations: str
    reduce_range: bool = False

    @classmethod
    def stated(cls, text: str) -> "Quantization":
        """Return the settings that a text such as that of `__str__` names."""
        activations = "int8" if " int8 activations" in f" {text}" else "uint8"
        return cls(activations=activations, reduce_range="7-bit" in text)

    def __str__(self) -> str:
        bits = 7 if self.reduce_range else 8
        return f"{self.activations} activations, {bits}-bit weights per channel"


def slow_int8(fingerprint: Mapping[str, str | int]) -> str | None:
    """Return a sentence on a processor without instructions for int8, or None if it has some.

    What is known is what the fingerprint of a device says of its processor.
    """
    instructions = set(str(fingerprint.get("instructions", "unknown")).split())
    if "gpu" in fingerprint or instructions == {"unknown"}:
        return None
    if fingerprint.get("architecture") in _X86:
        wanted, used = _VNNI, "vpmaddubsw on weights of 7 bits"
    elif fingerprint.get("architecture") in _ARM:
        wanted, used = _DOT_PRODUCTS, "products of single bytes that are widened first"
    else:
        return None
    if wanted & instructions:
        return None
    return (
        f"this processor has none of {', '.join(sorted(wanted))}: int8 is computed by {used}, and "
        "may be slower than fp32; what a file takes is measured"
    )


def quantization_for(fingerprint: Mapping[str, str | int]) -> Quantization:
    """Return the settings for a device, by the processor in its fingerprint.

    x86 multiplies unsigned by signed bytes (``vpdpbusd``, before VNNI ``vpmaddubsw``), so uint8
    activations are its fast path: with int8 ones ONNX Runtime took 1.8 to 2.6 times as long for
    `cifar10-resnet` on an EPYC with VNNI. Before VNNI two products are summed in 16 bits that
    saturate, which weights of 7 bits do not reach. ARM multiplies signed bytes, and TensorRT has
    no zero points.
    """
    if fingerprint.get("architecture") not in _X86 or "gpu" in fingerprint:
        return Quantization(activations="int8")
    instructions = set(str(fingerprint.get("instructions")).split())
    return Quantization(activations="uint8", reduce_range=not instructions & _VNNI)
