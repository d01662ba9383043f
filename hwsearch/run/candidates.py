"""Candidates of a search with predicted values, and the kit that times them."""

from collections.abc import Iterator, Mapping
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
from hwsearch.space import Architecture, Architectures

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


def predictions(setup: Setup, quantity: str, archs: Architectures) -> dict[str, Prediction]:
    """Return key -> prediction of a quantity that cannot be measured here."""
    device = setup.device
    if quantity == LATENCY and isinstance(device, KitDevice):
        basis = {"device": device.table.device, "table": device.content}
    else:
        used = setup.source(PREDICTOR)
        basis = {"predictor": str(used["name"]), "predictor_digest": str(used["digest"])}
    intervals = zip(*(v.tolist() for v in setup.predicted[quantity].interval(archs)), strict=True)
    return {
        key: Prediction(quantity=quantity, value=value, low=low, high=high, basis=basis)
        for key, (value, low, high) in zip(archs.ids, intervals, strict=True)
    }


def write_second_kit(
    setup: Setup,
    evaluator: Evaluator,
    archs: Architectures,
    path: Path,
    settings: MeasureSettings,
    progress: Progress,
) -> Manifest:
    """Write the kit that times the candidates of a run on the device of its table."""
    device = setup.device
    assert isinstance(device, KitDevice)
    measured_on, fingerprint = device.measured_on
    # What identifies a run to its kit: settings, and what they resolved to.
    recorded = setup.recorded()
    parts = [(name, recorded[name]) for name in ("data", "device", "space", "weights")]

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
        run=digest_of_text(repr((setup.config, parts))),
        device=measured_on,
        fingerprint=fingerprint,
    )
