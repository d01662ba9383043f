"""Artifacts of miniatures, as the tests of `hwsearch.models` make them."""

from tests.models.conftest import device, exported_of, written

__all__ = ["device", "exported_of", "written"]
