"""Artifacts of int8 and float16 models: what is checked when they are written, and ever after."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hwsearch_test_plugin.scripted_device import FakeDevice
from onnx import numpy_helper

from hwsearch.errors import VerificationError
from hwsearch.files import sha256_of, staged_folder
from hwsearch.models.agreement import probe_inputs
from hwsearch.models.artifact import CARD, INFER, MODEL, write_card, write_files
from hwsearch.models.quantize import quantize_int8, to_fp16
from hwsearch.quantization import Quantization
from hwsearch.verify.subnet import probe_answers, verify_artifact, verify_export
from tests.models.networks import promised

NAMES = ("test-images", "test-tokens")
PRECISIONS = ("int8", "fp16")


@pytest.fixture(scope="module")
def devices():
    """One that takes files of each precision."""
    devices = {name: FakeDevice(precision=name) for name in PRECISIONS}
    yield devices
    for device in devices.values():
        device.close()


@pytest.fixture(scope="module", autouse=True)
def _originals_in_one_process(device):
    """Not a process for each: float32 models run where the other tests run theirs."""

    class Kept:
        run, precision = device.run, "fp32"

        def close(self):
            """The other tests go on with it."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.devices.load_device", lambda spec: Kept())
        yield


@pytest.fixture(scope="module")
def converted(exported_of):
    made = {}

    def make(name, precision):
        if (name, precision) not in made:
            net, exported = exported_of(name)
            spec, model = net.input_spec(exported.arch), exported.model
            samples = [probe_inputs(spec.inputs, seed=100 + i) for i in range(8)]
            u8 = Quantization(activations="uint8")
            ours = to_fp16(model) if precision == "fp16" else quantize_int8(model, samples, u8)
            made[name, precision] = net, replace(exported, model=ours, original=model)
        return made[name, precision]

    return make


@pytest.fixture(params=PRECISIONS)
def precision(request):
    return request.param


def write(folder, net, exported, device):
    with staged_folder(folder) as staged:
        write_files(staged, net, exported)
        probe = probe_answers(staged, exported, device)
        write_card(staged, net, exported, [], {}, probe)
    return folder


def samples_of(net, exported):
    return probe_inputs(net.input_spec(exported.arch).inputs, seed=102)


def verify(folder, net, exported, device):
    costs = promised(net, exported.arch)
    return verify_export(folder, exported, costs, samples_of(net, exported), device)


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_artifact_passes(name, precision, converted, devices, tmp_path):
    net, exported = converted(name, precision)
    folder = write(tmp_path / "subnet", net, exported, devices[precision])
    stated = verify(folder, net, exported, devices[precision])
    assert stated["disagreement"] < 1e-5
    assert 0 < stated["difference_to_fp32"] < (0.01 if precision == "fp16" else 0.5)
    assert 0 <= stated["labels_as_fp32"] <= 1
    assert json.loads(json.dumps(stated)) == stated
    card = verify_artifact(folder, devices[precision])
    assert card["precision"] == precision
    assert card["probe"]["tolerance"] == {"int8": 0.1, "fp16": 0.01}[precision]


@pytest.mark.parametrize("name", NAMES)
def test_infer_gives_the_files_own_answer(name, precision, converted, devices, tmp_path):
    net, exported = converted(name, precision)
    folder = write(tmp_path / "subnet", net, exported, devices[precision])
    done = subprocess.run(
        [sys.executable, str(folder / INFER)], capture_output=True, text=True, check=True
    )
    if name == "test-tokens":
        numbers = done.stdout.split("[", maxsplit=1)[1].strip(" ]\n").split()
        zeros = {"tokens": np.zeros((1, 12), np.int64)}
        ((expected,),) = devices[precision].run(folder / MODEL, [zeros])
        np.testing.assert_allclose([float(n) for n in numbers], expected[0], atol=2e-4)
    assert done.stdout.strip()


def scaled(model, factor):
    """The model with its head's weights times a factor."""
    names = ("head.weight", "head.weight_quantized")
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    weight = next(w for w in changed.graph.initializer if w.name in names)
    array = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), weight.name))
    return changed


