"""Rules for operators that work element by element, with broadcasting."""

import onnx

from hwsearch.elastic.analysis.flow import Flow, NotUnderstoodError, Rules, known_shape

UNARY = frozenset(
    (
        "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Bernoulli", "BitwiseNot",
        "Cast", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu",
        "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish",
        "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin",
        "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
    )
)  # fmt: skip
BROADCASTING = frozenset(
    (
        "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip", "Div",
        "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
        "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
    )
)  # fmt: skip
_SUMS = frozenset(("Add", "Sub", "Sum", "Mean"))


def unary(flow: Flow, node: onnx.NodeProto) -> None:
    """Pass everything on."""
    flow.give(node.output[0], flow.layers(node.input[0]), node.name)


def broadcasting(flow: Flow, node: onnx.NodeProto) -> None:
    """Combine the operands' atoms; constants become slots."""
    names = [name for name in node.input if name]
    shape = known_shape(flow, node.output[0])
    operands = [(name, known_shape(flow, name), flow.layers(name)) for name in names]
    members: dict[int, int] = {}
    found = flow.merge(operands, shape, node, members=members)
    if node.op_type in _SUMS:
        flow.sums += [layer for layer in found if members[id(layer)] > 1]
    flow.give(node.output[0], found, node.name)


def dropout(flow: Flow, node: onnx.NodeProto) -> None:
    """Pass everything on; the mask of training is not understood."""
    if len(node.output) > 1 and node.output[1] and flow.is_read(node.output[1]):
        raise NotUnderstoodError("its mask is read")
    unary(flow, node)


def batch_normalization(flow: Flow, node: onnx.NodeProto) -> None:
    """Pass channels through scale, shift, mean and variance."""
    if not all(flow.is_constant(name) for name in node.input[1:5]):
        raise NotUnderstoodError("its parameters are computed")
    for layer in flow.layers(node.input[0]):
        if layer.shape[1] > 1:
            axes = [0 if axis == 1 else None for axis in range(layer.ndim)]
            for weight in node.input[1:5]:
                flow.slot(weight, layer, axes, node, "through")
    unary(flow, node)


RULES: Rules = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(BROADCASTING, broadcasting),
    "BatchNormalization": batch_normalization,
    "CastLike": unary,
    "Dropout": dropout,
}
