"""Conversion of float32 models to int8 and float16: the same graph, names and metadata.

ONNX Runtime's tools do the conversion.
"""

import tempfile
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from hwsearch.errors import EvaluationError, InputError
from hwsearch.models.batch_norm_folding import drop_unused
from hwsearch.models.onnx_file import PREFIX, tensors
from hwsearch.quantization import Quantization

Batches = Iterable[Mapping[str, NDArray[Any]]]
CONVERTED = ("fp16", "int8")
FP16_MAX = float(np.finfo(np.float16).max)
_NORMS = ("BatchNormalization", "InstanceNormalization", "LayerNormalization")


def check_converter(device: str, precision: str) -> None:
    """Raise InputError if a device takes converted files, and their converter is missing."""
    if precision in CONVERTED and find_spec("onnxruntime") is None:
        raise InputError(
            f"device {device!r} takes {precision} files, and onnxruntime, which converts to them, "
            "is not installed: pip install 'hwsearch[cpu]'"
        )


def quantize_int8(
    model: onnx.ModelProto, batches: Batches, quantization: Quantization, *, digest: str = "none"
) -> onnx.ModelProto:
    """Quantise a float32 model statically, with QuantizeLinear and DequantizeLinear nodes.

    An activation's range is that of its values on the samples, of which one batch is held at a
    time. Unfolded norms stay in float32. The same model and samples give the same bytes.
    ``digest`` identifies the samples in the metadata.
    """
    import onnxruntime
    from onnxruntime import quantization as quantiser

    types = {"uint8": quantiser.QuantType.QUInt8, "int8": quantiser.QuantType.QInt8}
    reader = _Reader(batches)
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
        plain, ready, done = (Path(scratch, f"{name}.onnx") for name in ("plain", "ready", "done"))
        onnx.save(model, plain)
        # Symbolic inference would find no more, and an optimiser would rename nodes of blocks.
        quantiser.quant_pre_process(plain, ready, skip_optimization=True, skip_symbolic_shape=True)
        quantiser.quantize_static(
            ready,
            done,
            reader,
            quant_format=quantiser.QuantFormat.QDQ,
            activation_type=types[quantization.activations],
            weight_type=quantiser.QuantType.QInt8,
            per_channel=True,
            reduce_range=quantization.reduce_range,
            calibrate_method=quantiser.CalibrationMethod.MinMax,
            nodes_to_exclude=[node.name for node in model.graph.node if node.op_type in _NORMS],
            extra_options={"ActivationSymmetric": quantization.activations == "int8"},
        )
        quantized = onnx.load(done)
    return _finished(
        quantized,
        model,
        precision="int8",
        converter=f"onnxruntime {onnxruntime.__version__}",
        quantization=f"static QDQ, {quantization}, ranges by MinMax",
        quantization_samples=f"{reader.count}@{digest}",
    )


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
    return _finished(
        convert_float_to_float16(copy, keep_io_types=True),
        model,
        precision="fp16",
        converter=f"onnxruntime {onnxruntime.__version__}",
    )


class _Reader:
    """A counting `onnxruntime.quantization.CalibrationDataReader`."""

    def __init__(self, batches: Batches) -> None:
        self._batches = iter(batches)
        self.count = 0

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        batch = next(self._batches, None)
        if batch is None:
            if not self.count:
                raise EvaluationError("there are no samples to calibrate int8 ranges with")
            return None
        self.count += len(next(iter(batch.values())))
        return dict(batch)


def _finished(
    converted: onnx.ModelProto, model: onnx.ModelProto, **stated: str
) -> onnx.ModelProto:
    """Copy the original's name and metadata to a converted model, with further entries."""
    found = ir.from_proto(converted)
    drop_unused(found.graph)
    found.graph.sort()
    found.graph.name = model.graph.name
    found.producer_name, found.producer_version = model.producer_name, None
    found.metadata_props.clear()
    found.metadata_props.update({prop.key: prop.value for prop in model.metadata_props})
    found.metadata_props.update({f"{PREFIX}{name}": value for name, value in stated.items()})
    finished = ir.to_proto(found)
    del finished.graph.value_info[:]
    return finished
