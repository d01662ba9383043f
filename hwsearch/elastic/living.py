"""The elastic models in memory, so that an architecture alone says which one it is of."""

from typing import Any
from weakref import WeakSet

LIVING: WeakSet[Any] = WeakSet()  # of `hwsearch.elastic.network.ElasticNetwork`
