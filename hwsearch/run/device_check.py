"""Check of a device: latencies of one model under two names must agree."""

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.metric import mean_interval
from hwsearch.devices import Device, MeasureSettings, load_device
from hwsearch.errors import InputError
from hwsearch.evaluation.attempt import raised
from hwsearch.kit.device import RemoteDevice
from hwsearch.models.export import to_onnx
from hwsearch.run.progress import Progress, Silent
from hwsearch.supernets.zoo import load_supernet

CHECK = MeasureSettings(half_width=0.007, seconds_per_model=6.0)
AS_IT_IS, BUSY = "as it is", "beside a busy core"
TOLERANCE = 0.01
N_MODELS = 5
_BURN = "import os\nwhile os.getppid() == {parent}:\n    for _ in range(10**6): pass"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Agreement:
    """Agreement of the two latencies of pairs, each one model under two names.

    ``differences`` are those of the two ratios to the anchor, (n_pairs,), relative and signed;
    ``held`` is the number of pairs whose difference lies within the interval of a difference of
    two such ratios, ``reached`` that of pairs of which both reached the requested precision.
    """

    differences: NDArray[np.float64]
    held: int
    reached: int

    @property
    def pairs(self) -> int:
        """Number of measured pairs."""
        return len(self.differences)

    @property
    def agreed(self) -> int:
        """Number of pairs that differ by at most 1%."""
        return int((np.abs(self.differences) <= TOLERANCE).sum())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the share of pairs that agree."""
        _, low, high = mean_interval(np.abs(self.differences) <= TOLERANCE)
        return low, high


def check_device(
    spec: str | Device, *, pairs: int = 20, seed: int = 0, progress: Progress | None = None
) -> dict[str, Agreement]:
    """Time pairs of equal subnets of the bundled supernet, without and with a busy core.

    Return condition -> agreement; another machine is only checked as it is.

    Raises:
        InputError: There is no such device, or its machine cannot be reached.
        DeviceError: The device does not run a model.
    """
    if pairs < 1:
        raise InputError(f"the number of pairs is {pairs}; give a whole number from 1 up")
    device = load_device(spec)
    opened = nullcontext() if device is spec else closing(device)
    with opened, tempfile.TemporaryDirectory(prefix="hwsearch-") as folder:
        device.fingerprint()  # of a machine that cannot be reached nothing is worth building
        net, models = load_supernet("cifar10-resnet"), []
        for arch in net.space.sample_spread(N_MODELS, seed=0):
            models.append(Path(folder) / f"{arch.key}.onnx")
            models[-1].write_bytes(to_onnx(net, arch).SerializeToString())
        check = partial(check_agreement, device, models, pairs, settings=CHECK, progress=progress)
        found = {AS_IT_IS: check(seed=seed)}
        if not isinstance(device, RemoteDevice):  # the busy core would be one of this machine
            with busy_core():
                found[BUSY] = check(seed=seed + 1, phase="busy")
    return found


def check_agreement(
    device: Device,
    models: Sequence[Path],
    pairs: int,
    *,
    seed: int = 0,
    settings: MeasureSettings = CHECK,
    progress: Progress | None = None,
    phase: str = "check",
) -> Agreement:
    """Time each ONNX file under two names, in as many jobs as are needed for all pairs.

    All pairs of a job take turns; the seed of their order differs between jobs.
    """
    progress = progress or Silent()
    progress.phase(phase, pairs)
    differences: list[float] = []
    held = reached = 0
    for job in range(-(-pairs // len(models))):
        chosen = models[: pairs - len(differences)]
        twice = {f"{i}{side}": path for i, path in enumerate(chosen) for side in "ab"}
        measured = device.measure(twice, seed=seed * 1_000_003 + job, settings=settings)
        for i in range(len(chosen)):
            a, b = (raised(measured[f"{i}{side}"]) for side in "ab")
            differences.append(a.ratio / b.ratio - 1)
            widths = [math.log(each.ratio_high / each.ratio) for each in (a, b)]
            held += abs(math.log(a.ratio / b.ratio)) <= math.hypot(*widths)
            reached += max(widths) <= settings.half_width
        progress.advance(len(chosen))
        within = int((np.abs(differences) <= TOLERANCE).sum())
        progress.state(agreed=f"{within} of {len(differences)}")
    return Agreement(differences=np.array(differences), held=held, reached=reached)


@contextmanager
def busy_core() -> Iterator[None]:
    """Keep one core busy until the block or this process ends."""
    burn = _BURN.format(parent=os.getpid())
    with subprocess.Popen([sys.executable, "-S", "-c", burn]) as burner:
        try:
            yield
        finally:
            burner.kill()
