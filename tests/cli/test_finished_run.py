"""Commands on a finished run, and searches by their options."""

import json
from pathlib import Path

import pytest
from hwsearch_test_plugin.scripted_device import FakeDevice

import hwsearch
from tests.cli.commands import SMALL, call, files

pytestmark = pytest.mark.timeout(300)


class TestFinishedRun:
    def test_search_prints_the_front_as_json_and_progress_beside_it(self, finished):
        folder, printed, progress = finished
        rows = json.loads(printed)
        assert rows == json.loads(call("front", folder, "--json").stdout)
        assert {"key", "top1", "top1_report", "latency", "latency_low", "macs"} <= set(rows[0])
        assert all(phase in progress for phase in ("search", "confirm", "export"))

    def test_front_is_a_table_with_where_the_files_are(self, finished):
        result = call("front", finished[0])
        assert result.exit_code == 0
        printed = result.stdout.replace("\n", "")
        for row in json.loads(finished[1]):
            assert row["key"] in printed
        for name in (
            "report.html",
            "front.png",
            "front.csv",
            "search.json",
            "model.onnx",
        ):
            assert name in printed
        assert " of 8 evaluations are on the front" in printed
        assert "on front" in printed

    def test_resume_of_a_finished_run_prints_the_same(self, copied, finished):
        before = files(copied)
        result = call("resume", copied, "--json")
        assert (result.exit_code, json.loads(result.stdout)) == (0, json.loads(finished[1]))
        assert files(copied) == before

    def test_verify(self, finished):
        keys = [row["key"] for row in json.loads(finished[1])]
        result = call("verify", finished[0], "--json")
        assert (result.exit_code, json.loads(result.stdout)) == (0, dict.fromkeys(keys))

    def test_verify_names_what_is_damaged(self, copied):
        first, *_ = sorted((copied / "subnets").iterdir())
        (first / "infer.py").write_text("print('something else')\n")
        result = call("verify", copied)
        assert result.exit_code == 1
        assert f"{first.name}  infer.py is not the file that the card describes" in result.stdout
        assert result.stderr.startswith("error: 1 of ")
        as_json = call("verify", copied, "--json")
        assert as_json.exit_code == 1
        assert json.loads(as_json.stdout)[first.name].startswith("infer.py is not")

    def test_export(self, finished, tmp_path):
        result = call("export", finished[0], "--select", "knee", "--to", tmp_path, "--json")
        (folder,) = json.loads(result.stdout)
        assert (result.exit_code, Path(folder).parent) == (0, tmp_path)
        assert (tmp_path / folder / "model.onnx").is_file()

    def test_export_by_how_sure_it_is(self, finished):
        best = json.loads(finished[1])[-1]
        select = f"latency <= {best['latency'] * 1.1} @ 95%"
        (folder,) = call("export", finished[0], "--select", select).stdout.split()
        assert Path(folder).name == best["key"]

    def test_measure(self, finished):
        models = sorted(finished[0].glob("subnets/*/model.onnx"))[:2]
        result = call("measure", *models, "--device", "scripted", "--json")
        rows = json.loads(result.stdout)
        assert [row["model"] for row in rows] == [str(model) for model in models]
        assert all(row["low"] <= row["latency_ms"] <= row["high"] for row in rows)
        table = call("measure", *models, "--device", "scripted")
        assert table.exit_code == 0
        assert f"{rows[0]['latency_ms']:.4g}" in table.stdout

    def test_measure_at_several_batch_sizes(self, finished, monkeypatch):
        monkeypatch.setattr("hwsearch.devices.load_device", lambda spec: FakeDevice())
        model = next(finished[0].glob("subnets/*/model.onnx"))
        table = call("measure", model, "--device", "scripted", "--batch-sizes", "4, 1")
        (row,) = json.loads(
            call("measure", model, "--device", "scripted", "--batch-sizes", "4,1", "--json").stdout
        )
        assert (row["best_batch"], row["throughput_at_4"]) == (4, row["throughput"])
        assert row["throughput_at_1"] < row["throughput"]
        assert f"{row['throughput']:.0f}" in table.stdout

    def test_rules_hold(self, undrawn, tmp_path):
        given = ["--freeze", "stage1.*=max", "--freeze", "stage2.width=8"]
        given += ["--only", "stage2.depth in 1,2", "--only", "*expansion in 2,3"]
        result = call("search", *SMALL, *given, "--out", tmp_path / "run", "--json")
        assert result.exit_code == 0, result.stderr
        run = hwsearch.Run(tmp_path / "run")
        assert run.config.freeze == ("stage1.*=max", "stage2.width=8")
        assert run.config.only == ("stage2.depth in 1,2", "*expansion in 2,3")
        trials = run.trials
        assert len(trials) == 6  # 2 with one block, 4 with two
        assert set(trials["stage1.width"]) == {8}
        assert set(trials["stage2.block1.expansion"]) == {2, 3}

    def test_nothing_feasible_is_exit_code_3(self, undrawn, tmp_path):
        result = call(
            "search", *SMALL, "--constraint", "latency <= 0.001", "--out", tmp_path / "run"
        )
        assert result.exit_code == 3
        assert "The closest (" in result.stderr
        assert result.stdout == ""
        assert len(hwsearch.Run(tmp_path / "run").trials) == 8
        assert call("resume", tmp_path / "run").exit_code == 3


class TestLists:
    def test_supernets(self):
        rows = json.loads(call("supernets", "--json").stdout)
        assert {"cifar10-resnet", "test-images", "test-tokens"} <= {row["name"] for row in rows}
        assert "cifar10-resnet" in call("supernets").stdout

    def test_devices(self):
        rows = {row["name"]: row for row in json.loads(call("devices", "--json").stdout)}
        assert rows["ort-cpu"]["options"]["threads"]["default"] == 1
        assert rows["scripted"]["missing"] is None
        assert not rows["ort-cpu"]["untested"]
        assert rows["tensorrt"]["untested"]
        table = call("devices").stdout
        assert "threads=1" in table
        assert "untested on" in table
        if rows["tensorrt"]["missing"]:
            assert rows["tensorrt"]["missing"] in table
