import os
import sys
from pathlib import Path

import pytest

PLUGIN = str(Path(__file__).parent / "plugin")
# Before any test is collected: some have one case for each registered family.
sys.path.insert(0, PLUGIN)
# Before torch is loaded, here or in a process of a test: tests run two at a time.
os.environ.setdefault("OMP_NUM_THREADS", "1")


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
