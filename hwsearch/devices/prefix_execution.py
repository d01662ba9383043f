"""Execution of models with common prefixes as a tree of segments, inside a worker process."""

import time
from collections import ChainMap, Counter
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


def run_tree(
    segments: Mapping[int, LoadedModel],
    parents: Mapping[int, int | None],
    ends: Collection[int],
    feeds: Feeds,
    *,
    size: int,
    threads: int,
) -> TreeOutputs:
    """Run loaded segments of models, each of which takes the output of its parent, on a batch.

    The batch is split into chunks of ``size`` samples. One of ``threads`` threads takes a chunk
    through the whole tree, so that activations stay in the processor's cache; they are freed after
    their last use. Segments come after their parents (None: the batch); the outputs of those in
    ``ends`` are returned.
    """

    def run_chunk(chunk: Feeds) -> TreeOutputs:
        activations: dict[int | None, NDArray[Any]] = {}
        done = TreeOutputs({}, dict.fromkeys(segments, 0.0), {})
        n_waiting = Counter(parents.values())
        for number, segment in segments.items():
            parent = parents[number]
            if parent in done.errors:
                done.errors[number] = done.errors[parent]
                continue
            given = chunk if parent is None else {segment.inputs[0].name: activations[parent]}
            start = time.perf_counter()
            try:
                outputs = segment.run(given)
            except Exception as error:  # noqa: BLE001 - every error of the runtime is the reply
                done.errors[number] = str(error)
            else:
                if number in n_waiting:
                    activations[number] = outputs[0]
                if number in ends:
                    done.outputs[number] = outputs
            done.seconds[number] = time.perf_counter() - start
            n_waiting[parent] -= 1
            if not n_waiting[parent]:
                activations.pop(parent, None)
        return done

    chunks = [
        {name: array[at : at + size] for name, array in feeds.items()}
        for at in range(0, len(next(iter(feeds.values()))), size)
    ]
    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(run_chunk, chunks))
    errors = dict(ChainMap(*(chunk.errors for chunk in done)))  # the first chunk's count
    outputs = {
        number: [
            np.concatenate(parts)
            for parts in zip(*(chunk.outputs[number] for chunk in done), strict=True)
        ]
        for number in ends
        if number not in errors
    }
    seconds = {number: sum(chunk.seconds[number] for chunk in done) for number in segments}
    return TreeOutputs(outputs, seconds, errors)
