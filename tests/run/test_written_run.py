"""Searches of networks that write their ONNX models themselves, without PyTorch."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import hwsearch
import tests.run.search_parts as parts
from hwsearch.errors import InputError
from hwsearch.models.artifact import read_card
from tests.run.search_parts import Watcher

pytestmark = pytest.mark.usefixtures("quick_infer")
NET = "sliced_network:network"


def search(out, data, device="scripted", **settings):
    watcher = Watcher()
    given = {"device": device, "data": data, "budget": 10, "progress": watcher, **settings}
    return hwsearch.search(NET, out=out, **given), watcher


def test_a_search_ends_with_verified_files(device, sliced_data, tmp_path):
    run, _ = search(tmp_path / "run", sliced_data)
    assert len(run.front)
    assert set(run.verify().values()) == {None}
    for key in run.front["key"]:
        card = read_card(run.folder / "subnets" / key)
        assert card["verification"]["disagreement"] <= 1e-5
        assert card["supernet"]["name"] == NET
    with pytest.raises(InputError, match="are ONNX models and no PyTorch modules"):
        run.subnet(run.front["key"][0])


def test_a_stopped_search_proposes_what_the_unbroken_one_does(
    device, sliced_data, tmp_path, monkeypatch
):
    whole, _ = search(tmp_path / "whole", sliced_data)
    with monkeypatch.context() as patch:
        parts.interrupt_measuring(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "stopped", sliced_data)
    resumed = hwsearch.resume(tmp_path / "stopped")
    assert resumed.trials["key"].tolist() == whole.trials["key"].tolist()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions(sliced_data, tmp_path, monkeypatch, precision):
    parts.use(monkeypatch, parts.InProcess(precision=precision))
    monkeypatch.setattr("hwsearch.devices.load_device", lambda spec: parts.InProcess())
    run, _ = search(tmp_path / "run", sliced_data, budget=6)
    card = read_card(run.folder / "subnets" / run.front["key"][0])
    assert card["precision"] == precision
    assert card["verification"]["difference_to_fp32"] > 0


def test_a_warm_start_reuses_accuracies(device, sliced_data, tmp_path):
    first, _ = search(tmp_path / "first", sliced_data)
    run, watcher = search(tmp_path / "second", sliced_data, warm_start=first.folder)
    assert "reused" in str(watcher.notes)
    assert len(run.front)


def test_outputs_that_do_not_suit_the_metric_are_refused_early(device, sliced_data, tmp_path):
    arrays = dict(np.load(sliced_data.removeprefix("npz:")))
    arrays["search.target"] += 1
    np.savez(tmp_path / "more.npz", **arrays)
    with pytest.raises(InputError, match="scores 4 classes, but the data has class 4"):
        search(tmp_path / "run", f"npz:{tmp_path / 'more.npz'}")
    assert not (tmp_path / "run").exists()


def test_profiling_says_that_there_are_no_blocks(device, tmp_path):
    from hwsearch.run.profile import make_table

    net = hwsearch.load_supernet(NET)
    with pytest.raises(InputError, match="chain of blocks"):
        make_table(net, device, tmp_path / "table.json")


def test_a_kit_holds_whole_subnets(tmp_path):
    made = hwsearch.make_kit(NET, tmp_path / "kit.pyz", subnets=8)
    assert len(made.models) == 8
    assert not made.specs


@pytest.mark.timeout(120)
def test_searching_loads_no_pytorch(sliced_data, tmp_path):
    script = f"""
        import sys
        import hwsearch, hwsearch.devices
        import hwsearch.run.finish, hwsearch.verify.subnet
        hwsearch.devices.load_device("ort-cpu:threads=1")
        for module in (hwsearch.run.finish, hwsearch.verify.subnet):
            module.run_infer = lambda folder: "scripted\\n"  # a process of its own
        run = hwsearch.search(
            {NET!r}, data={sliced_data!r}, device="scripted", budget=4,
            out={str(tmp_path / "run")!r},
        )
        run.verify()
        run.report()
        print("torch" in sys.modules, "torchvision" in sys.modules, len(run.front))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    torch, torchvision, members = done.stdout.split()
    assert (torch, torchvision) == ("False", "False")
    assert int(members) > 0
