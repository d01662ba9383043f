"""Runs for devices that take int8 or float16 files."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.devices import MeasureSettings
from hwsearch.errors import DataError, EvaluationError, InputError
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.files import sha256_of
from hwsearch.models.onnx_file import precision_of
from hwsearch.models.quantize import CALIBRATED
from hwsearch.run.config import RunConfig
from hwsearch.run.setup import prepare
from hwsearch.trial_store import Store
from hwsearch.verify.subnet import verify_artifact

CONVERTERS = {"int8": "hwsearch 0.", "fp16": "onnxruntime 1."}


def search(folder, **settings):
    return hwsearch.search(**{**parts.SETTINGS, "budget": 6, **settings}, out=folder)


@pytest.fixture
def task():
    net = hwsearch.load_supernet(parts.NET)
    return parts.task(net.input_spec(net.space.smallest()[0]))


def evaluator_of(precision, task, **changes):
    net = hwsearch.load_supernet(parts.NET)
    device = parts.InProcess(precision=precision)
    return Evaluator(net, device, replace(task, **changes), Store())


def cards(run):
    return [json.loads((run.folder / s / "card.json").read_text()) for s in run.front["subnet"]]


@pytest.fixture(scope="module", params=["int8", "fp16"])
def finished(request, tmp_path_factory):
    device = parts.InProcess(precision=request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.run.setup.load_device", lambda spec: device)
        patch.setattr("hwsearch.devices.load_device", lambda spec: device)
        patch.setattr("hwsearch.run.finish.run_infer", lambda folder: "scripted\n")
        run = search(tmp_path_factory.mktemp("runs") / request.param)
    return run, request.param


@pytest.fixture
def _device_of_the_run(finished, monkeypatch):
    device = parts.InProcess(precision=finished[1])
    monkeypatch.setattr("hwsearch.run.setup.load_device", lambda spec: device)
    monkeypatch.setattr("hwsearch.devices.load_device", lambda spec: device)


@pytest.mark.usefixtures("quick_infer", "_device_of_the_run")
class TestRun:
    def test_ships_verified_files_of_the_precision(self, finished):
        run, precision = finished
        assert len(run.front)
        assert run.verify() == dict.fromkeys(run.front["key"])
        for subnet in run.front["subnet"]:
            assert precision_of(onnx.load(run.folder / subnet / "model.onnx")) == precision

    def test_search_and_front_state_the_score_of_the_shipped_file(self, finished, task):
        run, precision = finished
        device = parts.InProcess(precision=precision)
        for row in run.front.to_dict("records"):
            model = run.folder / row["subnet"] / "model.onnx"
            for split, column in (("search", "top1"), ("report", "top1_report")):
                samples = getattr(task, split)
                ((fed, labels),) = samples.batches(len(samples))
                ((scores,),) = device.run(model, [fed])
                assert row[column] == pytest.approx(100 * (scores.argmax(axis=1) == labels).mean())

    def test_cards_say_how_the_file_came_about(self, finished, task):
        run, precision = finished
        ranges = f"{parts.SIZES['calibration']}@{task.calibration.digest}"
        how = "int8 activations, 8-bit weights per channel"
        for card in cards(run):
            assert card["precision"] == precision
            assert card["conversion"].pop("converter").startswith(CONVERTERS[precision])
            assert card["conversion"] == (
                {
                    "quantization": f"static QDQ, {how}, {CALIBRATED}",
                    "quantization_samples": ranges,
                }
                if precision == "int8"
                else {}
            )
            assert 0 < card["verification"]["difference_to_fp32"] < 1
            assert 0.5 < card["verification"]["labels_as_fp32"] <= 1
            assert card["verification"]["disagreement"] < 1e-3
            (measured,) = card["measurements"].values()
            contexts = {m["context"] for m in measured if m["quantity"] == "top1"}
            int8 = f"onnx int8 ({how}, {CALIBRATED}: {ranges})"
            end = int8 if precision == "int8" else "onnx fp16"
            assert all(context.endswith(end) for context in contexts)

    def test_goes_on_to_what_an_unbroken_run_finds(self, finished, tmp_path):
        resumed = hwsearch.resume(search(tmp_path / "short", budget=3).folder, budget=6)
        assert resumed.front.equals(finished[0].front)
        for ours, theirs in zip(cards(resumed), cards(finished[0]), strict=True):
            assert ours["files"] == theirs["files"]

    def test_a_damaged_file_is_noticed_by_its_answers(self, finished, tmp_path):
        run, precision = finished
        folder = tmp_path / "subnet"
        folder.mkdir()
        source = run.folder / run.front["subnet"][0]
        for path in source.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        model = onnx.load(folder / "model.onnx")
        name = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data)).name
        weight = next(w for w in model.graph.initializer if w.name == name)
        weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), name))
        onnx.save(model, folder / "model.onnx")
        card = json.loads((folder / "card.json").read_text())
        (measured,) = card["measurements"].values()
        card["files"]["model.onnx"] = sha256_of(folder / "model.onnx")
        card["measurements"] = {card["files"]["model.onnx"]: measured}
        (folder / "card.json").write_text(json.dumps(card))
        device = parts.InProcess(precision=precision)
        says = f"ONNX and the same {precision} file before differ by .* on the card's probe"
        with pytest.raises(hwsearch.HwsearchError, match=says):
            verify_artifact(folder, device)


@pytest.mark.usefixtures("quick_infer")
class TestRefused:
    @pytest.fixture
    def device(self, monkeypatch):
        device = parts.InProcess(precision="int8")
        monkeypatch.setattr("hwsearch.run.setup.load_device", lambda spec: device)
        return device

    def refused(self, folder, says, **settings):
        with pytest.raises(InputError, match=says):
            search(folder / "run", **settings)
        assert not (folder / "run").exists()

    def test_int8_without_calibration_samples(self, device, tmp_path, monkeypatch):
        monkeypatch.setattr(
            "hwsearch.run.setup.load_task",
            lambda *args: replace(parts.task(args[1]), calibration=None),
        )
        monkeypatch.setattr(type(parts.network()), "recalibrate", ())
        self.refused(tmp_path, "takes int8 files, whose .* ranges .* has none; give data with")

    def test_precision_that_nobody_knows(self, device, tmp_path):
        device.precision = "int3"
        self.refused(tmp_path, "unknown precision of device 'scripted' 'int3'; known: int4, int8")

    @pytest.mark.parametrize("precision", ["fp16", "int8"])
    def test_without_a_converter(self, precision, device, tmp_path, monkeypatch):
        device.precision = precision
        monkeypatch.setattr("hwsearch.models.quantize.find_spec", lambda name: None)
        self.refused(tmp_path, rf"takes {precision} files, and onnxruntime, .*hwsearch\[cpu\]")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_bytes_are_said_to_be_those_of_float32(precision, device):
    device.precision = precision
    settings = {name: parts.SETTINGS[name] for name in ("device", "data")}
    config = RunConfig(supernet=parts.NET, objectives=("top1", "bytes"), **settings)
    expected = "bytes are those of the float32 model, and the files are int8"
    sizes = [expected] if precision == "int8" else []
    assert prepare(config).warnings == (*sizes, parts.FEW)


def test_scores_of_two_precisions_are_of_two_contexts(task):
    contexts = {
        precision: evaluator_of(precision, task).score_context(task.search)
        for precision in ("fp32", "fp16", "int8")
    }
    assert contexts["fp32"].endswith(" onnx fp32")
    assert contexts["fp16"].endswith(" onnx fp16")
    assert " onnx int8 (" in contexts["int8"]


def test_int8_files_are_made_for_the_devices_processor(task, monkeypatch):
    """Which need not be this one."""
    fingerprint = {"architecture": "x86_64", "instructions": "avx2"}
    monkeypatch.setattr(parts.InProcess, "fingerprint", lambda self: fingerprint)
    evaluator = evaluator_of("int8", task)
    model = evaluator.models.exported(evaluator.net.space.smallest()[0]).model
    weights = [numpy_helper.to_array(w) for w in model.graph.initializer if w.data_type == 3]
    assert max(np.abs(weight.astype(int)).max() for weight in weights) == 64
    assert "uint8 activations, 7-bit weights" in evaluator.score_context(task.search)


def test_a_subnet_beyond_float16_fails_alone(task):
    evaluator = evaluator_of("fp16", task)
    network = evaluator.net.network
    subnet = network.subnet

    def huge(arch):
        made = subnet(arch)
        if arch.key == small.key:
            list(made.parameters())[-1].data[0] = 1e6
        return made

    small, large = evaluator.net.space.smallest()[0], evaluator.net.space.largest()[0]
    network.subnet = huge
    evaluator.store.propose(evaluator.net.space.architectures([small, large]), round=0, origin="")
    results = evaluator.search_values([small, large], ["top1"])
    assert isinstance(results[small.key], EvaluationError)
    assert "holds 1e+06, and float16 ends at 65504" in str(results[small.key])
    assert results[large.key].keys() == {"top1"}


def test_calibration_samples_that_go_end_the_run(task):
    """They are read a second time, for the ranges."""
    evaluator = evaluator_of("int8", task)
    times = []

    def batches(size, spec):
        times.append(size)
        if len(times) > 1:
            raise DataError("ant_1.JPEG cannot be decoded")
        return type(task.calibration).batches(task.calibration, size, spec)

    object.__setattr__(task.calibration, "batches", batches)
    with pytest.raises(DataError, match="cannot be decoded"):
        evaluator.models.exported(evaluator.net.space.smallest()[0])


def test_for_real(tmp_path, monkeypatch):
    """ONNX Runtime in its own process, and infer.py."""
    quick = MeasureSettings(half_width=0.1, seconds_per_model=0.1, warmup_ceiling_s=0.3)
    monkeypatch.setattr("hwsearch.evaluation.evaluator.SEARCH", quick)
    monkeypatch.setattr("hwsearch.run.finish.CONFIRM", quick)
    begun = search(tmp_path / "run", device="ort-cpu:precision=int8", budget=1)
    assert begun.recorded["device"]["precision"] == "int8"
    run = hwsearch.resume(begun.folder, budget=2)
    assert run.verify() == dict.fromkeys(run.front["key"])
    assert {card["precision"] for card in cards(Run(run.folder))} == {"int8"}
