"""Running of ONNX models in ONNX Runtime, on the CPU."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hwsearch.errors import EvaluationError
from hwsearch.machine import thread_limit

_SMALL_BYTES = 1024  # ONNX Runtime needs small tensors, such as axes, when it reads the graph
_FATAL = 4  # of its levels of logging: what fails is raised


class Session:
    """A loaded model, for many batches.

    ``outputs`` are any values of the graph, inputs included; by default its outputs.
    ``weights`` are the initialisers that the model itself does not have, as in `Graph`. They are
    not copied: do not change them while the session lives. Without ``optimised`` every node is
    run as it is written.

    Raises:
        EvaluationError: ONNX Runtime refuses the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto | Path,
        outputs: Sequence[str] | None = None,
        weights: Mapping[str, NDArray[Any]] | None = None,
        *,
        optimised: bool = True,
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = thread_limit()
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        source: str | bytes
        given = () if isinstance(model, Path) else {v.name for v in model.graph.input}
        self._passed = [name for name in outputs or () if name in given]
        if isinstance(model, Path):
            source = str(model)
        else:
            computed = outputs and [name for name in outputs if name not in given]
            proto, arrays = _detached(model, computed, weights or {})
            # The values refer to the arrays' memory.
            self._arrays = [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in arrays.values()]
            options.add_external_initializers(list(arrays), self._arrays)
            source = proto.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises classes of its own
            raise EvaluationError(f"ONNX Runtime refuses the model: {_line(error)}") from error
        self.outputs = [each.name for each in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs for one batch.

        Raises:
            EvaluationError: ONNX Runtime fails on the batch.
        """
        try:
            found = self._session.run(self.outputs, dict(inputs))
        except Exception as error:  # ONNX Runtime raises classes of its own
            raise EvaluationError(f"ONNX Runtime fails on the batch: {_line(error)}") from error
        passed = {name: inputs[name] for name in self._passed}
        return {**dict(zip(self.outputs, found, strict=True)), **passed}


def run(
    model: onnx.ModelProto,
    inputs: Mapping[str, NDArray[Any]],
    outputs: Sequence[str] | None = None,
    weights: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Run a model once on a batch; see `Session`."""
    return Session(model, outputs, weights)(inputs)


def _detached(
    model: onnx.ModelProto, outputs: Sequence[str] | None, weights: Mapping[str, NDArray[Any]]
) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """Return a model without its large initialisers, and those: it is small to serialise."""
    graph = onnx.GraphProto(name=model.graph.name or "graph", node=model.graph.node)
    graph.input.extend(model.graph.input)
    named = {value.name: value for value in model.graph.output}
    for name in named if outputs is None else outputs:
        graph.output.append(named.get(name, onnx.ValueInfoProto(name=name)))
    arrays = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.ByteSize() <= _SMALL_BYTES:
            graph.initializer.append(tensor)
        else:
            arrays[tensor.name] = numpy_helper.to_array(tensor)
    for name, array in weights.items():
        if array.nbytes <= _SMALL_BYTES:
            graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        else:
            arrays[name] = array
    for name, array in arrays.items():
        arrays[name] = np.require(array, requirements="C")
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="memory")
        graph.initializer.append(tensor)
    detached = onnx.ModelProto(ir_version=model.ir_version, graph=graph)
    detached.opset_import.extend(model.opset_import)
    detached.functions.extend(model.functions)
    return detached, arrays


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
