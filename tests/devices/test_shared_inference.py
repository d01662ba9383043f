"""Models run together on ort-cpu answer what they answer one by one."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from hwsearch.devices import load_device
from hwsearch.devices.base import SharedInference
from hwsearch.errors import DeviceError
from hwsearch.models.export import to_onnx
from hwsearch.models.exported_module import ExportedModule
from hwsearch.models.onnx_file import external_tensors, read_model, write_model
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import load_family
from tests.devices import tiny_models


@pytest.fixture(scope="module")
def device():
    device = load_device("ort-cpu:threads=1")
    assert isinstance(device, SharedInference)
    yield device
    device.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    net = Supernet("n", load_family("cifar10-resnet").tiny(), "random:0")
    folder = tmp_path_factory.mktemp("models")
    return {
        arch.key: write(folder / f"{arch.key}.onnx", to_onnx(net, arch))
        for arch in net.space.sample(6, seed=0)
    }


def write(path, model):
    onnx.save(model, path)
    return path


def batches(sizes=(70, 5)):
    rng = np.random.default_rng(0)
    return [{"image": rng.standard_normal((n, 3, 16, 16)).astype(np.float32)} for n in sizes]


def test_answers_are_those_of_each_alone(device, models):
    together = list(device.run_shared(models, batches()))
    for name, path in models.items():
        alone = list(device.run(path, batches()))
        for answers, (expected,) in zip(together, alone, strict=True):
            np.testing.assert_array_equal(
                answers.outputs[name][0].argmax(axis=1), expected.argmax(axis=1)
            )
            np.testing.assert_allclose(answers.outputs[name][0], expected, rtol=1e-5, atol=1e-6)
    for answers in together:
        assert sum(answers.shares.values()) == pytest.approx(1)
        assert min(answers.shares.values()) > 0


def test_company_makes_no_difference(device, models):
    (together,) = device.run_shared(models, batches((70,)))
    for name, path in models.items():
        (alone,) = device.run_shared({name: path}, batches((70,)))
        np.testing.assert_array_equal(alone.outputs[name][0], together.outputs[name][0])
        assert alone.shares == {name: 1.0}


def test_one_that_is_refused_takes_no_others_along(device, models, tmp_path):
    broken = onnx.load(next(iter(models.values())))
    broken.graph.node[-1].op_type = "NoSuchOperator"
    garbage = Path(tmp_path / "garbage.onnx")
    garbage.write_bytes(b"no model")
    given = {
        **models,
        "broken": write(tmp_path / "broken.onnx", broken),
        "int8": tiny_models.conv(tmp_path / "int8.onnx", precision="int8", size=16),
        "garbage": garbage,
    }
    for answers in device.run_shared(given, batches()):
        assert "NoSuchOperator" in str(answers.outputs["broken"])
        assert "int8" in str(answers.outputs["int8"])
        assert "cannot be read" in str(answers.outputs["garbage"])
        for name in ("broken", "int8", "garbage"):
            assert isinstance(answers.outputs[name], DeviceError)
        for name in models:
            assert isinstance(answers.outputs[name], list)


def test_files_that_are_loaded_are_not_loaded_again(device, models, monkeypatch):
    from hwsearch.devices.shared_inference import SharedSession

    loads, load = [], SharedSession.__init__

    def watching(self, worker, given, *args):
        loads.append(set(given))
        load(self, worker, given, *args)

    monkeypatch.setattr(SharedSession, "__init__", watching)
    device.close()
    first, *rest = models
    (whole,) = device.run_shared(models, batches((9,)))
    (some,) = device.run_shared({name: models[name] for name in rest}, batches((9,)))
    assert loads == [set(models)]
    assert set(some.outputs) == set(some.shares) == set(rest)
    for name in rest:
        np.testing.assert_array_equal(some.outputs[name][0], whole.outputs[name][0])
    content = models[first].read_bytes()
    models[first].write_bytes(models[rest[0]].read_bytes())
    (changed,) = device.run_shared(models, batches((9,)))
    models[first].write_bytes(content)
    assert len(loads) == 2
    np.testing.assert_array_equal(changed.outputs[first][0], whole.outputs[rest[0]][0])


def test_files_are_parsed_once_and_those_in_memory_never(device, models, monkeypatch, tmp_path):
    parsed, load = [], onnx.load

    def watched(path, **named):
        parsed.append(Path(path).name)
        return load(path, **named)

    given = {name: tmp_path / f"{name}.onnx" for name in models}
    kept = [ExportedModule(arch=None, subnet=None, model=load(models[name])) for name in models]
    (other, *_), path = models.values(), tmp_path / "other.onnx"
    path.write_bytes(other.read_bytes())
    for exported, file in zip(kept, given.values(), strict=True):
        write_model(file, exported.model, exported)
    monkeypatch.setattr(onnx, "load", watched)
    list(device.run_shared({**given, "other": path}, batches((9,))))
    assert parsed == ["other.onnx"]


def test_weights_in_another_file(device, models, tmp_path):
    name, path = next(iter(models.items()))
    split = tmp_path / "split.onnx"
    named = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save(onnx.load(path), split, **named)
    (answers,) = device.run_shared({name: path, "split": split}, batches((9,)))
    np.testing.assert_array_equal(answers.outputs[name][0], answers.outputs["split"][0])
    assert any(external_tensors(read_model(split))), "the model that others read is as it was"


def test_a_new_process_loads_them_anew(device, models):
    (before,) = device.run_shared(models, batches((9,)))
    device._runner._process.kill()
    with pytest.raises(DeviceError, match="SIGKILL"):
        list(device.run_shared(models, batches((9,))))
    (after,) = device.run_shared(models, batches((9,)))
    for name in models:
        np.testing.assert_array_equal(before.outputs[name][0], after.outputs[name][0])


def test_batches_sent_ahead_do_not_get_mixed_up(device, models):
    """A batch is on its way while its forerunner's answers are used: others may come between."""
    given = batches((5, 6, 7, 8))
    whole = list(device.run_shared(models, given))
    name, path = next(iter(models.items()))
    answers = device.run_shared(models, given)
    seen = [next(answers), next(answers)]
    (between,) = device.run(path, [given[3]])
    np.testing.assert_allclose(between[0], whole[3].outputs[name][0], rtol=1e-5, atol=1e-6)
    seen += answers
    for one, other in zip(seen, whole, strict=True):
        np.testing.assert_array_equal(one.outputs[name][0], other.outputs[name][0])
    assert next(device.run_shared(models, given)).outputs, "the rest is never asked for"
    (after,) = device.run_shared(models, given[3:])
    np.testing.assert_array_equal(after.outputs[name][0], whole[3].outputs[name][0])


def test_one_batch_is_sent_ahead_and_no_more(device, models):
    taken = []

    def watched():
        for batch in batches((3,) * 5):
            taken.append(len(taken))
            yield batch

    counts = [len(taken) for _ in device.run_shared(models, watched())]
    assert counts == [2, 3, 4, 5, 5]


def test_other_inputs_are_refused(device, models):
    with pytest.raises(DeviceError, match="no input 'picture'"):
        list(device.run_shared(models, [{"picture": batches((3,))[0]["image"]}]))
