"""Running parts of several models on one batch, inside a worker process."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.runtime import Feeds, LoadedModel

Outputs = list[NDArray[Any]]


class Walk:
    """One batch on its way through parts, each behind the one that its input comes from.

    A batch goes through them in pieces, each by one thread, so that what a layer gives to the
    next stays in the processor's cache.

    Args:
        parts: Loaded, each after the one before it.
        before: For each part, which one's output is its input; None for the batch itself.
        ends: For each part, whether its outputs are asked for.
    """

    def __init__(
        self,
        parts: Sequence[LoadedModel],
        before: Sequence[int | None],
        ends: Sequence[bool],
    ) -> None:
        self._parts, self._before, self._ends = parts, before, ends
        self._followers = [before.count(number) for number in range(len(parts))]

    def run(
        self, feeds: Feeds, size: int, threads: int
    ) -> tuple[list[Outputs], list[float], dict[int, str]]:
        """Run all parts on a batch.

        Args:
            feeds: The batch.
            size: Samples in a piece.
            threads: Pieces that are on their way at a time.

        Returns:
            Outputs of each part that is an end, none where it failed; seconds that each part took;
            and why parts failed, by number. What is behind such a part has failed too.
        """
        n = len(next(iter(feeds.values())))
        pieces = [
            {name: array[at : at + size] for name, array in feeds.items()}
            for at in range(0, n, size)
        ]
        with ThreadPoolExecutor(threads) as pool:
            done = list(pool.map(self._piece, pieces))
        errors: dict[int, str] = {}
        for _, _, failed in reversed(done):
            errors |= failed
        seconds = np.sum([took for _, took, _ in done], axis=0).tolist()
        outputs = [
            []
            if number in errors
            else [
                np.concatenate(each)
                for each in zip(*(out[number] for out, *_ in done), strict=True)
            ]
            for number, is_end in enumerate(self._ends)
            if is_end
        ]
        return outputs, seconds, errors

    def _piece(self, feeds: Feeds) -> tuple[dict[int, Outputs], list[float], dict[int, str]]:
        """Run all parts on one piece; what no part needs any more is let go of."""
        values: dict[int, Outputs] = {}
        found: dict[int, Outputs] = {}
        errors: dict[int, str] = {}
        seconds, waiting = [0.0] * len(self._parts), list(self._followers)
        for number, (part, before) in enumerate(zip(self._parts, self._before, strict=True)):
            if before in errors:
                errors[number] = errors[before]
                continue
            begin = time.perf_counter()
            try:
                output = part.run(feeds if before is None else _given(part, values[before]))
            except Exception as error:  # noqa: BLE001 - whatever the runtime raises is the answer
                errors[number] = str(error)
            else:
                if self._followers[number]:
                    values[number] = output
                if self._ends[number]:
                    found[number] = output
            seconds[number] = time.perf_counter() - begin
            if before is not None:
                waiting[before] -= 1
                if not waiting[before]:
                    values.pop(before)
        return found, seconds, errors


def _given(part: LoadedModel, outputs: Outputs) -> Mapping[str, NDArray[Any]]:
    return {part.inputs[0].name: outputs[0]}
