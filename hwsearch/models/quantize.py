"""Conversion of float32 models to int8 and float16: the same graph, names and metadata."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

import hwsearch
from hwsearch.errors import EvaluationError, InputError
from hwsearch.models.activation_ranges import activation_ranges
from hwsearch.models.batch_norm_folding import drop_unused
from hwsearch.models.onnx_file import PREFIX, opset_of, tensors
from hwsearch.models.qdq import Int8Writer, activations
from hwsearch.quantization import Quantization

Batches = Iterable[Mapping[str, NDArray[Any]]]
CONVERTED = ("fp16", "int8")
RANGES = "int8_ranges"  # entry of metadata: quantised activation -> its ends
FP16_MAX = float(np.finfo(np.float16).max)
_SCALES_BY_CHANNEL = 13  # the first opset whose DequantizeLinear has an axis


def check_converter(device: str, precision: str) -> None:
    """Raise InputError if a device takes converted files, and their converter is missing."""
    if precision in CONVERTED and find_spec("onnxruntime") is None:
        raise InputError(
            f"device {device!r} takes {precision} files, and onnxruntime, which converts to them, "
            "is not installed: pip install 'hwsearch[cpu]'"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """Ranges of a model's activations on samples: activation -> its smallest and largest value."""

    values: Mapping[str, tuple[float, float]]
    samples: int
    digest: str = "none"

    @classmethod
    def of(cls, model: onnx.ModelProto, batches: Batches, digest: str = "none") -> "Ranges":
        """Return the ranges of a float32 model; one batch of inputs is held at a time.

        ``digest`` identifies the samples.

        Raises:
            EvaluationError: There are no samples, or ONNX Runtime refuses the model or a batch.
        """
        values, samples = activation_ranges(model, activations(model), batches)
        return cls(values=values, samples=samples, digest=digest)

    def stated(self, quantised: onnx.ModelProto) -> str:
        """Return the ranges that a model is quantised with as JSON, in float32."""
        made = {node.input[0] for node in quantised.graph.node if node.op_type == "QuantizeLinear"}
        read = {name.removesuffix("_QuantizeLinear_Input") for name in made}
        ends = {name: each for name, each in self.values.items() if name in read}
        return json.dumps({n: [float(str(np.float32(e))) for e in ends[n]] for n in ends})


def quantize_int8(
    model: onnx.ModelProto,
    samples: Ranges | Batches,
    quantization: Quantization,
    *,
    nodes: Collection[str] | None = None,
) -> onnx.ModelProto:
    """Quantise a float32 model statically, with QuantizeLinear and DequantizeLinear nodes.

    An activation's range is that of its values on the samples, and stands in the metadata.
    Unfolded norms stay in float32. The same model and samples give the same bytes.

    Args:
        model: Is not changed.
        samples: Inputs by name, batch by batch, or the ranges on them.
        quantization: Types of weights and activations.
        nodes: Names of the nodes that are quantised where int8 has a rule for them; None for all.

    Raises:
        EvaluationError: The opset is too old, a range is not finite, or there are no samples.
    """
    if (opset := opset_of(model)) < _SCALES_BY_CHANNEL:
        raise EvaluationError(
            f"the model has opset {opset}, and int8 with a scale for each channel begins with "
            f"{_SCALES_BY_CHANNEL}; export it again, or take precision=fp32"
        )
    ranges = samples if isinstance(samples, Ranges) else Ranges.of(model, samples)
    converted = Int8Writer(model, ranges.values, quantization).write(nodes)
    state(
        converted,
        precision="int8",
        converter=f"hwsearch {hwsearch.__version__}",
        quantization=f"static QDQ, {quantization}, ranges by MinMax",
        quantization_samples=f"{ranges.samples}@{ranges.digest}",
        **{RANGES: ranges.stated(converted)},
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
