"""Runs on image files, with architectures of several resolutions."""

from pathlib import Path

import numpy as np
import pytest
import torch

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.accuracy.sources import load_task
from hwsearch.accuracy.sync_batch_norm import channel_sums
from hwsearch.errors import DataError, EvaluationError, InputError
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.trial_store import Store
from tests.accuracy.folders import class_folders, save_noise, spec_for
from tests.run.image_parts import NET

pytestmark = pytest.mark.usefixtures("quick_infer")


@pytest.fixture
def folder(tmp_path):
    return class_folders(tmp_path / "images")


def search(folder, out, watcher=None, **settings):
    given = {"net": NET, "device": "scripted", "data": f"imagefolder:{folder}", "budget": 6}
    return hwsearch.search(**{**given, **settings}, out=out, progress=watcher)


@pytest.fixture
def evaluator(folder, device):
    net = hwsearch.load_supernet(NET)
    spec = net.input_spec(net.space.smallest()[0])
    task = load_task(f"imagefolder:{folder}", spec, "")
    return Evaluator(net, device, task, Store())


def test_every_resolution_is_evaluated_on_its_own_crops(evaluator):
    for arch in evaluator.net.space.architectures(
        [{"resolution": r, "width": 4} for r in (8, 16)]
    ):
        spec = evaluator.net.input_spec(arch)
        ((fed, _),) = evaluator.task.calibration.batches(200, spec)
        assert fed["image"].shape[2:] == (arch["resolution"],) * 2
        subnet = evaluator.models.exported(arch).subnet
        with torch.no_grad():
            sums = channel_sums(subnet[0](torch.from_numpy(fed["image"])))
        np.testing.assert_allclose(subnet[1].running_mean, sums.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(subnet[1].running_var, sums.var, rtol=1e-5, atol=1e-6)


def test_calibration_batches_are_of_the_tasks_size(evaluator, monkeypatch):
    sizes, batches = [], evaluator.task.calibration.batches

    def watched(size, spec=None):
        sizes.append(size)
        return batches(size, spec)

    monkeypatch.setattr(evaluator.task.calibration, "batches", watched)
    evaluator.models.exported(evaluator.net.space.smallest()[0])
    assert sizes == [200]


def test_a_score_says_how_large_the_calibration_batches_were(evaluator):
    calibration, search = evaluator.task.calibration.digest, evaluator.task.search
    assert evaluator.score_context(search) == (
        f"weights={'0' * 16} calibration={calibration}/200 samples=10@{search.digest} onnx fp32"
    )


def test_seconds_are_estimated_at_the_resolution_of_the_one_tried(evaluator):
    assert evaluator.seconds_each(["top1"]) > 0


class TestRun:
    def test_ends_in_verified_subnets_of_several_resolutions(self, folder, device, tmp_path):
        watcher = parts.Watcher()
        run = search(folder, tmp_path / "run", watcher)
        assert [name for name, _, _ in watcher.phases] == ["read", "search", "confirm", "export"]
        assert watcher.phases[0] == ("read", 30, 0)
        assert set(run.trials["resolution"]) == {8, 12, 16}
        assert set(run.trials["state"]) == {"done"}
        assert run.verify() == dict.fromkeys(run.front["key"])

    def test_changed_images_are_noticed_on_resume(self, folder, device, tmp_path):
        run = search(folder, tmp_path / "run")
        assert hwsearch.resume(run.folder).finished
        for path in (folder / "ant").iterdir():
            save_noise(path, 999)
        with pytest.raises(InputError, match=r"cannot go on here.*data.search was 10@\w+, is 10@"):
            hwsearch.resume(run.folder)
        assert Run(run.folder).finished

    def test_images_that_cannot_be_decoded_leave_nothing_behind(self, folder, device, tmp_path):
        (folder / "ant" / "ant_1.JPEG").write_bytes(b"no image")
        with pytest.raises(DataError, match=r"1 of 30 images in .*: ant/ant_1.JPEG"):
            search(folder, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("split", ["calibration", "search"])
    def test_images_that_go_while_it_runs_end_it_and_fail_no_trial(
        self, split, folder, device, tmp_path, monkeypatch
    ):
        """Nothing fits into memory, and one image vanishes with the second round."""
        monkeypatch.setattr("hwsearch.accuracy.images.SHARE_OF_MEMORY", 0.0)
        drawn = getattr(load_task(f"imagefolder:{folder}", spec_for(8), ""), split)
        image = Path(drawn.paths[-1])
        content = image.read_bytes()
        values, rounds = Evaluator.search_values, []

        def spoiling(self, archs, quantities, **options):
            rounds.append(archs)
            if len(rounds) == 2:
                image.unlink()
            return values(self, archs, quantities, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Evaluator, "search_values", spoiling)
            with pytest.raises(DataError, match=image.name):
                search(folder, tmp_path / "run")
        assert "failed" not in set(Run(tmp_path / "run").trials["state"])
        image.write_bytes(content)
        resumed = hwsearch.resume(tmp_path / "run")
        assert resumed.finished
        assert set(resumed.trials["state"]) == {"done"}

    def test_a_renamed_class_folder_leaves_nothing_behind(self, folder, device, tmp_path):
        (folder / "bee").rename(folder / "beee")
        with pytest.raises(InputError, match=r"'beee' \(did you mean 'bee'\?\)"):
            search(folder, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_warnings_of_the_data_are_told_and_kept(self, folder, device, tmp_path):
        for path in (folder / "cat").iterdir():
            path.unlink()
        (folder / "cat").rmdir()
        (folder / "ant").rename(folder / "one")
        (folder / "bee").rename(folder / "two")
        watcher = parts.Watcher()
        run = search(folder, tmp_path / "run", watcher, budget=2)
        (warning,) = [note for note in watcher.notes if "mean nothing" in note]
        assert "has 2 class folders, but the supernet knows 3 classes" in warning
        assert warning in run.recorded["warnings"]


class TestArrays:
    DATA = "tests.run.image_parts:arrays"

    def test_serve_no_space_of_several_resolutions(self, device, tmp_path):
        with pytest.raises(InputError) as caught:
            search(None, tmp_path / "run", data=self.DATA)
        text = str(caught.value)
        assert "arrays of one shape, but the inputs of 'tests.run.image_parts:network'" in text
        assert "3x8x8 to 3x16x16" in text
        assert "imagefolder:PATH" in text
        assert not (tmp_path / "run").exists()

    def test_serve_one_resolution(self, device, tmp_path):
        run = search(None, tmp_path / "run", data=self.DATA, freeze=["resolution=12"], budget=2)
        assert set(run.trials["resolution"]) == {12}

    def test_of_another_shape_fail_no_trial(self, device):
        net = hwsearch.load_supernet(NET)
        small, large = net.space.smallest()[0], net.space.largest()[0]
        task = load_task(self.DATA, net.input_spec(small), "")
        evaluator = Evaluator(net, device, task, Store())
        with pytest.raises(DataError, match=r"shape \(3, 8, 8\), but .* of shape \(3, 16, 16\)"):
            evaluator.models.exported(large)
        assert not isinstance(EvaluationError(), DataError)
