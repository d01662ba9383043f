"""Data that a function makes."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hwsearch import load_task
from hwsearch.accuracy.metric import TOP1
from hwsearch.accuracy.task import Samples, Task
from hwsearch.errors import InputError
from hwsearch.supernets.interface import InputSpec, TensorSpec

TWO = InputSpec(inputs=(TensorSpec(name="left", shape=(2,)), TensorSpec(name="right", shape=(3,))))


def load(spec, input_spec=TWO):
    return load_task(spec, input_spec, "some-supernet")


def test_function():
    task = load_task(
        "hwsearch_test_plugin:token_task",
        InputSpec(inputs=(TensorSpec(name="tokens", shape=(12,), dtype="int64", high=20),)),
        "test-tokens",
    )
    assert isinstance(task, Task)
    assert len(task.search) == 250


class TestFunction:
    """Data that a function makes are held to the same."""

    @pytest.fixture
    def check(self, monkeypatch):
        def run(metric=TOP1, spec=TWO, preprocess=None, **changes):
            splits = {}
            for split in ("calibration", "search", "report"):
                given = {
                    "left": np.ones((4, 2), np.float32),
                    "right": np.ones((4, 3), np.float32),
                    "target": np.zeros(4, np.int64),
                }
                given |= changes if split == "report" else {}
                given = {name: array for name, array in given.items() if array is not None}
                splits[split] = Samples(given, given.pop("target"), preprocess or {})
            module = SimpleNamespace(make=lambda _: Task(spec="my:make", metric=metric, **splits))
            monkeypatch.setitem(sys.modules, "my_data", module)
            return load("my_data:make", spec)

        return run

    def test_that_fits(self, check):
        assert len(check().report) == 4
        kind = replace(TOP1, name="error", per_sample=lambda outputs, targets: targets)
        assert len(check(kind, target=np.linspace(0, 1, 4)).report) == 4

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"left": np.float32([[0, 0], [0, np.nan]] * 2)}, r"left of sample 1 \(and 1 more\)"),
            ({"left": np.ones((5, 2), np.float32)}, "arrays of different lengths"),
            ({"left": np.ones((4, 3), np.float32)}, r"left is of shape \(3,\), but"),
            ({"left": np.ones((4, 2))}, "report: left is fed as float64, not float32"),
            ({"left": None}, "report: its inputs are right, and the network's left, right"),
            (
                {"target": np.array([0, 1, -1, 0])},
                "report: target -1, but classes count from 0: sa",
            ),
            ({"target": np.array([0, 1, np.nan, 0])}, "target is float64, not whole numbers"),
            ({"target": np.zeros((4, 2), np.int64)}, r"target has shape \(4, 2\)"),
        ],
    )
    def test_that_does_not_fit(self, check, changes, says):
        with pytest.raises(InputError, match=says):
            check(**changes)

    def test_targets_of_other_metrics(self, check):
        kind = replace(TOP1, name="error", per_sample=lambda outputs, targets: targets)
        with pytest.raises(InputError, match="report: target of sample 2 holds NaN"):
            check(kind, target=np.array([0, 1, np.nan, 0]))

    def test_a_preprocess_that_fails(self, check):
        def fail(array):
            raise KeyError("mean")

        with pytest.raises(InputError, match="its preprocess raised KeyError: 'mean'"):
            check(preprocess={"left": fail})


def test_function_that_returns_something_else(tmp_path, monkeypatch):
    (tmp_path / "my_own_data.py").write_text("def make(input_spec):\n    return 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(InputError, match=r"data 'my_own_data:make' returned int, not hwsearch\.T"):
        load("my_own_data:make")
    with pytest.raises(InputError, match="data 'my_own_data:mak': module 'my_own_data' has no"):
        load("my_own_data:mak")
    sys.modules.pop("my_own_data")
