"""Execution of models with common prefixes as a tree of segments, inside a worker process."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.runtime import Feeds, LoadedModel

Outputs = list[NDArray[Any]]


class SegmentTree:
    """Loaded segments of models, each of which takes the output of its parent (None: the batch).

    A batch is split into chunks, each of which one thread takes through the whole tree, so that
    activations stay in the processor's cache. Segments come after their parents; ``ends`` states
    for each whether its outputs are returned.
    """

    def __init__(
        self,
        segments: Sequence[LoadedModel],
        parents: Sequence[int | None],
        ends: Sequence[bool],
    ) -> None:
        self._segments, self._parents, self._ends = segments, parents, ends
        self._n_children = [parents.count(index) for index in range(len(segments))]

    def run(
        self, feeds: Feeds, size: int, threads: int
    ) -> tuple[list[Outputs], list[float], dict[int, str]]:
        """Run all segments on a batch, in chunks of ``size`` samples on ``threads`` threads.

        Returns:
            Outputs of each segment that is an end, empty where it failed; seconds of each segment;
            errors by index. The descendants of a failed segment fail too.
        """
        n = len(next(iter(feeds.values())))
        chunks = [
            {name: array[at : at + size] for name, array in feeds.items()}
            for at in range(0, n, size)
        ]
        with ThreadPoolExecutor(threads) as pool:
            done = list(pool.map(self._run_chunk, chunks))
        errors: dict[int, str] = {}
        for _, _, failed in reversed(done):
            errors |= failed
        seconds = np.sum([took for _, took, _ in done], axis=0).tolist()
        outputs = [
            []
            if index in errors
            else [
                np.concatenate(each)
                for each in zip(*(out[index] for out, *_ in done), strict=True)
            ]
            for index, is_end in enumerate(self._ends)
            if is_end
        ]
        return outputs, seconds, errors

    def _run_chunk(self, feeds: Feeds) -> tuple[dict[int, Outputs], list[float], dict[int, str]]:
        """Run all segments on one chunk; activations are freed after their last use."""
        activations: dict[int, Outputs] = {}
        found: dict[int, Outputs] = {}
        errors: dict[int, str] = {}
        seconds, n_waiting = [0.0] * len(self._segments), list(self._n_children)
        for index, (segment, parent) in enumerate(zip(self._segments, self._parents, strict=True)):
            if parent in errors:
                errors[index] = errors[parent]
                continue
            start = time.perf_counter()
            try:
                given = (
                    feeds if parent is None else {segment.inputs[0].name: activations[parent][0]}
                )
                outputs = segment.run(given)
            except Exception as error:  # noqa: BLE001 - every error of the runtime is the reply
                errors[index] = str(error)
            else:
                if self._n_children[index]:
                    activations[index] = outputs
                if self._ends[index]:
                    found[index] = outputs
            seconds[index] = time.perf_counter() - start
            if parent is not None:
                n_waiting[parent] -= 1
                if not n_waiting[parent]:
                    activations.pop(parent)
        return found, seconds, errors
