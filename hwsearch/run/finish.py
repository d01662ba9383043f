"""From evaluated trials to a front: confirmed together, exported, verified, scored on new data."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices import MeasureSettings
from hwsearch.errors import EvaluationError, InfeasibleError, VerificationError
from hwsearch.export.artifact import MODEL, Exported, write_card, write_files
from hwsearch.export.verify import check_probe, probe_answers, run_infer, verify_export
from hwsearch.files import staged_folder
from hwsearch.objectives import closest_to_feasible
from hwsearch.run.evaluation import LATENCY, Evaluator
from hwsearch.run.front import contender_rows, front_rows
from hwsearch.run.progress import Progress
from hwsearch.run.setup import Setup
from hwsearch.space import Architecture
from hwsearch.trials import Measurement, TrialState

CONFIRM = MeasureSettings(half_width=0.01, seconds_per_model=2.5)
VERIFIED_SAMPLES = 256
Values = dict[str, NDArray[np.float64]]


class Finisher:
    """Turns the trials of a run into its front.

    Args:
        setup: The parts of the run.
        evaluator: Measures and remembers.
        subnets: Folder that exported subnets go into.
        progress: Told of every step.
    """

    def __init__(
        self, setup: Setup, evaluator: Evaluator, subnets: Path, progress: Progress
    ) -> None:
        self.setup, self.evaluator, self.progress = setup, evaluator, progress
        self.store = evaluator.store
        self.subnets = subnets

    def finish(self) -> list[dict[str, Any]]:
        """Confirm, export and score the front.

        Returns:
            One row per member, sorted by the first objective.

        Raises:
            InfeasibleError: No trial satisfies the constraints; the text says what came closest.
        """
        keys, values = self._search_values()
        contenders = self._contenders(keys, values)
        with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
            confirmed = self._confirm([keys[row] for row in contenders], Path(scratch))
        kept = [row for row in contenders if keys[row] in confirmed]
        final = {name: array[kept] for name, array in values.items()}
        if LATENCY in final:
            final[LATENCY] = np.array([_latency(confirmed[keys[row]]) for row in kept])
        front = [keys[kept[row]] for row in self._feasible_front(final, [keys[r] for r in kept])]
        return self._export_all(front, confirmed)

    def _search_values(self) -> tuple[list[str], Values]:
        """Values of every finished trial, by name, in the order of the trials."""
        keys = [trial.key for trial in self.store.trials(TrialState.DONE)]
        if not keys:
            failed = self.store.trials(TrialState.FAILED)
            raise EvaluationError(
                f"all {len(failed)} trials failed; the first one: {failed[0].reason}"
                if failed
                else "the run holds no trials"
            )
        archs = [self._arch(key) for key in keys]
        measured = self.evaluator.search_values(archs, self.setup.measured)
        values: Values = {}
        batch = self.setup.net.space.architectures(archs)
        for objective in self.setup.objectives:
            if objective.exact is not None:
                values[objective.name] = np.asarray(objective.exact(batch), np.float64)
            else:
                values[objective.name] = np.array(
                    [_value(measured[key], objective.name) for key in keys]
                )
        return keys, values

    def _contenders(self, keys: list[str], values: Values) -> list[int]:
        low: Values = {}
        if LATENCY in values:
            context = self.evaluator.latency_context
            found = [self.store.find(key, LATENCY, context, "search") for key in keys]
            low[LATENCY] = np.array([_noisy_low(m) for m in found])
        rows = contender_rows(values, low, self.setup.objectives, self.setup.constraints)
        if not len(rows):
            raise InfeasibleError(closest_to_feasible(self.setup.constraints, values, keys))
        return [int(row) for row in rows]

    def _confirm(self, keys: list[str], scratch: Path) -> dict[str, Measurement | None]:
        """Time the contenders together; without latency among the objectives nothing is timed."""
        if LATENCY not in [objective.name for objective in self.setup.objectives]:
            self.progress.phase("confirm", 1, done=1)
            return dict.fromkeys(keys)
        self.progress.phase("confirm", len(keys) + 1)
        models = {}
        for key in keys:
            models[key] = self.evaluator.write_model(self._arch(key), scratch)
            self.progress.advance()
        confirmed: dict[str, Measurement | None] = {}
        for key, result in self.evaluator.confirm_latencies(models, CONFIRM).items():
            if isinstance(result, Measurement):
                confirmed[key] = result
            else:
                self.progress.note(f"{key} leaves the front: {result}")
        self.progress.advance()
        return confirmed

    def _feasible_front(self, values: Values, keys: Sequence[str]) -> NDArray[np.int64]:
        if not len(keys):
            raise EvaluationError("every contender for the front failed when it was confirmed")
        rows = front_rows(values, self.setup.objectives, self.setup.constraints)
        if not len(rows):
            raise InfeasibleError(closest_to_feasible(self.setup.constraints, values, keys))
        return rows

    def _export_all(
        self, keys: Sequence[str], confirmed: dict[str, Measurement | None]
    ) -> list[dict[str, Any]]:
        self.progress.phase("export", len(keys))
        rows = []
        for key in keys:
            try:
                rows.append(self._member(key, confirmed[key]))
            except (VerificationError, EvaluationError) as error:
                self.progress.note(f"{key} is not shipped: {error}")
            self.progress.advance()
        if not rows:
            raise VerificationError("no member of the front passed its verification")
        first = self.setup.objectives[0].name
        return sorted(rows, key=lambda row: row[first])

    def _member(self, key: str, confirmed: Measurement | None) -> dict[str, Any]:
        """Write and verify one member, score it on the report samples, and return its row."""
        arch, task = self._arch(key), self.setup.task
        exported = self.evaluator.build(arch)
        with staged_folder(self.subnets / key) as folder:
            write_files(folder, self.setup.net, exported)
            verification = self._verify(folder, exported)
            answers = probe_answers(folder, exported, self.setup.device)
            searched = self.evaluator.scored(arch, folder / MODEL, task.search, "search")
            reported = self.evaluator.scored(arch, folder / MODEL, task.report, "report")
            measured = [m for m in (searched, confirmed, reported) if m is not None]
            stated = [_stated(m) for m in measured]
            card = write_card(folder, self.setup.net, exported, stated, verification, answers)
            check_probe(folder, card, self.setup.device)
            run_infer(folder)
        metric = task.metric.name
        row: dict[str, Any] = {"key": key}
        row |= _columns(metric, searched) | _columns(f"{metric}_report", reported)
        if confirmed is not None:
            row |= _columns(LATENCY, confirmed)
            row |= {name: confirmed.details[name] for name in ("p90_ms", "p99_ms", "rounds")}
        row |= card["exact"] | {"weights": self.setup.net.weights}
        # Every choice, in the order of the space; one that is inactive here has no value.
        choices = {name: arch.mapping.get(name) for name in arch.space.names}
        return row | {"subnet": f"{self.subnets.name}/{key}"} | choices

    def _verify(self, folder: Path, exported: Exported) -> dict[str, Any]:
        batch = self.setup.net.space.architectures([exported.arch])
        promised = {name: int(self.setup.net.exact(name, batch)[0]) for name in ("macs", "params")}
        spec = self.setup.net.input_spec(exported.arch)
        samples, _ = next(self.setup.task.search.batches(VERIFIED_SAMPLES, spec))
        return verify_export(folder, exported, promised, samples, self.setup.device)

    def _arch(self, key: str) -> Architecture:
        return self.setup.net.space.architectures([self.store.trial(key).choices])[0]


def _value(values: dict[str, float] | EvaluationError, name: str) -> float:
    if isinstance(values, EvaluationError):
        raise values
    return values[name]


def _noisy_low(measurement: Measurement | None) -> float:
    """Return a latency at the good end of its ratio's interval: what ranking depends on."""
    assert measurement is not None
    ratio, low = measurement.details["ratio"], measurement.details["ratio_low"]
    return float(measurement.value * low / ratio)


def _latency(measurement: Measurement | None) -> float:
    assert measurement is not None
    return measurement.value


def _stated(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement as a card states it."""
    return {
        "quantity": measurement.quantity,
        "purpose": measurement.purpose,
        "value": measurement.value,
        "low": measurement.low,
        "high": measurement.high,
        "count": measurement.count,
        "context": measurement.context,
        "details": json.loads(json.dumps(measurement.details)),
    }


def _columns(name: str, measurement: Measurement) -> dict[str, float | None]:
    return {
        name: measurement.value,
        f"{name}_low": measurement.low,
        f"{name}_high": measurement.high,
    }
