"""The converted model is the same graph in another precision."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import hwsearch
from hwsearch.devices.fingerprint import cpu_fingerprint
from hwsearch.errors import EvaluationError
from hwsearch.models.agreement import (
    count_macs,
    count_params,
    disagreement,
    probe_inputs,
)
from hwsearch.models.onnx_file import precision_of, read_metadata
from hwsearch.models.quantize import CALIBRATED, Calibration, quantize_int8, to_fp16
from hwsearch.quantization import Quantization, quantization_for
from hwsearch.supernets.zoo import supernet_names
from tests.models.networks import IMAGE, export

U8 = Quantization(activations="uint8")
U8_REDUCED = Quantization(activations="uint8", reduce_range=True)
S8 = Quantization(activations="int8")
REDUCE = quantization_for(cpu_fingerprint()).reduce_range  # 8 bits saturate without VNNI


def batches(spec, n=3):
    return (probe_inputs(spec.inputs, seed=100 + i) for i in range(n))


def run(model, inputs):
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    return session.run(None, inputs)


def convert(model, spec, how):
    return to_fp16(model) if how == "fp16" else quantize_int8(model, batches(spec), how)


@pytest.mark.parametrize(
    "how", [replace(U8, reduce_range=REDUCE), replace(S8, reduce_range=REDUCE), "fp16"], ids=str
)
@pytest.mark.parametrize("name", supernet_names())
def test_every_family_converts(name, how, exported_of):
    net, exported = exported_of(name)
    spec, model = net.input_spec(exported.arch), exported.model
    converted = convert(model, spec, how)
    onnx.checker.check_model(converted, full_check=True)
    assert precision_of(converted) == ("fp16" if how == "fp16" else "int8")
    assert converted.graph.name == model.graph.name
    assert converted.graph.input == model.graph.input
    assert converted.graph.output == model.graph.output
    before, after = read_metadata(model), read_metadata(converted)
    assert {name: after[name] for name in before} == {**before, "precision": after["precision"]}
    buffers = {name for name, _ in exported.subnet.named_buffers()}
    assert count_macs(converted) == count_macs(model)
    assert count_params(converted, buffers) == count_params(model, buffers)
    graph = converted.graph
    taken = {name for node in graph.node for name in node.input} | {
        value.name for value in graph.output
    }
    assert {weight.name for weight in graph.initializer} <= taken
    assert all(taken.intersection(node.output) for node in graph.node)
    inputs = probe_inputs(spec.inputs, seed=101)
    ours = run(converted, inputs)
    reference = run(model, inputs)
    assert disagreement(ours, reference) < (0.01 if how == "fp16" else 0.5)
    assert [output.dtype for output in ours] == [output.dtype for output in reference]


def small_export():
    return export(
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)
        )
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return small_export()[1].model


def weights_of(model):
    return {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}


def test_what_the_metadata_say(model):
    stated = read_metadata(
        quantize_int8(model, Calibration.of(model, batches(IMAGE), U8_REDUCED, "abc"), U8_REDUCED)
    )
    assert stated["precision"] == "int8"
    assert stated["converter"] == f"hwsearch {hwsearch.__version__}"
    assert stated["quantization"] == (
        f"static QDQ, uint8 activations, 7-bit weights per channel, {CALIBRATED}"
    )
    assert stated["quantization_samples"] == "6@abc"
    assert read_metadata(to_fp16(model))["converter"].startswith("onnxruntime 1.")


def test_weights_have_a_scale_for_each_channel(model):
    weights = weights_of(quantize_int8(model, batches(IMAGE), U8))
    assert weights["0.weight_quantized"].dtype == np.int8
    assert weights["0.weight_scale"].shape == (8,)
    assert not weights["0.weight_zero_point"].any()
    assert np.abs(weights["0.weight_quantized"]).max(axis=(1, 2, 3)).tolist() == [127] * 8
    assert weights["0.bias_quantized"].dtype == np.int32


def test_reduced_range_is_seven_bits(model):
    weights = weights_of(quantize_int8(model, batches(IMAGE), U8_REDUCED))
    assert np.abs(weights["0.weight_quantized"]).max(axis=(1, 2, 3)).tolist() == [64] * 8


@pytest.mark.parametrize(("how", "dtype"), [(U8, np.uint8), (S8, np.int8)])
def test_type_of_activations(how, dtype, model):
    weights = weights_of(quantize_int8(model, batches(IMAGE), how))
    point = weights["picture_zero_point"]
    assert point.dtype == dtype
    assert (point == 0) == (how is S8)


def test_the_same_bytes_in_every_process(model, tmp_path):
    """Hash seeds order the quantiser's sets."""
    onnx.save(model, tmp_path / "model.onnx")
    code = (
        "import hashlib, onnx, sys\n"
        "sys.path.insert(0, 'tests/models')\n"
        "from test_quantize import *\n"
        "model = onnx.load(sys.argv[1])\n"
        "print([hashlib.sha256(m.SerializeToString(deterministic=True)).hexdigest() for m in "
        "(quantize_int8(model, batches(IMAGE), U8), to_fp16(model))])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.onnx")],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    again = (quantize_int8(model, batches(IMAGE), U8), to_fp16(model))
    hashes = [hashlib.sha256(m.SerializeToString(deterministic=True)).hexdigest() for m in again]
    assert done.stdout == f"{hashes}\n"


