"""Kits of int8 and fp16 models, and searches by what they measured."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import onnx
import pytest

import hwsearch
import tests.run.search_parts as parts
from hwsearch.devices.fingerprint import cpu_fingerprint
from hwsearch.errors import InputError
from hwsearch.kit import main as kit_main
from hwsearch.kit.device import KitDevice
from hwsearch.kit.manifest import read_manifest
from hwsearch.kit.results import read_results, sealed
from hwsearch.kit.table_latency import TableLatency
from hwsearch.models.onnx_file import precision_of, read_metadata
from hwsearch.quantization import PROCESSORS, quantization_for
from tests.kit import bare, kit_parts

HERE = quantization_for(cpu_fingerprint()).activations
ELSEWHERE = next(each for each in PROCESSORS if each != HERE)


def make(path, **given):
    return hwsearch.make_kit(parts.NET, path, subnets=8, settings=kit_parts.QUICK, **given)


def models_of(kit):
    with zipfile.ZipFile(kit) as archive:
        names = [name for name in archive.namelist() if name.startswith("models/")]
        return [onnx.load_from_string(archive.read(name)) for name in names]


@pytest.fixture(scope="module")
def int8_kit(tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "kit.pyz"
    make(path, precision="int8")
    return path


@pytest.fixture(scope="module")
def table(int8_kit, python, tmp_path_factory):
    """What the kit measures where there are numpy and onnxruntime alone."""
    folder = tmp_path_factory.mktemp("there")
    device = "ort-cpu:threads=1,precision=int8"
    done = bare.run(python, int8_kit, "--device", device, "--out", "t.json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "t.json"


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    given = {**parts.SETTINGS, "device": f"kit:{table}", "budget": 4}
    with pytest.MonkeyPatch.context() as patch:
        parts.leave_undrawn(patch)
        patch.setattr("hwsearch.run.finish.run_infer", lambda folder: "scripted\n")
        return hwsearch.search(**given, out=out)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_its_models_have_the_precision(precision, tmp_path):
    made = make(tmp_path / "kit.pyz", precision=precision)
    assert made == read_manifest(tmp_path / "kit.pyz")
    assert (made.precision, made.activations) == (precision, HERE if precision == "int8" else "")
    models = models_of(tmp_path / "kit.pyz")
    assert {precision_of(model) for model in models} == {precision}


def test_int8_models_are_those_of_the_processor(tmp_path):
    for activations, processor in PROCESSORS.items():
        path = tmp_path / f"{processor}.pyz"
        assert make(path, precision="int8", processor=processor).activations == activations
        for model in models_of(path):
            types = {tensor.data_type for tensor in model.graph.initializer}
            assert (onnx.TensorProto.UINT8 in types) == (activations == "uint8")


def test_it_measures_its_block_specs_in_int8(int8_kit, table):
    found, facts = read_results(table)
    assert facts.failed == {}
    assert found.fingerprint["precision"] == "int8"
    assert found.device == "ort-cpu:threads=1,precision=int8"
    assert not found.missing(read_manifest(int8_kit).specs)


def test_a_search_by_it_ends_with_int8_files(run, table):
    recorded = run.recorded["device"]
    assert (recorded["precision"], recorded["device"]) == ("int8", read_results(table)[0].device)
    for subnet in run.members["subnet"]:
        assert precision_of(onnx.load(run.folder / subnet / "model.onnx")) == "int8"
        card = json.loads((run.folder / subnet / "card.json").read_text())
        assert card["precision"] == "int8"
        (measured,) = card["measurements"].values()
        assert all(" onnx int8 (" in m["context"] for m in measured if m["quantity"] == "top1")


def test_its_second_kit_times_them_without_their_weights(run, python, tmp_path):
    kit = run.folder / "kit.pyz"
    manifest, models = read_manifest(kit), models_of(kit)
    assert (manifest.precision, manifest.activations) == ("int8", HERE)
    assert {precision_of(model) for model in models} == {"int8"}
    assert {read_metadata(model)["weights"] for model in models} == {"a repeated random tile"}
    done = bare.run(python, kit, "--out", "timings.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.MonkeyPatch.context() as patch:
        for module in ("hwsearch.run.finish", "hwsearch.verify.subnet"):
            patch.setattr(f"{module}.run_infer", lambda folder: "scripted\n")
        confirmed = hwsearch.confirm(run.folder, tmp_path / "timings.json")
    assert confirmed.confirmed
    assert np.isfinite(confirmed.front["latency"]).all()


def refused(kit, device, out, capsys):
    assert kit_main.main(["--device", device, "--out", str(out)], kit) == 2
    assert not out.exists()
    return capsys.readouterr().err


def test_a_device_of_another_precision_is_refused(int8_kit, real_kit, tmp_path, capsys):
    out = tmp_path / "t.json"
    said = refused(int8_kit, "ort-cpu:threads=1", out, capsys)
    assert "takes fp32 models, and those of this kit are int8" in said
    assert "--precision fp32'" in said
    said = refused(real_kit, "ort-cpu:threads=1,precision=int8", out, capsys)
    assert "takes int8 models, and those of this kit are fp32" in said


def test_another_processor_is_refused(tmp_path, capsys):
    kit = tmp_path / "kit.pyz"
    make(kit, precision="int8", processor=PROCESSORS[ELSEWHERE])
    said = refused(kit, "ort-cpu:precision=int8", tmp_path / "t.json", capsys)
    assert f"--precision int8 --processor {PROCESSORS[HERE]}'" in said


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"precision": "int4"}, "unknown precision 'int4'; known: fp32, fp16, int8"),
        ({"precision": "int8", "processor": "z80"}, "unknown processor 'z80'; known: x86_64, aar"),
    ],
)
def test_what_no_device_takes_is_refused(given, says, tmp_path):
    with pytest.raises(InputError, match=says):
        make(tmp_path / "kit.pyz", **given)
    assert not list(tmp_path.iterdir())


def test_a_kit_of_an_unknown_precision_is_damaged(real_kit, tmp_path):
    for wrong in ("int4", ["fp32"], None):
        kit = kit_parts.with_manifest(
            real_kit, tmp_path / "kit.pyz", lambda record, p=wrong: record.update(precision=p)
        )
        with pytest.raises(InputError, match="is damaged"):
            read_manifest(kit)


def test_a_kit_made_before_precisions_is_of_float32(real_kit, tmp_path):
    def forget(record):
        del record["precision"], record["activations"]

    kit = kit_parts.with_manifest(real_kit, tmp_path / "kit.pyz", forget)
    assert read_manifest(kit).precision == "fp32"


def test_outputs_of_a_bf16_table_are_those_of_its_runtime(table, monkeypatch, tmp_path):
    """And those of an fp16 one are computed by ONNX Runtime."""
    asked = []
    monkeypatch.setattr(
        "hwsearch.kit.device.output_device", lambda info: asked.append(info) or parts.InProcess()
    )
    found, facts = read_results(table)
    for precision in ("bf16", "fp16"):
        fingerprint = {**found.fingerprint, "precision": precision}
        path = tmp_path / f"{precision}.json"
        sealed(replace(found, device="openvino", fingerprint=fingerprint), facts).save(path)
        device = KitDevice(str(path))
    assert device.precision == "fp16"
    ((info,),) = [asked]
    assert (info.spec, info.precision) == ("openvino", "bf16")


def test_a_kit_for_a_choice_of_precision_measures_blocks_in_each(python, tmp_path):
    made = make(tmp_path / "kit.pyz", precision="fp32,int8:per-block")
    assert (made.precision, made.activations) == ("mixed", HERE)
    kinds = {spec.kind for spec in made.specs}
    chosen = {dict(spec.hyperparameters).get("precision") for spec in made.specs}
    assert "boundary" in kinds
    assert chosen == {None, "int8"}
    device = ("--device", "ort-cpu:threads=1,precision=mixed")
    done = bare.run(python, tmp_path / "kit.pyz", *device, "--out", "t.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    net = hwsearch.load_supernet(parts.NET).with_precision("fp32", "int8", per="block")
    predicted = TableLatency(net, read_results(tmp_path / "t.json")[0])(net.space.sample(20, 0))
    assert (predicted > 0).all()
