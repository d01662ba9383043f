"""Settings of static int8 quantisation, by the processor that runs the files."""

from collections.abc import Mapping
from dataclasses import dataclass

# Type of activations -> a processor that multiplies it fast.
PROCESSORS = {"uint8": "x86_64", "int8": "aarch64"}
_X86 = ("x86_64", "AMD64")
_VNNI = {"avx_vnni", "avx512_vnni", "amx_int8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """Settings of static quantisation with int8 weights and a scale for each channel.

    ``activations`` are ``"uint8"`` with a zero point, or ``"int8"`` around 0; ``reduce_range``
    keeps weights to 7 bits.
    """

    activations: str
    reduce_range: bool = False

    def __str__(self) -> str:
        bits = 7 if self.reduce_range else 8
        return f"{self.activations} activations, {bits}-bit weights per channel"


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
