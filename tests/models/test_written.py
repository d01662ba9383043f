"""Subnets whose network writes their ONNX models itself: files, card and weights."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors import safe_open
from sliced_network import SlicedSupernet

from hwsearch import to_onnx
from hwsearch.errors import InputError, VerificationError
from hwsearch.files import staged_folder
from hwsearch.models.agreement import count_macs, count_params, probe_inputs
from hwsearch.models.artifact import CARD, MODEL, WEIGHTS, write_card, write_files
from hwsearch.models.exported import ExportedSlice
from hwsearch.models.memory import peak_memory
from hwsearch.models.onnx_file import read_metadata
from hwsearch.models.quantize import quantize_int8, to_fp16
from hwsearch.models.repeated_weights import timing_model
from hwsearch.quantization import Quantization
from hwsearch.supernets.supernet import Supernet
from hwsearch.verify.subnet import probe_answers, verify_artifact, verify_export
from tests.models.networks import promised
from tests.run.search_parts import InProcess


@pytest.fixture(scope="module")
def net():
    return Supernet("sliced", SlicedSupernet())


@pytest.fixture(scope="module")
def arch(net):
    (found,) = net.space.architectures(
        [{"stem.width": 4, "down.width": 4, "block.keep": 1, "block.width": 2}]
    )
    return found


def exported(net, arch, convert=None):
    original = to_onnx(net, arch)
    if convert is None:
        return ExportedSlice(arch=arch, net=net, model=original)
    return ExportedSlice(arch=arch, net=net, model=convert(original), original=original)


def samples_of(net, arch):
    return probe_inputs(net.input_spec(arch).inputs, seed=7, samples=20)


def written(folder, net, made, device):
    with staged_folder(folder) as staged:
        write_files(staged, net, made)
        costs, samples = promised(net, made.arch), samples_of(net, made.arch)
        checks = verify_export(staged, made, costs, samples, device)
        write_card(staged, net, made, [], checks, probe_answers(staged, made, device))
    return folder


def test_the_model_says_what_every_model_says(net, arch):
    model = to_onnx(net, arch)
    stated = read_metadata(model)
    assert stated["graph"] == "sliced from the given model"
    assert (stated["precision"], stated["calibration"]) == ("fp32", "none")
    assert json.loads(stated["architecture"]) == arch.mapping
    assert stated["key"] == arch.key
    assert model.SerializeToString() == to_onnx(net, arch).SerializeToString()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_folder_is_written_and_verified_from_its_files(net, arch, tmp_path, precision):
    device = InProcess(precision=precision)
    samples = [samples_of(net, arch)]
    unsigned = Quantization(activations="uint8")
    convert = {
        "fp32": None,
        "fp16": to_fp16,
        "int8": lambda model: quantize_int8(model, samples, unsigned),
    }[precision]
    folder = written(tmp_path / "subnet", net, exported(net, arch, convert), device)
    card = verify_artifact(folder, device)
    assert (card["precision"], card["graph"]) == (precision, "sliced from the given model")
    assert card["verification"]["disagreement"] <= card["verification"]["tolerance"] == 1e-5
    assert ("difference_to_fp32" in card["verification"]) == (precision != "fp32")


def test_weights_have_the_names_of_the_given_model(net, arch, device, tmp_path):
    folder = written(tmp_path / "subnet", net, exported(net, arch), device)
    with safe_open(folder / WEIGHTS, framework="np") as weights:
        assert "net.stem.weight" in weights.keys()  # noqa: SIM118 - a file handle
        assert weights.get_tensor("net.block.up.weight").shape == (2, 4, 1, 1)


def test_weights_have_their_own_names_where_no_others_are_known(arch, device, tmp_path):
    network = SlicedSupernet()
    network.named_weights = None
    net = Supernet("sliced", network)
    made = exported(net, arch)
    (tmp_path / "subnet").mkdir()
    write_files(tmp_path / "subnet", net, made)
    with safe_open(tmp_path / "subnet" / WEIGHTS, framework="np") as weights:
        assert "stem.weight" in weights.keys()  # noqa: SIM118 - a file handle


def test_the_probe_answers_are_the_models_own(net, arch, device, tmp_path):
    made = exported(net, arch)
    folder = written(tmp_path / "subnet", net, made, device)
    probe = json.loads((folder / CARD).read_text())["probe"]
    inputs = probe_inputs(net.input_spec(arch).inputs, seed=probe["seed"])
    (outputs,) = device.run(folder / MODEL, [inputs])
    np.testing.assert_allclose(np.array(probe["outputs"][0]), outputs[0], rtol=1e-5)


class TestRefused:
    def refused(self, net, made, device, folder, reason):
        folder.mkdir()
        write_files(folder, net, made)
        costs, samples = promised(net, made.arch), samples_of(net, made.arch)
        with pytest.raises(VerificationError, match=reason):
            verify_export(folder, made, costs, samples, device)

    def test_a_slice_that_keeps_other_channels(self, arch, device, tmp_path):
        network = SlicedSupernet()
        sliced = network._sliced

        def shifted(arch, *, repaired):
            model = sliced(arch, repaired=repaired)
            (stem,) = (t for t in model.graph.initializer if t.name == "stem.weight")
            others = np.ascontiguousarray(network.weights["stem.weight"][4:])
            stem.CopyFrom(numpy_helper.from_array(others, stem.name))
            return model

        network._sliced = shifted
        net = Supernet("sliced", network)
        reason = "the slice before repair and the given model with zeros differ by"
        self.refused(net, exported(net, arch), device, tmp_path / "subnet", reason)

    def test_a_shipped_model_of_another_graph(self, net, arch, device, tmp_path):
        other = net.space.architectures([{**arch.mapping, "block.width": 4}])[0]
        made = replace(exported(net, arch), model=to_onnx(net, other))
        folder = tmp_path / "subnet"
        folder.mkdir()
        write_files(folder, net, made)
        with pytest.raises(VerificationError, match="another graph than its slice before repair"):
            verify_export(folder, made, promised(net, other), samples_of(net, arch), device)

    def test_weights_that_are_not_finite(self, arch, device, tmp_path):
        network = SlicedSupernet()
        network.weights["head.bias"] = np.full(4, np.inf, np.float32)
        net = Supernet("sliced", network)
        folder = tmp_path / "subnet"
        self.refused(net, exported(net, arch), device, folder, "answers NaN or infinite numbers")


def test_a_network_without_a_reference_is_checked_for_the_rest(arch, device, tmp_path):
    network = SlicedSupernet()
    network.reference_models = lambda arch: None
    net = Supernet("sliced", network)
    folder = written(tmp_path / "subnet", net, exported(net, arch), device)
    assert "disagreement" not in verify_artifact(folder, device)["verification"]


def test_operators_whose_shapes_onnx_does_not_infer(arch, device, tmp_path):
    network = SlicedSupernet()
    make = network._sliced, network._zeroed

    def with_gelu(model):
        for node in model.graph.node:
            if node.op_type == "Relu":
                node.op_type, node.domain = "Gelu", "com.microsoft"
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
        return model

    network._sliced = lambda arch, *, repaired: with_gelu(make[0](arch, repaired=repaired))
    network._zeroed = lambda arch: with_gelu(make[1](arch))
    net = Supernet("sliced", network)
    folder = written(tmp_path / "subnet", net, exported(net, arch), device)
    card = verify_artifact(folder, device)
    assert {"macs", "params", "bytes"} <= set(card["exact"])
    assert "peak_memory" not in card["exact"]
    assert card["verification"]["disagreement"] <= 1e-5


def test_exact_quantities(net):
    archs = net.space.sample(20, seed=2)
    models = [to_onnx(net, arch) for arch in archs]
    assert net.exact("macs", archs).tolist() == [count_macs(model) for model in models]
    assert net.exact("params", archs).tolist() == [count_params(model, ()) for model in models]
    assert net.exact("peak_memory", archs).tolist() == [peak_memory(model) for model in models]


def test_exact_quantities_of_a_part_of_the_space(net):
    part = net.restrict(freeze=["block.keep=1"], only=["stem.width in 2,4"])
    archs = part.space.sample(10, seed=1)
    same = net.full_space.architectures([arch.mapping for arch in archs])
    assert part.exact("macs", archs).tolist() == net.exact("macs", same).tolist()
    assert part.exact("bytes", archs).tolist() == net.exact("bytes", same).tolist()


def test_timing_models_keep_the_graph(net, arch):
    plain, timed = (
        to_onnx(net, arch),
        timing_model(net, arch, "fp32", Quantization(activations="uint8")),
    )
    assert [n.op_type for n in timed.graph.node] == [n.op_type for n in plain.graph.node]
    assert len(timed.SerializeToString()) > 0
    onnx.checker.check_model(timed, full_check=True)


def test_a_module_is_refused_with_what_to_do(net, arch):
    with pytest.raises(InputError, match=r"no PyTorch modules.*hwsearch\.cut\(module, arch\)"):
        net.subnet(arch)
