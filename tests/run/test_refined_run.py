"""Members of the front ship refined weights where these score better on the search samples."""

import numpy as np
import pytest
from onnx import numpy_helper
from sliced_network import SlicedSupernet

import hwsearch
import tests.run.search_parts as parts
from hwsearch.models.artifact import read_card
from tests.run.search_parts import Watcher
from tests.run.test_written_run import NET

pytestmark = pytest.mark.usefixtures("quick_infer")


def search(out, samples, **settings):
    watcher = Watcher()
    given = {"device": "scripted", "data": samples, "budget": 10, "progress": watcher}
    return hwsearch.search(NET, out=out, **{**given, **settings}), watcher


def scores(run):
    """Key -> scores of the search, and those of the models that ship."""
    searched, shipped = {}, {}
    for m in run.measurements():
        if m.quantity == "top1":
            {"search": searched, "confirm": shipped}.get(m.purpose, {})[m.key] = m.value
    return searched, shipped


def test_what_improves_is_shipped(device, sliced_data, tmp_path):
    run, watcher = search(tmp_path / "run", sliced_data)
    searched, refined = scores(run)
    better = {key for key, value in refined.items() if value > searched[key]}
    assert better
    assert f"{len(better)} of {len(refined)} contenders are better" in str(watcher.notes)
    for row in run.front.to_dict("records"):
        key = row["key"]
        assert row["top1"] == (refined[key] if key in better else searched[key])
        card = read_card(run.folder / "subnets" / key)
        (own,) = card["measurements"].values()
        (found,) = (m for m in own if m["quantity"] == "top1" and m["purpose"] != "report")
        assert found["purpose"] == ("confirm" if key in better else "search")
        assert found["value"] == row["top1"]
    assert set(run.verify().values()) == {None}
    least = run.front["top1"].min()
    assert set(run.select(f"top1 >= {least} @ 1%")) <= set(run.front["key"])


def test_what_does_not_improve_keeps_its_weights(
    device,
    sliced_data,
    tmp_path,
    monkeypatch,
):
    def worse(self, arch, batches):
        model = self.onnx_model(arch)
        (bias,) = (each for each in model.graph.initializer if each.name == "head.bias")
        bias.CopyFrom(numpy_helper.from_array(np.array([99, 0, 0, 0], np.float32), bias.name))
        return model

    monkeypatch.setattr(SlicedSupernet, "refined", worse)
    run, watcher = search(tmp_path / "run", sliced_data)
    searched, refined = scores(run)
    assert "0 of" in str(watcher.notes)
    assert all(refined[key] <= searched[key] for key in refined)
    assert all(row["top1"] == searched[row["key"]] for row in run.front.to_dict("records"))
    monkeypatch.delattr(SlicedSupernet, "refined")
    plain, _ = search(tmp_path / "plain", sliced_data)
    for key in run.front["key"]:
        one, other = (each.folder / "subnets" / key / "model.onnx" for each in (run, plain))
        assert one.read_bytes() == other.read_bytes()


def test_a_refinement_that_fails_is_noted(
    device,
    sliced_data,
    tmp_path,
    monkeypatch,
):
    def failing(self, arch, batches):
        raise ArithmeticError("no solution")

    monkeypatch.setattr(SlicedSupernet, "refined", failing)
    run, watcher = search(tmp_path / "run", sliced_data)
    assert "keeps its weights: refined ones fail: ArithmeticError: no solution" in str(
        watcher.notes
    )
    assert set(run.verify().values()) == {None}


def test_a_run_that_is_stopped_while_it_exports_ends_the_same(
    device,
    sliced_data,
    tmp_path,
    monkeypatch,
):
    whole, _ = search(tmp_path / "whole", sliced_data)
    refined = []
    original = SlicedSupernet.refined
    with monkeypatch.context() as patch:
        patch.setattr("hwsearch.run.finish.verify_export", parts_interrupt)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "stopped", sliced_data)
    monkeypatch.setattr(
        SlicedSupernet,
        "refined",
        lambda self, arch, batches: refined.append(arch.key) or original(self, arch, batches),
    )
    resumed = hwsearch.resume(tmp_path / "stopped")
    assert resumed.front.equals(whole.front)
    for key in whole.front["key"]:
        one, other = (each.folder / "subnets" / key / "model.onnx" for each in (whole, resumed))
        assert one.read_bytes() == other.read_bytes()


def parts_interrupt(*args):
    raise KeyboardInterrupt


def test_networks_that_cannot_refine_are_left_alone(device, tmp_path):
    watcher = Watcher()
    hwsearch.search(
        parts.NET, device="scripted", data=parts.TASK, budget=6, out=tmp_path / "run",
        progress=watcher,
    )  # fmt: skip
    assert "refine" not in [name for name, *_ in watcher.phases]
