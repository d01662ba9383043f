"""What a search ends with where latency was predicted: candidates, and a kit that times them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hwsearch.devices import MeasureSettings
from hwsearch.errors import EvaluationError
from hwsearch.kit.build import Subject, empty_manifest, write_kit
from hwsearch.kit.device import KitDevice
from hwsearch.kit.manifest import CONFIRM, Manifest
from hwsearch.run.evaluation import LATENCY, Evaluator
from hwsearch.run.progress import Progress
from hwsearch.run.setup import Setup
from hwsearch.space import Architecture

SOURCE, PREDICTED = f"{LATENCY}_source", "predicted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A latency that was predicted; it enters no front.

    Attributes:
        value: In ms.
        low: Low end of its 95% interval.
        high: High end.
        device: The device that it is of, as written down.
        table: Digest of the table that it was predicted from.
    """

    value: float
    low: float
    high: float
    device: str
    table: str

    def stated(self) -> dict[str, Any]:
        """Return it as a card states it."""
        return {"quantity": LATENCY, "source": PREDICTED, **asdict(self)}


def predictions(setup: Setup, archs: Sequence[Architecture]) -> dict[str, Prediction | None]:
    """Predict latencies by key; None for each where latency is no objective."""
    predicted, device = setup.predicted, setup.device
    if predicted is None or not isinstance(device, KitDevice):
        return dict.fromkeys(arch.key for arch in archs)
    intervals = zip(*predicted.interval(setup.net.space.architectures(archs)), strict=True)
    return {
        arch.key: Prediction(
            value=float(value),
            low=float(low),
            high=float(high),
            device=device.table.device,
            table=device.content,
        )
        for arch, (value, low, high) in zip(archs, intervals, strict=True)
    }


def write_second_kit(
    setup: Setup,
    evaluator: Evaluator,
    archs: Sequence[Architecture],
    path: Path,
    settings: MeasureSettings,
    progress: Progress,
) -> Manifest:
    """Make the kit that times the candidates of a run on the device of its table.

    Args:
        setup: Of the run; its device is known by a table.
        evaluator: Builds the models.
        archs: What the kit times.
        path: The file.
        settings: How precisely the kit times them.
        progress: Told of every model.
    """
    device = setup.device
    assert isinstance(device, KitDevice)
    measured_on, fingerprint = device.measured_on

    def subjects() -> Iterator[Subject]:
        for arch in archs:
            try:
                model = evaluator.build(arch).model
            except EvaluationError as error:
                progress.note(f"{arch.key} is not in the kit: {error}")
            else:
                content = model.SerializeToString(deterministic=True)
                shipped = hashlib.sha256(content).hexdigest()
                yield Subject(arch=arch, model=model, shipped=shipped)
            progress.advance()

    empty = replace(
        empty_manifest(setup.net, CONFIRM, settings),
        run=run_digest(setup),
        device=measured_on,
        fingerprint=fingerprint,
    )
    return write_kit(setup.net, subjects(), path, empty)


def run_digest(setup: Setup) -> str:
    """What names a run to its kit: settings, and what they resolved to."""
    recorded = setup.recorded()
    parts = {name: recorded[name] for name in ("space", "weights", "data", "device")}
    text = repr((setup.config, sorted(parts.items())))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
