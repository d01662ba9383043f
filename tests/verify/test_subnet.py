"""Every check must catch what it is there for."""

import copy
import json
import shutil
from contextlib import contextmanager

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

from hwsearch.errors import HwsearchError, InputError, VerificationError
from hwsearch.files import sha256_of
from hwsearch.models.agreement import disagreement, labels_agree, probe_inputs
from hwsearch.models.artifact import CARD, INFER, MODEL, WEIGHTS, write_files
from hwsearch.models.export import to_onnx
from hwsearch.supernets.interface import InputSpec, TensorSpec
from hwsearch.verify.subnet import check_probe, run_infer, verify_artifact, verify_export
from tests.models.conftest import write_artifact
from tests.models.networks import export, promised
from tests.models.test_count import Tied

NAME = "test-images"


@pytest.fixture
def folder(written, tmp_path):
    """A whole artifact that a test may spoil."""
    return shutil.copytree(written(NAME), tmp_path / "subnet")


@pytest.fixture(scope="session")
def no_infer():
    """The other checks come before infer.py is run, which takes a second."""

    @contextmanager
    def never():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hwsearch.verify.subnet.run_infer", lambda folder: "")
            yield

    return never


@pytest.fixture(autouse=True)
def _without_infer(request, no_infer):
    if "runs_infer" in request.fixturenames:
        yield
    else:
        with no_infer():
            yield


@pytest.fixture
def runs_infer():
    """This test runs infer.py for real."""


def edit_card(folder, change, *, rehash=False):
    card = json.loads((folder / CARD).read_text())
    change(card)
    if rehash:
        model = card["files"][MODEL]
        card["files"] = {name: sha256_of(folder / name) for name in (MODEL, WEIGHTS, INFER)}
        card["measurements"] = {card["files"][MODEL]: card["measurements"].get(model, [])}
    (folder / CARD).write_text(json.dumps(card))


def rehash(folder):
    """As a forger would, who knows of the hashes."""
    edit_card(folder, lambda card: None, rehash=True)


def change_model(folder, change):
    model = onnx.load(folder / MODEL)
    change(model)
    onnx.save(model, folder / MODEL)


def scale_weight(model, factor):
    weight = next(w for w in model.graph.initializer if w.name.endswith("head.weight"))
    array = numpy_helper.to_array(weight) * np.float32(factor)
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))


@pytest.mark.parametrize("name", [NAME, "test-tokens"])
@pytest.mark.usefixtures("runs_infer")
def test_a_whole_artifact_passes(name, written, device, exported_of):
    card = verify_artifact(written(name), device)
    assert card["key"] == exported_of(name)[1].arch.key


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, INFER])
@pytest.mark.parametrize("where", [0.0, 0.5, 0.99])
def test_flipped_byte(name, where, folder, device):
    content = bytearray((folder / name).read_bytes())
    content[int(where * len(content))] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(VerificationError, match=f"{name} is not the file that the card describes"):
        verify_artifact(folder, device)


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, INFER])
def test_missing_file(name, folder, device):
    (folder / name).unlink()
    with pytest.raises(VerificationError, match=f"{name} is missing"):
        verify_artifact(folder, device)


def test_missing_card(folder, device):
    (folder / CARD).unlink()
    with pytest.raises(InputError, match="is no exported subnet"):
        verify_artifact(folder, device)


def set_at(*path):
    *where, last, value = path

    def change(card):
        for step in where:
            card = card[step]
        card[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (set_at("key", "0" * 16), "says key .*, the card 0000"),
        (set_at("architecture", "stage1.depth", 3), "different architectures"),
        (set_at("supernet", "digest", "f" * 64), "different weights of the supernet"),
        (set_at("input", "preprocessing", "mean", [0.5, 0.5, 0.5]), "different inputs or prep"),
        (set_at("input", "classes", ["ring", "cross", "blob", "stripe"]), "different inputs"),
        (set_at("exact", "macs", 1), "MACs of model.onnx: .* counted, 1 promised"),
        (set_at("exact", "params", 1), "parameters in weights.safetensors: .*, 1 promised"),
        (set_at("measurements", {"f" * 64: []}), "measurements are not of this model.onnx"),
        (set_at("probe", "outputs", 0, 0, 0, 9.0), "differ by .* on the card's probe"),
        (set_at("probe", "outputs", [[[0.0]]]), "differ by inf on the card's probe"),
        (set_at("probe", "seed", 1), "on the card's probe"),
        (set_at("probe", None), "is incomplete"),
        (set_at("exact", {}), "is incomplete: KeyError 'params'"),
        (set_at("files", MODEL, None), "model.onnx is not the file that the card describes"),
        (set_at("files", 3), "is incomplete"),
        (set_at("schema", 3), "has schema 3"),
    ],
)
def test_edited_card(change, says, folder, device):
    edit_card(folder, change)
    with pytest.raises(HwsearchError, match=says):
        verify_artifact(folder, device)


