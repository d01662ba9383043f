import hashlib
import json

import numpy as np
import onnxruntime
import pytest

from hwsearch.devices.anchor import Baseline, anchor_bytes, cache_folder
from hwsearch.errors import InputError

FINGERPRINT = {"cpu": "x", "threads": 1}
BURSTS = np.array([1e-3, 1.1e-3, 0.9e-3 + 1e-19])


@pytest.fixture
def baseline(tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))
    return Baseline("ort-cpu-threads1", FINGERPRINT)


def test_the_anchor_never_changes():
    """Another anchor makes every ratio and table measured so far incomparable."""
    digest = hashlib.sha256(anchor_bytes()).hexdigest()
    assert digest == "3ee88fe84657013c00d072083fa9fe4f5a0a3983f81e66c60c3dff628f7bea0e"


def test_the_anchor_runs_and_keeps_its_signal():
    session = onnxruntime.InferenceSession(anchor_bytes(), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((1, 64, 24, 24)).astype(np.float32)
    (outputs,) = session.run(None, {"input": image})
    assert 0.1 < outputs.std() < 10


def test_a_baseline_is_kept_exactly(baseline, tmp_path):
    assert baseline.load() is None
    baseline.save(BURSTS)
    assert baseline.load().tolist() == BURSTS.tolist()
    assert [path.name for path in (tmp_path / "baselines").iterdir()] == [baseline.path.name]
    assert json.loads(baseline.path.read_text())["fingerprint"] == FINGERPRINT


def test_another_fingerprint_has_another_baseline(baseline):
    baseline.save(BURSTS)
    assert Baseline("ort-cpu-threads1", {**FINGERPRINT, "cpu": "y"}).load() is None


@pytest.mark.parametrize(
    "change",
    [
        {"anchor": "another"},
        {"schema": 99},
        {"bursts_s": [1e-3, -1e-3]},
        {"bursts_s": [1e-3, float("nan")]},
        {"bursts_s": []},
        {"bursts_s": "many"},
    ],
)
def test_a_baseline_that_does_not_hold_is_taken_again(baseline, change):
    baseline.save(BURSTS)
    baseline.path.write_text(json.dumps({**json.loads(baseline.path.read_text()), **change}))
    assert baseline.load() is None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\x00"])
def test_half_a_file_is_taken_again(baseline, text):
    baseline.save(BURSTS)
    baseline.path.write_text(text)
    assert baseline.load() is None


def test_a_cache_that_cannot_be_written_is_named(baseline, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("HWSEARCH_CACHE", str(blocked))
    with pytest.raises(InputError, match="HWSEARCH_CACHE"):
        Baseline("slug", FINGERPRINT).save(BURSTS)


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch):
    monkeypatch.delenv("HWSEARCH_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "hwsearch")
