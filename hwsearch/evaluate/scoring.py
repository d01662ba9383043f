"""Outcomes of several subnets, on all samples of a split or on some of them."""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices import Device
from hwsearch.errors import EvaluationError
from hwsearch.evaluate.score import sample_outcomes
from hwsearch.evaluate.task import Metric, SplitSamples
from hwsearch.space import Architecture
from hwsearch.supernets.base import Supernet

SCORE_BATCH = 125


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """How one subnet did on some samples.

    Attributes:
        outcomes: (n,) unscaled outcome of each sample, in the order of the samples.
        cost_s: Seconds that this took.
    """

    outcomes: NDArray[Any]
    cost_s: float


class Scorer:
    """Runs subnets over samples, one after the other.

    Args:
        net: The supernet that they belong to.
        device: Runs their models.
        metric: Gives each sample's outcome.
    """

    def __init__(self, net: Supernet, device: Device, metric: Metric) -> None:
        self._net, self._device, self._metric = net, device, metric

    def outcomes(
        self,
        models: Mapping[Architecture, Path],
        samples: SplitSamples,
    ) -> dict[Architecture, Outcomes | EvaluationError]:
        """Score models on samples: a whole split, or a part of one.

        A sample's outcome does not depend on which others are scored with it, nor on which other
        models are.

        Args:
            models: The ONNX file of each architecture.
            samples: What they are scored on.

        Returns:
            For each architecture in order, its outcomes or why there are none: the runtime or the
            metric failed, or gave NaN.

        Raises:
            DataError: The samples cannot be read.
        """
        found: dict[Architecture, Outcomes | EvaluationError] = {}
        for arch, model in models.items():
            begin = time.perf_counter()
            try:
                outcomes = self._alone(arch, model, samples)
            except EvaluationError as error:
                found[arch] = error
            else:
                cost_s = time.perf_counter() - begin
                found[arch] = Outcomes(outcomes=outcomes, cost_s=cost_s)
        return found

    def _alone(self, arch: Architecture, model: Path, samples: SplitSamples) -> NDArray[Any]:
        waiting: deque[NDArray[Any]] = deque()

        def fed() -> Iterator[dict[str, NDArray[Any]]]:
            spec = self._net.input_spec(arch)
            for inputs, targets in samples.batches(SCORE_BATCH, spec):
                waiting.append(targets)
                yield inputs

        outputs = self._device.run(model, fed())
        parts = [sample_outcomes(out, waiting.popleft(), self._metric) for out in outputs]
        if not parts:
            raise EvaluationError("there are no samples to score")
        return np.concatenate(parts)
