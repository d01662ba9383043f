"""Candidates of a search with predicted values, the kit that times them, and its timings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from hwsearch.devices import MeasureSettings
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.spec import file_precision
from hwsearch.errors import EvaluationError, InputError
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.evaluation.measurements import (
    LATENCY,
    REPEATED_WEIGHTS,
    latency_measurement,
    ratio_measurement,
)
from hwsearch.files import digest_of_text
from hwsearch.kit.build import write_kit
from hwsearch.kit.device import KitDevice
from hwsearch.kit.manifest import CONFIRM, Manifest, read_manifest
from hwsearch.kit.results import KitFacts, check_complete, check_plan, read_results
from hwsearch.quantization import quantization_for
from hwsearch.run.progress import Progress
from hwsearch.run.setup import Setup
from hwsearch.run.value_sources.base import PREDICTOR
from hwsearch.space import Architecture, Architectures
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement

PREDICTED = "predicted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A predicted number, which enters no front, with its 95% interval.

    ``basis`` names what predicts it: device and table of a latency, predictor of an accuracy.
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
) -> None:
    """Write the kit that times the candidates of a run on the device of its table."""
    device = setup.device
    assert isinstance(device, KitDevice)
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

    write_kit(
        setup.net,
        models(),
        path,
        CONFIRM,
        settings,
        precision=file_precision(device.precision),
        quantization=quantization_for(device.fingerprint()),
        run=digest_of_text(repr((setup.config, parts))),
        device=device.table.device,
        fingerprint=digest(device.table.fingerprint),
    )


def read_timings(kit: Path, path: Path) -> tuple[Manifest, KitFacts, str]:
    """Return a run's kit, the timings that it wrote on the device, and their context."""
    where = repr(str(path))
    table, facts = read_results(path)
    if facts.purpose != CONFIRM:
        raise InputError(
            f"{where} is a table to predict from, and no timings of candidates; search with it by "
            f"'hwsearch search --device kit:{path}'"
        )
    if not kit.is_file():
        raise InputError(
            f"there is no kit {str(kit)!r}, so that {where} confirms nothing; only a search by "
            "'--device kit:TABLE.json' leaves one"
        )
    manifest = read_manifest(kit)
    if facts.run != manifest.run:
        raise InputError(
            f"{where} holds timings of another run ({facts.run or 'none'}, this is "
            f"{manifest.run}); give what {kit} wrote"
        )
    check_plan(facts, manifest, where, "both have to be of one making")
    check_complete(facts, path)
    measured_on = f"{table.device} {digest(table.fingerprint)}"
    wanted = f"{manifest.device} {manifest.fingerprint}"
    if measured_on != wanted:
        raise InputError(
            f"{where} was measured on {measured_on}, and the run's table on {wanted}: they do not "
            "compare; run the kit there"
        )
    return manifest, facts, f"{measured_on} kit={manifest.digest} timings={facts.content[:12]}"


def store_timings(
    store: Store, facts: KitFacts, context: str, where: str
) -> Mapping[str, Measurement]:
    """Add the latencies to the store, once, and return them by key."""
    timed = {key: facts.latency(key, where) for key in facts.latencies}
    measured = {
        # Kits hold models with repeated weights.
        key: latency_measurement(key, latency, context, "confirm", weights=REPEATED_WEIGHTS)
        for key, latency in timed.items()
    }
    ratios = [ratio_measurement(key, latency, context) for key, latency in timed.items()]
    known = {each.identity for each in store.measurements(purpose="confirm")}
    store.add_all(e for e in (*measured.values(), *ratios) if e.identity not in known)
    return measured
