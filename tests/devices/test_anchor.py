import hashlib
import json

import numpy as np
import onnxruntime
import pytest

from hwsearch.devices.anchor import Baseline, anchors, cache_folder
from hwsearch.errors import InputError

FINGERPRINT = {"cpu": "x", "threads": 1}
TURNS = np.array([1e-3, 1.1e-3, 0.9e-3 + 1e-19])


@pytest.fixture
def baseline(tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))
    return Baseline("ort-cpu-threads1", FINGERPRINT)


def test_the_anchors_never_change():
    """Another anchor makes every ratio and table measured so far incomparable."""
    digests = [hashlib.sha256(data).hexdigest() for data in anchors()]
    assert digests == [
        "3ee88fe84657013c00d072083fa9fe4f5a0a3983f81e66c60c3dff628f7bea0e",
        "d02a820108547698d98f0a71f8c90564c9cb5ffe92b8cfd6df71327e73876173",
    ]


@pytest.mark.parametrize("data", anchors(), ids=["first", "memory"])
def test_the_anchors_run_and_keep_their_signal(data):
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (declared,) = session.get_inputs()
    image = np.random.default_rng(0).standard_normal(declared.shape).astype(np.float32)
    (outputs,) = session.run(None, {"input": image})
    assert 0.1 < outputs.std() < 10


def test_the_tensors_of_the_memory_anchor_exceed_a_second_level_cache():
    session = onnxruntime.InferenceSession(anchors()[1], providers=["CPUExecutionProvider"])
    assert 4 * np.prod(session.get_inputs()[0].shape) >= 4e6


def test_a_baseline_is_kept_exactly(baseline, tmp_path):
    assert baseline.load() is None
    baseline.save(TURNS)
    assert baseline.load().tolist() == TURNS.tolist()
    assert [path.name for path in (tmp_path / "baselines").iterdir()] == [baseline.path.name]
    assert json.loads(baseline.path.read_text())["fingerprint"] == FINGERPRINT


def test_another_fingerprint_has_another_baseline(baseline):
    baseline.save(TURNS)
    assert Baseline("ort-cpu-threads1", {**FINGERPRINT, "cpu": "y"}).load() is None


@pytest.mark.parametrize(
    "change",
    [
        {"anchor": "another"},
        {"schema": 99},
        {"turns_s": [1e-3, -1e-3]},
        {"turns_s": [1e-3, float("nan")]},
        {"turns_s": []},
        {"turns_s": "many"},
    ],
)
def test_a_baseline_that_does_not_hold_is_taken_again(baseline, change):
    baseline.save(TURNS)
    baseline.path.write_text(json.dumps({**json.loads(baseline.path.read_text()), **change}))
    assert baseline.load() is None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\x00"])
def test_half_a_file_is_taken_again(baseline, text):
    baseline.save(TURNS)
    baseline.path.write_text(text)
    assert baseline.load() is None


def test_a_cache_that_cannot_be_written_is_named(baseline, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("HWSEARCH_CACHE", str(blocked))
    with pytest.raises(InputError, match="HWSEARCH_CACHE"):
        Baseline("slug", FINGERPRINT).save(TURNS)


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch):
    monkeypatch.delenv("HWSEARCH_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "hwsearch")
