"""What `bench_fidelity.py` races on: architectures with an outcome on every image.

On the bundled supernet, outcomes are the real ones, measured once for each architecture and kept
in a file. On the scale of ImageNet they are simulated: top-1 is that of the surrogate in
`../shared/bench` (see `bench_search.py`), images differ in difficulty, and each has a taste of its
own for every choice, so that similar subnets get the same images wrong.
"""

import io
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from bench_search import BENCH, Yardstick, load_module, mobilenet_space
from numpy.typing import NDArray

from hwsearch.accuracy.scoring import Outcomes
from hwsearch.accuracy.sources import load_task
from hwsearch.accuracy.task import TOP1, Task
from hwsearch.devices import load_device
from hwsearch.errors import EvaluationError
from hwsearch.evaluation.evaluator import Evaluator, Prepared
from hwsearch.files import write_atomic
from hwsearch.objectives import FloatArray, Objective
from hwsearch.optimizer import Optimizer
from hwsearch.space import Architecture, Architectures
from hwsearch.supernets.zoo import load_supernet
from hwsearch.trials import MemoryStore, Store

# Cai et al., "Once-for-All", ICLR 2020: images for batch statistics.
SIMULATED_CALIBRATION = 2000
# Simulated subnets disagree about as often as the real ones of the bundled supernet do.
DIFFICULTY, TASTE, CHANCE = 1.0, 0.3, 0.08


class Bench(Protocol):
    """Architectures with known outcomes on every image.

    Attributes:
        reference: Of the hypervolume.
        targets: ``(total,)`` class of each image, where classes are known.
        calibration: Images that building takes.
    """

    reference: Mapping[str, float]
    targets: NDArray[Any]
    calibration: int

    def optimizer(self, tactic: str, seed: int) -> Optimizer:
        """Return a fresh search over (top1, macs)."""

    def outcomes(self, archs: Architectures) -> FloatArray:
        """Return ``(n, total)`` outcomes, 0 or 1."""

    def seconds(self, arch: Architecture) -> tuple[float, float]:
        """Return what building and full scoring take."""


class Bundled:
    """The bundled supernet, by real outcomes.

    Args:
        path: Keeps outcomes, and what they took, over runs of this script.
    """

    reference: ClassVar = {"top1": 80.0, "macs": 60e6}

    def __init__(self, path: Path) -> None:
        self.net = load_supernet("cifar10-resnet")
        task = load_task(
            "bundled", self.net.input_spec(self.net.space.smallest()[0]), "cifar10-resnet"
        )
        assert task.calibration is not None
        self._evaluator = Evaluator(
            self.net, load_device("ort-cpu:threads=1"), task, MemoryStore()
        )
        self.targets, self.calibration = task.search.targets, len(task.calibration)
        self._path = path
        self._known = dict(np.load(path)) if path.exists() else {}

    def optimizer(self, tactic: str, seed: int) -> Optimizer:
        """Return a fresh search over (top1, macs)."""
        macs = Objective("macs", "min", exact=partial(self.net.exact, "macs"))
        return Optimizer(
            self.net.space, [Objective("top1", "max"), macs], seed=seed, tactic=tactic
        )

    def outcomes(self, archs: Architectures) -> FloatArray:
        """Measure what is not known yet; ``(n, total)``."""
        return np.array([self._row(arch)[2:] for arch in archs])

    def seconds(self, arch: Architecture) -> tuple[float, float]:
        """Return what building and full scoring took."""
        build_s, score_s = self._row(arch)[:2]
        return float(build_s), float(score_s)

    def _row(self, arch: Architecture) -> FloatArray:
        if arch.key not in self._known:
            with tempfile.TemporaryDirectory() as scratch:
                begin = time.perf_counter()
                model = self._evaluator.write_model(arch, Path(scratch))
                built = time.perf_counter()
                scored = self._evaluator.outcomes({arch: model}, self._evaluator.task.search)[arch]
                if isinstance(scored, EvaluationError):
                    raise scored
            times = [built - begin, time.perf_counter() - built]
            self._known[arch.key] = np.array([*times, *scored.outcomes], np.float64)
            file = io.BytesIO()
            np.savez_compressed(file, **self._known)
            write_atomic(self._path, file.getvalue())
        return self._known[arch.key]


