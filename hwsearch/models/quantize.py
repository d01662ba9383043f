"""Conversion of float32 models to int8 and float16: the same graph, names and metadata."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import chain, islice
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

import hwsearch
from hwsearch.errors import EvaluationError, InputError
from hwsearch.models.batch_norm_folding import drop_unused
from hwsearch.models.bias_correction import bias_shifts, corrected_biases
from hwsearch.models.clipping import clipped_ranges
from hwsearch.models.onnx_file import PREFIX, check_opset, tensors
from hwsearch.models.qdq import Int8Writer, activations
from hwsearch.quantization import Quantization

Batches = Iterable[Mapping[str, NDArray[Any]]]
CONVERTED = ("fp16", "int8")
RANGES = "int8_ranges"  # entry of metadata: quantised activation -> its ends
FP16_MAX = float(np.finfo(np.float16).max)
CALIBRATED = "ranges by least squared error, biases corrected"  # how, in metadata
_SHIFT_BATCHES = 4
_SCALES_BY_CHANNEL = 13  # the first opset whose DequantizeLinear has an axis
_BEGINS = "int8 with a scale for each channel begins"


def check_converter(device: str, precision: str) -> None:
    """Raise InputError if a device takes converted files, and their converter is missing."""
    if precision in CONVERTED and find_spec("onnxruntime") is None:
        raise InputError(
            f"device {device!r} takes {precision} files, and onnxruntime, which converts to them, "
            "is not installed: pip install 'hwsearch[cpu]'"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What int8 takes from samples of a float32 model, for any set of its nodes.

    Attributes:
        ranges: Activation -> the ends of its range.
        shifts: Node -> what its biases gain: see `hwsearch.models.bias_correction`.
        samples: Their number.
        digest: Identifies them.
    """

    ranges: Mapping[str, tuple[float, float]]
    shifts: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    samples: int = 0
    digest: str = "none"

    @classmethod
    def of(
        cls,
        model: onnx.ModelProto,
        batches: Batches,
        quantization: Quantization,
        digest: str = "none",
    ) -> "Calibration":
        """Return ranges of least squared error, and shifts by the first batches.

        Raises:
            EvaluationError: There are no samples, the opset is too old, or ONNX Runtime refuses
                the model or a batch.
        """
        check_opset(model, _SCALES_BY_CHANNEL, _BEGINS)
        rest = iter(batches)
        first = list(islice(rest, _SHIFT_BATCHES))
        ranges, samples = clipped_ranges(
            model, activations(model), chain(first, rest), quantization
        )
        shifts = bias_shifts(model, first, quantization)
        return cls(ranges=ranges, shifts=shifts, samples=samples, digest=digest)

    def stated(self, quantised: onnx.ModelProto) -> str:
        """Return the ranges that a model is quantised with as JSON, in float32."""
        made = {node.input[0] for node in quantised.graph.node if node.op_type == "QuantizeLinear"}
        read = {name.removesuffix("_QuantizeLinear_Input") for name in made}
        ends = {name: each for name, each in self.ranges.items() if name in read}
        return json.dumps({n: [float(str(np.float32(e))) for e in ends[n]] for n in ends})


def quantize_int8(
    model: onnx.ModelProto,
    samples: Calibration | Batches,
    quantization: Quantization,
    *,
    nodes: Collection[str] | None = None,
) -> onnx.ModelProto:
    """Quantise a float32 model statically, with QuantizeLinear and DequantizeLinear nodes.

    The ranges of activations stand in the metadata. Unfolded norms stay in float32. The same model
    and samples give the same bytes.

    Args:
        model: Is not changed.
        samples: Inputs by name, batch by batch, or what was found on them.
        quantization: Types of weights and activations.
        nodes: Names of the nodes that are quantised where int8 has a rule for them; None for all.

    Raises:
        EvaluationError: The opset is too old, a range is not finite, or there are no samples.
    """
    check_opset(model, _SCALES_BY_CHANNEL, _BEGINS)
    found = samples
    if not isinstance(found, Calibration):
        found = Calibration.of(model, found, quantization)
    shifts = {n: s for n, s in found.shifts.items() if nodes is None or n in nodes}
    biases = corrected_biases(model, shifts)
    converted = Int8Writer(model, found.ranges, quantization, biases).write(nodes)
    state(
        converted,
        precision="int8",
        converter=f"hwsearch {hwsearch.__version__}",
        quantization=f"static QDQ, {quantization}, {CALIBRATED}",
        quantization_samples=f"{found.samples}@{found.digest}",
        **{RANGES: found.stated(converted)},
    )
    return converted


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Cast a float32 model except its inputs and outputs; EvaluationError on overflow."""
    import onnxruntime
    from onnxruntime.transformers.float16 import convert_float_to_float16

    for tensor in tensors(model):
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(tensor)
        largest = np.abs(array[np.isfinite(array)]).max(initial=0)
        if largest > FP16_MAX:
            raise EvaluationError(
                f"{tensor.name or 'a constant'} holds {largest:.6g}, and float16 ends at "
                f"{FP16_MAX:.0f}; this subnet needs fp32 or int8"
            )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    found = ir.from_proto(convert_float_to_float16(copy, keep_io_types=True))
    drop_unused(found.graph)
    found.graph.sort()
    found.graph.name = model.graph.name
    found.producer_name, found.producer_version = model.producer_name, None
    converted: onnx.ModelProto = ir.to_proto(found)
    del converted.graph.value_info[:], converted.metadata_props[:]
    converted.metadata_props.extend(model.metadata_props)
    state(converted, precision="fp16", converter=f"onnxruntime {onnxruntime.__version__}")
    return converted


def state(model: onnx.ModelProto, **stated: str | None) -> None:
    """Set entries of a model's metadata, by names without their prefix; None removes one."""
    kept: dict[str, str | None] = {prop.key: prop.value for prop in model.metadata_props}
    new = kept | {f"{PREFIX}{name}": value for name, value in stated.items()}
    onnx.helper.set_model_props(model, {n: v for n, v in new.items() if v is not None})