def test_card_that_lacks_a_part(folder, device):
    whole = (folder / CARD).read_text()
    for part in ("key", "architecture", "supernet", "input", "exact", "files", "probe",
                 "measurements"):  # fmt: skip
        (folder / CARD).write_text(whole)
        edit_card(folder, lambda card, part=part: card.pop(part))
        with pytest.raises(VerificationError, match=part):
            verify_artifact(folder, device)


def test_model_of_another_architecture(folder, device, exported_of):
    _, other = exported_of(NAME, "smallest")
    onnx.save(other.model, folder / MODEL)
    rehash(folder)
    with pytest.raises(VerificationError, match=r"model\.onnx says key"):
        verify_artifact(folder, device)


def test_model_that_only_says_it_is_this_architecture(folder, device, exported_of):
    _, other = exported_of(NAME, "smallest")
    stated = copy.deepcopy(list(onnx.load(folder / MODEL).metadata_props))
    model = onnx.ModelProto.FromString(other.model.SerializeToString())
    del model.metadata_props[:]
    model.metadata_props.extend(stated)
    onnx.save(model, folder / MODEL)
    rehash(folder)
    with pytest.raises(VerificationError, match=r"parameters in model\.onnx: .* promised"):
        verify_artifact(folder, device)


def test_model_of_other_weights(folder, device):
    change_model(folder, lambda model: scale_weight(model, 1.01))
    rehash(folder)
    with pytest.raises(VerificationError, match=r"on the card's probe; 0.001 is allowed"):
        verify_artifact(folder, device)


def test_model_within_the_tolerance(folder, device):
    change_model(folder, lambda model: scale_weight(model, 1 + 1e-5))
    rehash(folder)
    verify_artifact(folder, device)


def test_model_that_answers_nan(folder, device):
    change_model(folder, lambda model: scale_weight(model, np.nan))
    rehash(folder)
    with pytest.raises(VerificationError, match="NaN in its weight"):
        verify_artifact(folder, device)


def test_model_that_is_none(folder, device):
    (folder / MODEL).write_bytes(b"no model")
    rehash(folder)
    with pytest.raises(VerificationError, match=r"model\.onnx fails the ONNX checker"):
        verify_artifact(folder, device)


def test_model_with_weights_elsewhere(folder, device):
    model = onnx.load(folder / MODEL)
    onnx.save(model, folder / MODEL, save_as_external_data=True, location="weights.bin",
              size_threshold=0)  # fmt: skip
    rehash(folder)
    with pytest.raises(VerificationError, match=r"weights\.bin|in another file"):
        verify_artifact(folder, device)


def test_weights_of_another_architecture(folder, device, exported_of):
    save_file(exported_of(NAME, "smallest")[1].subnet.state_dict(), folder / WEIGHTS)
    rehash(folder)
    with pytest.raises(VerificationError, match=r"parameters in weights\.safetensors"):
        verify_artifact(folder, device)


def test_weights_that_are_none(folder, device):
    (folder / WEIGHTS).write_bytes(b"no weights")
    rehash(folder)
    with pytest.raises(VerificationError, match=r"weights\.safetensors cannot be read"):
        verify_artifact(folder, device)


@pytest.mark.usefixtures("runs_infer")
def test_infer_that_fails(folder, device):
    (folder / INFER).write_text("raise SystemExit('it does not work')")
    rehash(folder)
    with pytest.raises(VerificationError, match=r"infer\.py failed: it does not work"):
        verify_artifact(folder, device)
    (folder / INFER).write_text("pass")
    with pytest.raises(VerificationError, match=r"infer\.py failed: it printed nothing"):
        run_infer(folder)


@pytest.mark.usefixtures("runs_infer")
def test_infer_that_hangs(folder, monkeypatch):
    monkeypatch.setattr("hwsearch.verify.subnet.INFER_TIMEOUT_S", 0.5)
    (folder / INFER).write_text("import time; time.sleep(60)")
    with pytest.raises(VerificationError, match=r"infer\.py took over 0\.5 s"):
        run_infer(folder)


@pytest.fixture
def fresh(exported_of, tmp_path):
    """Files as the export writes them, and what `verify_export` wants."""
    net, exported = exported_of(NAME)
    write_files(tmp_path, net, exported)
    samples = probe_inputs(net.input_spec(exported.arch).inputs, seed=7)
    return tmp_path, exported, promised(net, exported.arch), samples


def test_fresh_files_pass(fresh, device):
    stated = verify_export(*fresh, device)
    assert stated["samples"] == 2
    assert stated["disagreement"] < 1e-5
    assert json.loads(json.dumps(stated)) == stated


def test_fresh_model_is_parsed_once(fresh, device, monkeypatch):
    parsed, load = [], onnx.load

    def watched(path, **named):
        parsed.append(str(path))
        return load(path, **named)

    monkeypatch.setattr(onnx, "load", watched)
    verify_export(*fresh, device)
    assert parsed == [str(fresh[0] / MODEL)]


def test_tied_weights_pass(tmp_path, device):
    spec = InputSpec(inputs=(TensorSpec(name="ids", shape=(5,), dtype="int64", high=9),))
    net, exported = export(Tied(), spec)
    folder = write_artifact(tmp_path / "tied", net, exported)
    verify_export(
        folder, exported, promised(net, exported.arch), probe_inputs(spec.inputs, 1), device
    )
    verify_artifact(folder, device)


