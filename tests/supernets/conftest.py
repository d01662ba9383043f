import pytest

from hwsearch.supernets.zoo import load_family, load_supernet


@pytest.fixture(scope="session")
def state():
    return load_family("test-images").load("random:5").state


@pytest.fixture(scope="session")
def digest():
    return load_supernet("test-images", "random:5").digest
