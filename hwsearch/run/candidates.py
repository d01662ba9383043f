"""Candidates of a search with predicted values, and the kit that times them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from hwsearch.devices import MeasureSettings
from hwsearch.errors import EvaluationError
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.files import digest_of_text
from hwsearch.kit.build import write_kit
from hwsearch.kit.device import KitDevice
from hwsearch.kit.manifest import CONFIRM, Manifest
from hwsearch.run.progress import Progress
from hwsearch.run.setup import Setup
from hwsearch.run.value_sources.base import PREDICTOR
from hwsearch.space import Architecture

PREDICTED = "predicted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A predicted number, which enters no front, with its 95% interval.

    Attributes:
        value: In the quantity's unit.
        basis: Source of the prediction: device and table digest of a latency, predictor and
            digest of an accuracy.
    """

    quantity: str
    value: float
    low: float
    high: float
    basis: Mapping[str, str]

    def stated(self) -> dict[str, Any]:
        """Return the prediction as an entry of a card."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {"quantity": self.quantity, "source": PREDICTED, **numbers, **self.basis}


def predictions(
    setup: Setup, archs: Sequence[Architecture]
) -> dict[str, dict[str, Prediction | None]]:
    """Return key -> quantity -> prediction; None for latency if it is no objective."""
    found: dict[str, dict[str, Prediction | None]] = {arch.key: {LATENCY: None} for arch in archs}
    batch = setup.net.space.architectures(archs)
    for name, predicting in setup.predicted.items():
        intervals = zip(*predicting.interval(batch), strict=True)
        for arch, (value, low, high) in zip(archs, intervals, strict=True):
            found[arch.key][name] = Prediction(
                quantity=name,
                value=float(value),
                low=float(low),
                high=float(high),
                basis=_basis(setup, name),
            )
    return found


def _basis(setup: Setup, quantity: str) -> dict[str, str]:
    device = setup.device
    if quantity == LATENCY and isinstance(device, KitDevice):
        return {"device": device.table.device, "table": device.content}
    used = setup.source(PREDICTOR)
    return {"predictor": str(used["name"]), "predictor_digest": str(used["digest"])}


def write_second_kit(
    setup: Setup,
    evaluator: Evaluator,
    archs: Sequence[Architecture],
    path: Path,
    settings: MeasureSettings,
    progress: Progress,
) -> Manifest:
    """Write the kit that times the candidates of a run on the device of its table."""
    device = setup.device
    assert isinstance(device, KitDevice)
    measured_on, fingerprint = device.measured_on

    def models() -> Iterator[tuple[Architecture, onnx.ModelProto]]:
        for arch in archs:
            try:
                yield arch, evaluator.model_of(arch)
            except EvaluationError as error:
                progress.note(f"{arch.key} is not in the kit: {error}")
            progress.advance()

    return write_kit(
        setup.net,
        models(),
        path,
        CONFIRM,
        settings,
        run=run_digest(setup),
        device=measured_on,
        fingerprint=fingerprint,
    )


def run_digest(setup: Setup) -> str:
    """Return the digest that identifies a run to its kit: settings, and what they resolved to."""
    recorded = setup.recorded()
    parts = {name: recorded[name] for name in ("space", "weights", "data", "device")}
    text = repr((setup.config, sorted(parts.items())))
    return digest_of_text(text)