class Simulated:
    """OFA-MobileNetV3 with simulated outcomes, whose mean is what the surrogate says.

    Args:
        total: Images.
    """

    reference: ClassVar = {"top1": 70.0, "macs": 600.0}
    calibration = SIMULATED_CALIBRATION

    def __init__(self, total: int) -> None:
        self.targets = np.arange(total)  # a plain random order
        self._yardstick = Yardstick(load_module(BENCH / "run_dynast.py"))
        self._space = mobilenet_space()
        rng = np.random.default_rng(0)
        self._ease = (DIFFICULTY * rng.standard_normal(total)).astype(np.float32)
        options = sum(len(choice.options) for choice in self._space.choices)
        self._taste = rng.standard_normal((options, total)).astype(np.float32)

    def optimizer(self, tactic: str, seed: int) -> Optimizer:
        """Return a fresh search over (top1, macs)."""
        macs = Objective("macs", "min", exact=self._yardstick.macs)
        return Optimizer(self._space, [Objective("top1", "max"), macs], seed=seed, tactic=tactic)

    def outcomes(self, archs: Architectures) -> FloatArray:
        """Return the images that each answers best, as many as its top-1 says: ``(n, total)``."""
        total = len(self.targets)
        found = np.zeros((len(archs), total))
        for row, (arch, top1) in enumerate(zip(archs, self._yardstick.top1(archs), strict=True)):
            liking = self._one_hot(archs[[row]])[0] @ self._taste
            own = np.random.default_rng(int(arch.key, 16)).standard_normal(total)
            ease = self._ease + TASTE * liking / np.sqrt(len(self._space.choices)) + CHANCE * own
            found[row, np.argsort(-ease)[: round(top1 / 100 * total)]] = 1.0
        return found

    def seconds(self, arch: Architecture) -> tuple[float, float]:
        """Return 0: nothing is run."""
        del arch
        return 0.0, 0.0

    def _one_hot(self, archs: Architectures) -> FloatArray:
        parts = []
        for column, choice in enumerate(self._space.choices):
            chosen = archs.indices[:, column, None] == np.arange(len(choice.options))
            parts.append(chosen & archs.active[:, column, None])
        return np.concatenate(parts, axis=1).astype(np.float32)


@dataclass(frozen=True)
class Images:
    """Some of a bench's images, which nobody ever looks at.

    Attributes:
        rows: Their places among all.
        targets: ``(n,)``.
    """

    rows: NDArray[np.int64]
    targets: NDArray[Any]
    digest: str = "recorded"

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: NDArray[np.int64]) -> "Images":
        """Return the images of these rows, in this order."""
        return Images(self.rows[rows], self.targets[rows])


class Recorded(Evaluator):
    """An evaluator that looks up what it would measure.

    Args:
        bench: Knows it.
        store: Receives it.
    """

    def __init__(self, bench: Bench, store: Store) -> None:
        samples = Images(np.arange(len(bench.targets)), bench.targets)
        self.task = Task(spec="recorded", metric=TOP1, search=samples, report=samples)
        self.store, self.seed, self.latency_context, self._bench = store, 0, "", bench

    def score_context(self, samples: Images) -> str:
        """Name the number of images: nothing else differs."""
        return f"{len(samples)} images"

    def ready(self, archs: Architectures) -> dict[Architecture, Prepared]:
        """Say what building each took."""
        return {
            arch: Prepared(
                path=Path(arch.key),
                cost_s=self._bench.seconds(arch)[0],
                calibrated=self._bench.calibration,
            )
            for arch in archs
        }

    def outcomes(
        self, models: Mapping[Architecture, Path], samples: Images
    ) -> dict[Architecture, Outcomes | EvaluationError]:
        """Look outcomes up."""
        found: dict[Architecture, Outcomes | EvaluationError] = {}
        for arch in models:
            (row,) = self._bench.outcomes(arch.space.architectures([arch]))
            share = len(samples) / len(self._bench.targets)
            found[arch] = Outcomes(
                outcomes=row[samples.rows] > 0, cost_s=share * self._bench.seconds(arch)[1]
            )
        return found
