"""Execution of models with common prefixes as a tree of segments, inside a worker process."""

import time
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.runtime import Feeds, LoadedModel


class TreeOutputs(NamedTuple):
    """Results of a tree on one batch, by the numbers of its segments.

    Attributes:
        outputs: Outputs of the segments that end a model, without those that failed.
        seconds: Computing time.
        errors: Reasons of the failed segments; the descendants of a failed segment fail too.
    """

    outputs: dict[int, list[NDArray[Any]]]
    seconds: dict[int, float]
    errors: dict[int, str]


class SegmentTree:
    """Loaded segments of models by number, each of which takes the output of its parent.

    A batch is split into chunks, each of which one thread takes through the whole tree, so that
    activations stay in the processor's cache. Segments come after their parents (None: the
    batch); the outputs of those in ``ends`` are returned.
    """

    def __init__(
        self,
        segments: Mapping[int, LoadedModel],
        parents: Mapping[int, int | None],
        ends: Collection[int],
    ) -> None:
        self._segments, self._parents, self._ends = segments, parents, ends

    def run(self, feeds: Feeds, size: int, threads: int) -> TreeOutputs:
        """Run all segments on a batch, in chunks of ``size`` samples on ``threads`` threads."""
        n = len(next(iter(feeds.values())))
        chunks = [
            {name: array[at : at + size] for name, array in feeds.items()}
            for at in range(0, n, size)
        ]
        with ThreadPoolExecutor(threads) as pool:
            done = list(pool.map(self._run_chunk, chunks))
        errors: dict[int, str] = {}
        for chunk in reversed(done):
            errors |= chunk.errors
        outputs = {
            number: [
                np.concatenate(parts)
                for parts in zip(*(chunk.outputs[number] for chunk in done), strict=True)
            ]
            for number in self._ends
            if number not in errors
        }
        seconds = {number: sum(c.seconds[number] for c in done) for number in self._segments}
        return TreeOutputs(outputs, seconds, errors)

    def _run_chunk(self, feeds: Feeds) -> TreeOutputs:
        """Run all segments on one chunk; activations are freed after their last use."""
        activations: dict[int | None, NDArray[Any]] = {}
        done = TreeOutputs({}, dict.fromkeys(self._segments, 0.0), {})
        n_waiting = Counter(self._parents.values())
        for number, segment in self._segments.items():
            parent = self._parents[number]
            if parent in done.errors:
                done.errors[number] = done.errors[parent]
                continue
            given = feeds if parent is None else {segment.inputs[0].name: activations[parent]}
            start = time.perf_counter()
            try:
                outputs = segment.run(given)
            except Exception as error:  # noqa: BLE001 - every error of the runtime is the reply
                done.errors[number] = str(error)
            else:
                if number in n_waiting:
                    activations[number] = outputs[0]
                if number in self._ends:
                    done.outputs[number] = outputs
            done.seconds[number] = time.perf_counter() - start
            n_waiting[parent] -= 1
            if not n_waiting[parent]:
                activations.pop(parent, None)
        return done
