import pytest

from hwsearch.devices import MeasureSettings


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Baselines of tests stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _short_baseline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "hwsearch.devices.benchmark._BASELINE", MeasureSettings(seconds_per_model=0.1)
        )
        yield
