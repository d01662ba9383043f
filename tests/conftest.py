import gc
import os
import sys
from pathlib import Path

import numpy as np
import pytest

PLUGIN = str(Path(__file__).parent / "plugin")
# Before any test is collected: some have one case for each registered family.
sys.path.insert(0, PLUGIN)
# Before torch is loaded, here or in a process of a test: tests run two at a time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Processes of tests would compile two hundred modules each: a second of two.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
IMAGES = 100  # that readers of pages have of each split: the bundled ones are 2,500


def pytest_collection_finish():
    """Leave modules and tests out of later collections of garbage, each of which takes 0.3 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _plugin_in_processes():
    """Processes that tests start find the stranger's package too."""
    path = os.pathsep.join(filter(None, [PLUGIN, os.environ.get("PYTHONPATH")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread():
    """Matrices of tests are small: threads cost more than they bring, several times with xdist."""
    from hwsearch.threads import one_blas_thread

    with one_blas_thread():
        yield


@pytest.fixture(scope="session", autouse=True)
def _cache_of_tests(tmp_path_factory):
    """Baselines of tests stay out of the user's cache, and imports out of the user's data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HWSEARCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _short_baseline():
    """What anchors take is measured for seconds, once for each device and cache."""
    from hwsearch.devices import benchmark

    short = benchmark.MeasureSettings(seconds_per_model=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "_BASELINE", short)
        yield


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A working directory and a home of its own, as somebody has who begins a page; few images."""
    import torch

    from hwsearch.supernets.weight_sources import bundled_file

    with np.load(bundled_file("cifar10-resnet", "samples.npz")) as samples:
        few = {
            name: array[:IMAGES] if len(array) > IMAGES else array
            for name, array in samples.items()
        }
    np.savez(tmp_path / "samples.npz", **few)
    monkeypatch.setattr(
        "hwsearch.accuracy.sources.bundled_file", lambda *_: tmp_path / "samples.npz"
    )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
