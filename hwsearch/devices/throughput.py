"""Throughput: samples a second at the best of several batch sizes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from hwsearch.devices.base import Device
from hwsearch.errors import InputError

BATCH_SIZES = (1, 4, 16)


@runtime_checkable
class Batching(Protocol):
    """A device that makes devices of other batch sizes by itself."""

    def with_batch(self, batch: int) -> Device:
        """Return the same device with another batch size of timed runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Throughput of one model, in samples a second.

    Attributes:
        low, high: The 95% interval at the best batch size.
        batch: The best batch size.
        at: Batch size -> throughput.
    """

    value: float
    low: float
    high: float
    batch: int
    at: Mapping[int, float]


def best_throughput(latencies_ms: Mapping[int, tuple[float, float, float]]) -> Throughput:
    """Return the throughput of a model from batch size -> latency of a batch, its low and high."""
    at = {batch: 1e3 * batch / latency for batch, (latency, _, _) in latencies_ms.items()}
    best = max(at, key=at.__getitem__)
    _, low_ms, high_ms = latencies_ms[best]
    return Throughput(
        value=at[best], low=1e3 * best / high_ms, high=1e3 * best / low_ms, batch=best, at=at
    )


def check_batch_sizes(given: Any, name: str = "batch_sizes") -> tuple[int, ...]:
    """Return batch sizes in ascending order.

    Raises:
        InputError: They are no list of one or more different whole numbers from 1 up.
    """
    listed = isinstance(given, Iterable) and not isinstance(given, str)
    sizes: Sequence[Any] = tuple(given) if listed else ()
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in sizes)
    if not sizes or not whole or len(set(sizes)) < len(sizes):
        raise InputError(
            f"{name} is {given!r}; give a list of different whole numbers from 1 up, such as "
            "1, 4, 16"
        )
    return tuple(sorted(sizes))