def test_ranges_come_from_all_samples_held_one_batch_at_a_time(model):
    alive = []

    def one_at_a_time():
        for i in range(4):
            batch = {"picture": np.full((2, 3, 8, 8), float(i), np.float32)}
            alive.append(sys.getrefcount(batch["picture"]))
            yield batch

    weights = weights_of(quantize_int8(model, one_at_a_time(), U8))
    assert weights["picture_scale"] == pytest.approx(3 / 255)
    assert len(alive) == 4


def test_no_samples(model):
    with pytest.raises(EvaluationError, match="no samples to calibrate int8 ranges with"):
        quantize_int8(model, [], U8)


def test_norm_that_stands_alone_stays():
    _, exported = export(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3)))
    converted = quantize_int8(exported.model, batches(IMAGE), U8)
    assert "BatchNormalization" in {node.op_type for node in converted.graph.node}
    buffers = {name for name, _ in exported.subnet.named_buffers()}
    assert count_params(converted, buffers) == count_params(exported.model, buffers)
    inputs = probe_inputs(IMAGE.inputs, seed=101)
    ours = run(converted, inputs)
    assert disagreement(ours, run(exported.model, inputs)) < 0.1


def change(model, name, value):
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    weight = next(w for w in changed.graph.initializer if w.name == name)
    array = numpy_helper.to_array(weight).copy()
    array.flat[0] = value
    weight.CopyFrom(numpy_helper.from_array(array, name))
    return changed


@pytest.mark.parametrize("value", [65600.0, -1e9])
def test_number_that_float16_does_not_hold(value, model):
    with pytest.raises(EvaluationError, match=r"4\.weight holds .*, and float16 ends at 65504"):
        to_fp16(change(model, "4.weight", value))


def test_largest_number_that_float16_holds(model):
    weights = weights_of(to_fp16(change(model, "4.weight", 65504.0)))
    assert weights["4.weight"].flat[0] == 65504.0
    assert weights["4.weight"].dtype == np.float16


X86 = {"architecture": "x86_64"}


@pytest.mark.parametrize(
    ("fingerprint", "expected"),
    [
        ({**X86, "instructions": "avx2 avx512f avx512bw avx512_vnni"}, U8),
        ({**X86, "instructions": "avx2 avx_vnni"}, U8),
        ({**X86, "instructions": "avx avx2 fma"}, U8_REDUCED),
        ({**X86, "instructions": "avx512f avx512bw"}, U8_REDUCED),
        ({**X86, "instructions": "unknown"}, U8_REDUCED),
        ({"architecture": "AMD64"}, U8_REDUCED),
        ({"architecture": "aarch64", "instructions": "asimd asimddp"}, S8),
        ({**X86, "instructions": "avx512_vnni", "gpu": "H100"}, S8),
        ({"cpu": "scripted"}, S8),
    ],
)
def test_quantization_is_what_the_processor_is_fast_and_exact_at(fingerprint, expected):
    assert quantization_for(fingerprint) == expected
