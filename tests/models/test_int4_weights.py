"""Weights in 4 bits equal those of ONNX Runtime's quantiser."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import matmul_nbits_quantizer as peer

from hwsearch.errors import EvaluationError
from hwsearch.models.execution import run
from hwsearch.models.int4_weights import Int4Writer, four_bits
from tests.models.products import encoder, product_names


def of_onnxruntime(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantiser = peer.MatMulNBitsQuantizer(copy, bits=4, block_size=32, is_symmetric=False)
    quantiser.process()
    return quantiser.model.model


def weights_of(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_weights_equal_those_of_onnxruntime():
    model = encoder(layers=1, width=64)  # an even number of blocks: a last half byte is arbitrary
    ours, theirs = Int4Writer(model).write(), of_onnxruntime(model)
    expected = [node for node in theirs.graph.node if node.op_type == "MatMulNBits"]
    found = [node for node in ours.graph.node if node.op_type == "MatMulNBits"]
    assert len(found) == len(expected) == 6
    a, b = weights_of(ours), weights_of(theirs)
    for mine, other in zip(found, expected, strict=True):
        for name, peers in zip(mine.input[1:], other.input[1:], strict=False):
            assert a[name].tobytes() == b[peers].tobytes()


def test_outputs_are_near_and_files_smaller():
    model = encoder(layers=1, width=64)
    made = Int4Writer(model).write()
    x = np.random.default_rng(0).standard_normal((2, 7, 64)).astype(np.float32)
    exact, near = run(model, {"x": x})["y"], run(made, {"x": x})["y"]
    assert 0 < np.abs(exact - near).max() < 0.5 * np.abs(exact).max()
    assert made.ByteSize() < 0.4 * model.ByteSize()


def test_only_chosen_nodes_change():
    model = encoder(layers=2)
    chosen = [name for name in product_names(model) if name.startswith("1.")]
    made = Int4Writer(model).write(chosen)
    changed = [node for node in made.graph.node if node.op_type == "MatMulNBits"]
    assert len(changed) == len(chosen) == 6
    assert {node.name for node in made.graph.node if node.name.startswith("0.")} == {
        node.name for node in model.graph.node if node.name.startswith("0.")
    }


def test_a_weight_that_is_not_finite_is_named():
    matrix = np.ones((32, 4), np.float32)
    matrix[3, 2] = np.nan
    with pytest.raises(EvaluationError, match="weight embed"):
        four_bits("embed", matrix)


def test_a_last_block_that_is_shorter():
    values = np.random.default_rng(1).standard_normal((40, 3)).astype(np.float32)
    packed, scales, points = four_bits("w", values)
    assert packed.shape == (3, 2, 16)
    assert scales.shape == (3, 2)
    low, high = packed & 15, packed >> 4
    whole = np.stack([low, high], axis=-1).reshape(3, 2, 32)
    zero = np.stack([points & 15, points >> 4], axis=-1).reshape(3, -1)[:, :2]
    back = ((whole - zero[..., None].astype(float)) * scales[..., None]).reshape(3, 64)[:, :40].T
    assert np.abs(back - values).max() <= 0.51 * scales.max()