def test_fresh_model_of_other_weights(fresh, device):
    folder, *_ = fresh
    change_model(folder, lambda model: scale_weight(model, 1.01))
    with pytest.raises(VerificationError, match=r"differ by 0.0.* on real samples"):
        verify_export(*fresh, device)


def test_fresh_model_that_answers_nan(fresh, device):
    folder, *_ = fresh
    change_model(folder, lambda model: scale_weight(model, np.nan))
    with pytest.raises(VerificationError, match="NaN in its weight"):
        verify_export(*fresh, device)


def test_fresh_model_without_the_recalibrated_statistics(fresh, device, exported_of):
    folder, exported, *_ = fresh
    net, _ = exported_of(NAME)
    onnx.save(to_onnx(net, exported.arch), folder / MODEL)
    with pytest.raises(VerificationError, match="on real samples"):
        verify_export(*fresh, device)


def test_fresh_weights_of_another_size(fresh, device):
    folder, *_ = fresh
    state = load_file(folder / WEIGHTS)
    state["head.bias"] = torch.zeros(5)
    save_file(state, folder / WEIGHTS, metadata={"hwsearch.buffers": "[]"})
    with pytest.raises(VerificationError, match=r"parameters in weights\.safetensors"):
        verify_export(*fresh, device)


def test_promise_that_is_not_kept(fresh, device):
    folder, exported, costs, samples = fresh
    for name in costs:
        wrong = {**costs, name: costs[name] + 1}
        with pytest.raises(VerificationError, match=f"{costs[name]:,} counted, {wrong[name]:,}"):
            verify_export(folder, exported, wrong, samples, device)


def test_model_that_the_runtime_refuses(fresh, device):
    folder, exported, costs, samples = fresh
    wrong = {name: array[:, :2] for name, array in samples.items()}
    with pytest.raises(VerificationError, match=r"model\.onnx does not run"):
        verify_export(folder, exported, costs, wrong, device)


def test_network_that_picks_another_label(fresh, device, monkeypatch):
    """Close enough in numbers, and not a tie: the label decides."""
    folder, exported, costs, samples = fresh
    monkeypatch.setattr(
        "hwsearch.models.exported_module.torch_outputs",
        lambda *args: [np.array([[1.0, 1.0005, 0, 0], [1, 0, 0, 0]], np.float32)],
    )
    monkeypatch.setattr(
        "hwsearch.verify.subnet.run_file",
        lambda *args: [np.array([[1.0008, 1.0, 0, 0], [1, 0, 0, 0]], np.float32)],
    )
    verify_export(folder, exported, costs, samples, device)
    monkeypatch.setattr("hwsearch.verify.subnet._check_tolerance", lambda *args: None)
    monkeypatch.setattr(
        "hwsearch.verify.subnet.run_file",
        lambda *args: [np.array([[0, 1, 0, 0], [0, 1, 0, 0]], np.float32)],
    )
    with pytest.raises(VerificationError, match="another label for 1 of 2 samples"):
        verify_export(folder, exported, costs, samples, device)


def test_probe_of_the_card(folder, device):
    card = json.loads((folder / CARD).read_text())
    assert 0 <= check_probe(folder, card, device) < 1e-5


def test_disagreement():
    a = [np.array([1.0, -4.0]), np.array([[0.5]])]
    assert disagreement(a, a) == 0.0
    assert disagreement([np.array([1.0, -4.1]), a[1]], a) == pytest.approx(0.1 / 4)
    assert disagreement([a[0], np.array([[0.6]])], a) == pytest.approx(0.2)
    assert disagreement([np.array([1.0])], [np.array([[1.0]])]) == float("inf")
    assert disagreement(a[:1], a) == float("inf")
    assert disagreement([np.zeros(2)], [np.zeros(2)]) == 0.0
    assert disagreement([np.full(2, 0.1)], [np.zeros(2)]) == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_disagreement_with_what_is_no_number(bad):
    good = np.array([1.0, 2.0])
    strange = np.array([bad, 2.0])
    assert disagreement([strange], [good]) == float("inf")
    assert disagreement([good], [strange]) == float("inf")
    assert disagreement([good, strange], [good, good]) == float("inf")
    assert disagreement([strange, good], [good, good]) == float("inf")


def test_labels_agree_or_tie():
    reference = np.array([[1.0, 0.0], [1.0, 0.9995], [1.0, 0.99]])
    ours = np.array([[0.9, 0.1], [0.0, 1.0], [0.0, 1.0]])
    assert labels_agree(ours, reference).tolist() == [True, True, False]
    assert labels_agree(ours, reference, tolerance=0.02).tolist() == [True, True, True]


def test_samples_that_are_no_numbers_are_named_before_anything_is_run(fresh):
    folder, exported, macs, samples = fresh
    (name,) = samples
    spoilt = {name: samples[name].copy()}
    spoilt[name][1].flat[0] = np.nan
    with pytest.raises(VerificationError, match=f"sample 1 of input '{name}' has NaN"):
        verify_export(folder, exported, macs, spoilt, device=None)
