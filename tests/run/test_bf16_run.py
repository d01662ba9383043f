"""Runs on a device that computes float32 files in bfloat16."""

import json

import numpy as np
import onnx
import pytest

import hwsearch
import tests.run.search_parts as parts
from hwsearch.devices import MeasureSettings, load_device
from hwsearch.errors import InputError, VerificationError
from hwsearch.models.onnx_file import precision_of
from hwsearch.verify.subnet import verify_artifact


def rounded(array):
    """Keep the upper half of a float32's bits, as bfloat16 does."""
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + 0x8000) & 0xFFFF0000).view(np.float32)


class Rounding(parts.InProcess):
    """Rounds what it is given and what it answers."""

    def __init__(self):
        super().__init__(precision="bf16")

    def run(self, model, batches):
        given = ({name: rounded(array) for name, array in batch.items()} for batch in batches)
        for outputs in super().run(model, given):
            yield [rounded(output) for output in outputs]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    device = Rounding()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.run.setup.load_device", lambda spec: device)
        patch.setattr("hwsearch.run.finish.run_infer", lambda folder: "scripted\n")
        settings = {**parts.SETTINGS, "budget": 6}
        return hwsearch.search(**settings, out=tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def task():
    net = hwsearch.load_supernet(parts.NET)
    return parts.task(net.input_spec(net.space.smallest()[0]))


def folders(run):
    return [run.folder / subnet for subnet in run.front["subnet"]]


def card_of(folder):
    return json.loads((folder / "card.json").read_text())


def test_the_files_are_float32_and_the_scores_those_of_the_device(finished, task):
    for row, folder in zip(finished.front.to_dict("records"), folders(finished), strict=True):
        model = folder / "model.onnx"
        assert precision_of(onnx.load(model)) == "fp32"
        ((fed, labels),) = task.search.batches(len(task.search))
        ((scores,),) = Rounding().run(model, [fed])
        assert row["top1"] == pytest.approx(100 * (scores.argmax(axis=1) == labels).mean())


def test_cards_say_in_what_the_file_was_run(finished):
    for card in map(card_of, folders(finished)):
        assert (card["precision"], card["run_in"]) == ("fp32", "bf16")
        assert card["verification"]["disagreement"] < 1e-4  # in float32
        assert 1e-4 < card["verification"]["difference_to_fp32"] < 5e-2
        assert card["probe"]["tolerance"] == 5e-2
        answers = np.array(card["probe"]["outputs"][0], np.float32)
        assert np.array_equal(answers, rounded(answers))  # the device's, not PyTorch's
        (measured,) = card["measurements"].values()
        contexts = {m["context"] for m in measured if m["quantity"] == "top1"}
        assert all(context.endswith(" onnx fp32 run in bf16") for context in contexts)


def test_verification_repeats_what_the_device_answered(finished, monkeypatch, tmp_path):
    monkeypatch.setattr("hwsearch.verify.subnet.run_infer", lambda folder: "scripted\n")
    monkeypatch.setattr("hwsearch.devices.load_device", lambda spec: Rounding())
    assert finished.verify() == dict.fromkeys(finished.front["key"])
    (folder,) = finished.export(finished.front["key"][0], to=tmp_path)
    card = card_of(folder)
    card["probe"]["outputs"] = (1.1 * np.array(card["probe"]["outputs"])).tolist()
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(VerificationError, match="ONNX and the same file in bf16 before differ"):
        verify_artifact(folder, Rounding())


def test_infer_computes_in_bf16_too(finished):
    for folder in folders(finished):
        script = (folder / "infer.py").read_text()
        compile(script, "infer.py", "exec")
        assert "{\"INFERENCE_PRECISION_HINT\": 'bf16'}" in script
        assert "import numpy as np, openvino\n" in script


def test_without_onnxruntime_it_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("hwsearch.run.setup.load_device", lambda spec: Rounding())
    monkeypatch.setattr("hwsearch.evaluation.build.find_spec", lambda name: None)
    says = r"computes in bf16, and onnxruntime, which checks files in float32, is not installed"
    with pytest.raises(InputError, match=says):
        hwsearch.search(**parts.SETTINGS, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_for_real(tmp_path, monkeypatch):
    """OpenVINO in its own process, and infer.py."""
    pytest.importorskip("openvino")
    try:
        load_device("openvino:precision=bf16").close()
    except InputError as error:
        pytest.skip(str(error))
    quick = MeasureSettings(half_width=0.1, seconds_per_model=0.1, warmup_ceiling_s=0.3)
    monkeypatch.setattr("hwsearch.evaluation.evaluator.SEARCH", quick)
    monkeypatch.setattr("hwsearch.run.finish.CONFIRM", quick)
    settings = {**parts.SETTINGS, "device": "openvino:precision=bf16", "budget": 2}
    run = hwsearch.search(**settings, out=tmp_path / "run")
    assert run.verify() == dict.fromkeys(run.front["key"])
    assert {card_of(folder)["run_in"] for folder in folders(run)} == {"bf16"}
