"""What a stranger's package brings goes the whole way, and so do its mistakes."""

import json

import numpy as np
import onnx
import pytest
import torch

import hwsearch
from hwsearch import plugins
from hwsearch.errors import InputError
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.models.artifact import CARD, INFER, MODEL, WEIGHTS

TASKS = {"test-images": "image_task", "test-tokens": "token_task"}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """A finished search of either supernet."""
    runs = {}

    def make(name):
        if name not in runs:
            runs[name] = hwsearch.search(
                name,
                device="scripted",
                data=f"hwsearch_test_plugin:{TASKS[name]}",
                budget=6,
                out=tmp_path_factory.mktemp("runs") / name,
            )
        return runs[name]

    return make


def test_everything_is_found():
    from hwsearch.devices import device_names

    assert set(TASKS) <= set(hwsearch.supernet_names())
    assert "scripted" in device_names()


def test_a_package_that_is_installed_meanwhile_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    before = plugins.names("hwsearch.tactics")
    info = tmp_path / "late-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hwsearch.tactics]\nlate = late:TACTIC\n")
    assert plugins.names("hwsearch.tactics") == sorted([*before, "late"])


@pytest.mark.parametrize("name", TASKS)
def test_search_ends_with_a_verified_front(name, run_of):
    run = run_of(name)
    assert run.finished
    front = run.front
    assert len(front) >= 2
    assert (run.trials["state"] == "done").all()
    assert len(run.trials) == 6
    assert run.trials["key"].is_unique
    assert front["top1"].is_monotonic_increasing
    assert front[LATENCY].is_monotonic_increasing
    assert run.verify() == dict.fromkeys(front["key"])


@pytest.mark.parametrize("name", TASKS)
def test_front_in_files(name, run_of):
    run = run_of(name)
    net = hwsearch.load_supernet(name)
    for row in run.front.to_dict("records"):
        folder = run.folder / row["subnet"]
        assert {path.name for path in folder.iterdir()} == {MODEL, WEIGHTS, INFER, CARD}
        card = json.loads((folder / CARD).read_text())
        arch = net.space.architectures([card["architecture"]])[0]
        assert arch.key == row["key"] == card["key"]
        model = onnx.load(folder / MODEL)
        onnx.checker.check_model(model, full_check=True)
        spec = net.input_spec(arch)
        assert [value.name for value in model.graph.input] == [spec.inputs[0].name]
        assert [value.name for value in model.graph.output] == list(spec.outputs)
        (measured,) = card["measurements"].values()
        assert [(m["quantity"], m["purpose"]) for m in measured] == [
            ("top1", "search"),
            ("latency", "confirm"),
            ("top1", "report"),
        ]
        assert row["macs"] == net.exact("macs", net.space.architectures([arch]))[0]


@pytest.mark.parametrize("name", TASKS)
def test_subnet_of_a_front_scores_what_the_table_says(name, run_of):
    run = run_of(name)
    best = run.front.iloc[-1]
    subnet = run.subnet(best["key"])
    task = run.setup().task
    fed, targets = next(task.report.batches(len(task.report)))
    with torch.no_grad():
        (inputs,) = fed.values()
        labels = subnet(torch.from_numpy(np.ascontiguousarray(inputs))).argmax(dim=1).numpy()
    assert 100 * (labels == targets).mean() == pytest.approx(best["top1_report"], abs=0.5)


@pytest.mark.parametrize("name", TASKS)
def test_largest_answers_like_the_teacher(name, run_of):
    """The targets are the largest subnet's answers, so it must be the best by far."""
    run = run_of(name)
    largest = hwsearch.load_supernet(name).space.largest()[0]
    trials = run.trials.set_index("key")["top1"]
    assert trials[largest.key] == trials.max() > 85
    assert trials.min() < 60


def test_wrong_data_for_a_supernet(tmp_path):
    with pytest.raises(InputError, match="the inputs of this model are no images"):
        hwsearch.search("test-tokens", device="scripted", data=f"imagefolder:{tmp_path}",
                        out=tmp_path / "run")  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_supernet_on_the_real_runtime(tmp_path):
    """The same on ort-cpu, with a clock; two trials are enough."""
    from hwsearch.devices import MeasureSettings

    quick = MeasureSettings(seconds_per_model=0.2, warmup_ceiling_s=0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.run.finish.CONFIRM", quick)
        patch.setattr("hwsearch.evaluation.evaluator.SEARCH", quick)
        run = hwsearch.search(
            "test-tokens",
            device="ort-cpu:threads=1",
            data="hwsearch_test_plugin:token_task",
            budget=2,
            out=tmp_path / "run",
        )
    assert (run.front["latency"] > 0).all()
    assert set(run.verify().values()) == {None}