def test_original_that_is_not_the_network(precision, converted, devices, tmp_path):
    net, exported = converted(NAMES[0], precision)
    wrong = replace(exported, original=scaled(exported.original, 1.01))
    write_files(tmp_path, net, exported)
    with pytest.raises(VerificationError, match=r"ONNX and PyTorch differ by .* on real samples"):
        verify(tmp_path, net, wrong, devices[precision])


def test_answers_that_are_no_numbers(converted, devices, tmp_path):
    net, exported = converted(NAMES[0], "fp16")
    write_files(tmp_path, net, replace(exported, model=scaled(exported.model, np.inf)))
    with pytest.raises(VerificationError, match="NaN or infinite numbers on real samples, and"):
        verify(tmp_path, net, exported, devices["fp16"])


def test_cost_that_was_not_promised(precision, converted, devices, tmp_path):
    net, exported = converted(NAMES[0], precision)
    write_files(tmp_path, net, exported)
    costs = promised(net, exported.arch)
    for quantity in costs:
        wrong = {**costs, quantity: costs[quantity] + 1}
        with pytest.raises(VerificationError, match=r"counted, .* promised"):
            verify_export(tmp_path, exported, wrong, samples_of(net, exported), devices[precision])


def test_labels_that_differ_are_counted_and_not_judged(
    precision, converted, devices, tmp_path, monkeypatch
):
    net, exported = converted(NAMES[0], precision)
    write_files(tmp_path, net, exported)
    original = [np.array([[0.0, 1, 2, 3], [3, 2, 1, 0]], np.float32)]
    answers = iter([original, [original[0][:, ::-1] * [[1], [-1]]]])
    for module in ("subnet", "running"):
        monkeypatch.setattr(f"hwsearch.verify.{module}.run_file", lambda *args: next(answers))
    monkeypatch.setattr("hwsearch.models.exported_module.torch_outputs", lambda *args: original)
    assert verify(tmp_path, net, exported, devices[precision])["labels_as_fp32"] == 0.5


def edit(folder, change):
    """Change the model as a forger would, who knows of the hashes."""
    model = onnx.load(folder / MODEL)
    change(model)
    onnx.save(model, folder / MODEL)
    card = json.loads((folder / CARD).read_text())
    card["files"][MODEL] = sha256_of(folder / MODEL)
    card["measurements"] = {card["files"][MODEL]: []}
    (folder / CARD).write_text(json.dumps(card))


def test_other_weights_answer_otherwise(precision, converted, devices, tmp_path):
    net, exported = converted(NAMES[0], precision)
    folder = write(tmp_path / "subnet", net, exported, devices[precision])
    edit(folder, lambda model: model.CopyFrom(scaled(exported.model, -1)))
    says = f"ONNX and the same {precision} file before differ by .* on the card's probe"
    with pytest.raises(VerificationError, match=says):
        verify_artifact(folder, devices[precision])


def test_file_of_another_precision_than_the_card_says(converted, devices, tmp_path):
    net, exported = converted(NAMES[0], "int8")
    folder = write(tmp_path / "subnet", net, exported, devices["int8"])

    def claim(model):
        next(
            prop for prop in model.metadata_props if prop.key == "hwsearch.precision"
        ).value = "fp32"

    edit(folder, claim)
    with pytest.raises(VerificationError, match=r"model\.onnx is fp32, and the card says int8"):
        verify_artifact(folder, devices["int8"])


def test_device_of_another_precision(device, converted, devices, tmp_path):
    net, exported = converted(NAMES[0], "int8")
    folder = write(tmp_path / "subnet", net, exported, devices["int8"])
    with pytest.raises(VerificationError, match=r"does not run: .* is int8"):
        verify_artifact(folder, device)


def test_card_from_before_there_were_precisions(written, device, tmp_path):
    source, folder = written(NAMES[0]), tmp_path / "subnet"
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())

    def forget(model):
        kept = [prop for prop in model.metadata_props if prop.key != "hwsearch.precision"]
        onnx.helper.set_model_props(model, {prop.key: prop.value for prop in kept})

    edit(folder, forget)
    card = json.loads((folder / CARD).read_text())
    for name in ("precision", "conversion", "graph", "unfolded_norms"):
        del card[name]
    (folder / CARD).write_text(json.dumps({**card, "schema": 1}))
    assert verify_artifact(folder, device)["schema"] == 1
