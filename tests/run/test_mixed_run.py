"""Searches in which precision is a choice."""

import json
import shutil
from types import SimpleNamespace

import onnx
import pytest

import hwsearch
import tests.run.search_parts as parts
from hwsearch.errors import InputError, VerificationError
from hwsearch.evaluation.build import check_conversion
from hwsearch.models.onnx_file import precision_of, read_metadata
from hwsearch.run.config import RunConfig
from hwsearch.run.setup import prepare
from hwsearch.verify.subnet import verify_artifact

SETTING = "fp32,int8:per-block"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    device = parts.InProcess(precision="mixed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.run.config.mixed_spec", lambda spec, options: spec)
        folder = tmp_path_factory.mktemp("runs") / "mixed"
        return parts.finished_search(folder, device, precision=SETTING, budget=14)


def test_files_have_the_precisions_of_their_architectures(run):
    assert len(run.front)
    for row in run.front.to_dict("records"):
        folder = run.folder / row["subnet"]
        model, card = (
            onnx.load(folder / "model.onnx"),
            json.loads((folder / "card.json").read_text()),
        )
        chosen = {v for n, v in card["architecture"].items() if n.startswith("precision.")}
        assert precision_of(model) == (chosen.pop() if len(chosen) == 1 else "mixed")
        assert card["precision"] == precision_of(model)
        assert read_metadata(model)["key"] == row["key"]


def test_the_search_begins_with_whole_precisions(run):
    trials = run.trials
    chosen = [c for c in trials.columns if c.startswith("precision.")]
    first = trials.head(8)[chosen].apply(lambda row: set(row.dropna()), axis=1)
    assert {"int8"} in list(first)
    assert {"fp32"} in list(first)


def test_structure_costs_do_not_depend_on_precision(run):
    net = hwsearch.load_supernet(parts.NET)
    for row in run.front.to_dict("records"):
        mapping = {name: row[name] for name in net.space.names if row[name] == row[name]}
        arch = net.space.architectures([mapping])
        assert net.exact("macs", arch)[0] == row["macs"]


def test_the_setting_is_recorded(run):
    assert run.config.precision == SETTING
    assert "precision.head" in run.recorded["full_space"]


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("ort-cpu:precision=int8", "leave the device's precision away"),
        ("scripted", "takes files of one precision"),
    ],
)
def test_devices_that_take_one_precision_are_refused(device, text, tmp_path):
    with pytest.raises(InputError, match=text):
        hwsearch.search(
            **{**parts.SETTINGS, "device": device}, precision=SETTING, out=tmp_path / "r"
        )


def test_options_that_a_device_lacks_are_refused():
    with pytest.raises(InputError, match="takes no fp16"):
        RunConfig(precision="fp16,fp32").with_device_of_choices()


def test_a_mixed_device_without_a_choice_is_refused():
    with pytest.raises(InputError, match="none is chosen"):
        prepare(RunConfig(device="ort-cpu:precision=mixed"))


def test_a_loaded_supernet_brings_its_choices(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "hwsearch.api.start_run", lambda kind, settings, *rest, **named: seen.update(s=settings)
    )
    net = hwsearch.load_supernet(parts.NET).with_precision("fp32", "int8")
    hwsearch.search(net, out=tmp_path / "r")
    assert seen["s"].precision == "int8,fp32"


@pytest.mark.parametrize("spec", ["kit:table.json", "ssh:board/ort-cpu"])
def test_a_device_elsewhere_of_one_precision_is_refused(spec):
    net = hwsearch.load_supernet(parts.NET).with_precision("fp32", "int8")
    device = SimpleNamespace(spec=spec, precision="fp32")
    with pytest.raises(InputError, match=f"{spec}' takes fp32 files alone; give it precision"):
        check_conversion(net, device, None)


def test_cards_say_the_precision_of_blocks_and_how_they_were_calibrated(run):
    for row in run.front.to_dict("records"):
        card = verify_artifact(run.folder / row["subnet"], parts.InProcess(precision="mixed"))
        chosen = {
            name.removeprefix("precision."): option
            for name, option in card["architecture"].items()
            if name.startswith("precision.")
        }
        assert card["blocks"] == chosen
        converted = card["precision"] != "fp32"
        assert ("calibration" in card) == converted
        assert ("kl_to_fp32" in card["verification"]) == converted


def test_a_card_with_another_precision_of_a_block_is_refused(run, tmp_path):
    row = run.front.to_dict("records")[0]
    folder = shutil.copytree(run.folder / row["subnet"], tmp_path / "subnet")
    card = json.loads((folder / "card.json").read_text())
    name, precision = next(iter(card["blocks"].items()))
    card["blocks"][name] = "fp32" if precision == "int8" else "int8"
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(VerificationError, match="the card says"):
        verify_artifact(folder, parts.InProcess(precision="mixed"))


def test_data_without_calibration_samples_are_refused():
    net = hwsearch.load_supernet(parts.NET).with_precision("fp32", "int8")
    device = SimpleNamespace(spec="ort-cpu:precision=mixed", precision="mixed")
    task = SimpleNamespace(spec="npz:few.npz", calibration=None)
    with pytest.raises(
        InputError, match=r"ranges from calibration samples, and data 'npz:few.npz'"
    ):
        check_conversion(net, device, task)
