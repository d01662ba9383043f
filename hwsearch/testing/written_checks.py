"""Checks of the ONNX models that a network writes of its subnets itself."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from hwsearch.errors import VerificationError
from hwsearch.models.agreement import disagreement
from hwsearch.models.exported import learned_arrays
from hwsearch.models.onnx_file import external_tensors
from hwsearch.testing.subject import Case, Examined, each_case, for_each
from hwsearch.verify.slicing import SLICING_TOLERANCE, outline

N_SLICED = 10


@each_case
def models_are_written(case: Case) -> Iterator[str]:
    """The smallest, the largest and random models are sound float32 files, as input_spec says."""
    with case.during("onnx_model(arch)"):
        model: object = case.written()
    if not isinstance(model, onnx.ModelProto):
        yield f"onnx_model(arch) is a {type(model).__name__}; return an onnx.ModelProto"
        return
    with case.during("the ONNX checker"):
        onnx.checker.check_model(model)
    promised = [tensor.name for tensor in case.spec.inputs], list(case.spec.outputs)
    found = [value.name for value in model.graph.input], [v.name for v in model.graph.output]
    if found != promised:
        yield f"its model has inputs and outputs {found}, and input_spec says {promised}"
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if not dims or dims[0].HasField("dim_value"):
            yield f"the first axis of {value.name!r} is no symbol; it is the batch, of any size"
    if (external := next(external_tensors(model), None)) is not None:
        yield f"{external.name!r} lies in another file; return a model that holds its weights"
    for name, array in learned_arrays(model).items():
        if array.dtype != np.float32:
            yield f"{name!r} is {array.dtype}; weights are float32 (precision is made at export)"
        elif not np.isfinite(array).all():
            yield f"{name!r} holds NaN or infinite numbers"


@each_case
def equal_architectures_are_equal_files(case: Case) -> Iterator[str]:
    """Equal architectures give equal bytes, and changing one model changes no other."""
    first = case.written()
    before = first.SerializeToString(deterministic=True)
    for tensor in first.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            zeros = np.zeros(tuple(tensor.dims), np.float32)
            tensor.CopyFrom(numpy_helper.from_array(zeros, tensor.name))
    if case.written().SerializeToString(deterministic=True) != before:
        yield (
            "asked for twice, its model has other bytes the second time, after the first one was "
            "changed; write a new one each time, from the supernet's weights alone"
        )


@each_case
def costs_are_those_of_the_model(case: Case) -> Iterator[str]:
    """MACs and parameters are those counted in the model, and so are the named weights."""
    one = case.arch.space.architectures([case.arch.mapping])
    for quantity, counted in zip(("macs", "params"), case.costs, strict=True):
        said = int(case.net.exact(quantity, one)[0])
        if said != counted:
            yield f"{quantity} are said to be {said:,}, but its model counts {counted:,}"
    named = case.net.named_weights(case.model)
    held = sum(array.size for array in (named or {}).values())
    if named is not None and held != case.costs[1]:
        yield f"named_weights(model) holds {held:,} numbers, the model {case.costs[1]:,}"


@for_each(lambda subject: [*subject.cases, *subject.sampled(N_SLICED)])
def slices_are_the_given_model(case: Case) -> Iterator[str]:
    """Before repair a subnet answers as the given model with zeros for what was removed."""
    with case.during("reference_models(arch)"):
        models = case.net.reference_models(case.arch)
    if models is None:
        return
    sliced, zeroed = models
    if outline(sliced) != outline(case.written()):
        yield "before repair its model is another graph; repair changes the values of weights only"
    inputs = case.inputs()
    try:
        ours, given = (case.run(model, inputs) for model in (sliced, zeroed))
    except VerificationError as error:
        yield str(error)
        return
    difference = disagreement(ours, given)
    if not difference <= SLICING_TOLERANCE:
        yield (
            f"its slice before repair and the given model with zeros differ by {difference:.2g} "
            f"({SLICING_TOLERANCE:g} is allowed)"
        )


def largest_is_the_given_model(subject: Examined) -> Iterator[str]:
    """The largest architecture is the given model: nothing is removed and nothing repaired."""
    (largest,) = (case for case in subject.cases if case.arch == subject.space.largest()[0])
    models = largest.net.reference_models(largest.arch)
    if models is None:
        return
    inputs = largest.inputs()
    difference = disagreement(largest.outputs(inputs), largest.run(models[1], inputs))
    if not difference <= SLICING_TOLERANCE:
        yield (
            f"{largest} and the given model differ by {difference:.2g} "
            f"({SLICING_TOLERANCE:g} is allowed)"
        )
